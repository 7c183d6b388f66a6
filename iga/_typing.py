"""Shape letters and the unit of length, stated once.

=========  =====================================================================
letter     meaning
=========  =====================================================================
``*b``     any number of leading (batch) dimensions
``n``      residues (``q`` query residues, ``k`` key residues where they differ)
``h``      heads
``p``      query/key points (Gaussians) per head
``c``      channels
``3``      space: x, y, z, always the last dimension
=========  =====================================================================

Lengths are nanometres everywhere but at the boundary, where a parameter says otherwise: 1 Å = 0.1 nm.
Vectors are columns: a frame maps local to global by ``x = R x_loc + t``. Quaternions are w first.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["NM_PER_ANGSTROM", "Bool", "Float", "Int", "Tensor"]

NM_PER_ANGSTROM = 0.1
