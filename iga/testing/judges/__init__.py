"""Judges: what is right, computed from the formulas, without the code that is judged."""
