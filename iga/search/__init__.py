"""Inputs to search among, as rows of numbers. Nothing here knows of attention or of a check."""
