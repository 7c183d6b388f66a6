"""Times as people write them: 90s, 10m, 1h."""

import math
import re

__all__ = ["seconds_of"]

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(text: str) -> float:
    """The seconds of such a text; a number alone is of seconds. ValueError, one line, for what is no time above 0."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([smh]?)", text.strip())
    seconds = 0.0 if found is None else float(found[1]) * UNITS[found[2]]
    if not 0 < seconds < math.inf:
        raise ValueError(f"expected a time above 0 such as 90s, 10m or 1h; got {text!r}")
    return seconds
