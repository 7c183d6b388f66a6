"""Checks of an overlap function: how it is called, what it is fed, its budgets, and one function a check."""
