"""The sweep: a grid of runs over arms, points, learning rates and stresses, its verdicts by rule, and its page."""
