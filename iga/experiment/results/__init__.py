"""The results of runs: collected, read, judged by the stated rules, and laid out as a page."""
