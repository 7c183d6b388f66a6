"""A planted fault: what is wrong, how to plant it, and which invariants must see it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Fault", "powers"]


def powers(first: int, last: int) -> tuple[float, ...]:
    """10^first down to 10^last, for `Fault.sizes`."""
    return tuple(10.0**k for k in range(first, last - 1, -1))


@dataclass(frozen=True)
class Fault:
    """One way to be wrong.

    name      a claim of what is wrong
    kind      "frames", "diagnostics", "overlap", "layer", "masks", "gradients", "dtypes", "point scaling",
              "control flow", "process"; of slips also "sizes", "shapes", "storage", "modes", "memory", "threads",
              "features", "transforms", …
    plant     (clean library or subject, size) → the same with the fault in it; the clean one stays as it is
    expected  names of the invariants that must catch it
    size      the size at which it is planted in the matrix, in the fault's own unit
    sizes     descending, for the search of the smallest size that is detected; empty: the fault has no knob
    region    where it is wrong, and right elsewhere ("N > 128"); empty: everywhere, or as the name says
    traced    of a layer's: whether the layer still shows its scores
    missed    why no check can see it; empty for what is expected to be caught
    """

    name: str
    kind: str
    plant: Callable[[Any, float], Any]
    expected: tuple[str, ...]
    size: float = 1.0
    sizes: tuple[float, ...] = ()
    region: str = ""
    traced: bool = True
    missed: str = ""

    def planted(self, clean: Any, size: float | None = None) -> Any:
        """`clean` with the fault at its own size, or at another."""
        return self.plant(clean, self.size if size is None else size)
