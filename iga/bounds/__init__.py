"""Bounds of the score, a function a theorem: `exact` in exact arithmetic, `rounding` for floating point on top, and
`likely` for roundings that are random.

docs/theory.md has the proofs; each function names its section. `summary` puts the numbers into the table of
`iga bounds`.

Arguments are numbers, or float32 and float64 tensors of shapes that broadcast, and the result has their shape. Lengths
are nm, log_det ln nm⁶, scores and logits nats; dist_sq, κ and relative errors have no unit; `dtype` stands for its unit
roundoff. They are checked at this door, once: half precision, integer and complex tensors raise ValueError. Hypotheses
(H) and (R) are those of sections 3 and 6.1.
"""

import types

from iga.bounds import exact, likely, rounding, steps
from iga.bounds._scalar import of_numbers
from iga.bounds.exact import *  # noqa: F403 - each module lists its names once
from iga.bounds.likely import *  # noqa: F403 - the same
from iga.bounds.rounding import *  # noqa: F403 - the same
from iga.bounds.roundings import ANY, CPU, FUSED, IMPLEMENTATIONS, REFERENCE, Roundings
from iga.bounds.steps import *  # noqa: F403 - the same
from iga.bounds.summary import BoundRow, bounds_rows, bounds_summary

__all__ = ["ANY", "CPU", "FUSED", "IMPLEMENTATIONS", "REFERENCE", "BoundRow", "Roundings"]
__all__ += ["bounds_rows", "bounds_summary"]
__all__ += exact.__all__
__all__ += rounding.__all__
__all__ += likely.__all__
__all__ += steps.__all__

for _name in __all__:
    if isinstance(globals()[_name], types.FunctionType):
        globals()[_name] = of_numbers(globals()[_name])
