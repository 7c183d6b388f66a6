"""What runs showed: collected, read, judged by the stated rules, and laid out as a page."""
