"""A run: its plan, training, evaluation, records, and the processes that share it."""
