"""Checks of this package's own frames and diagnostics, each given as a library of functions."""
