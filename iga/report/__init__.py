"""Results for a person: tables, pages and pictures of what the other packages found. Nothing is judged here."""
