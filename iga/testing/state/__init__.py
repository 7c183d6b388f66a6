"""The state of the process that a call of somebody else's code has to leave as it was."""
