"""The networks that are compared: features, one trunk, and an attention an arm."""
