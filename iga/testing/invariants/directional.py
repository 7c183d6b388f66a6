"""Derivatives of a function of one number, by differences of its values, with a bound on their error.

    central    D(h) = (F(h) − F(−h))/2h          error c h² + O(h⁴)
    one-sided  D(h) = (F(h) − F(0))/h            error c h  + O(h²)

Richardson: R = (4 D(h/2) − D(h))/3, resp. 2 D(h/2) − D(h), drops the term in c, which |R − D(h/2)| measures. A kink
within a central step shows in the second difference B(h) = (F(h) − 2F(0) + F(−h))/h, which a smooth F halves with h, so
that B(h) − 2B(h/2) is O(h³). Three times the first plus the second bounds what one kink anywhere in (0, h) does to R
(docs/theory.md, 13.4). Each value errs by at most `noise`: 40 noise/h in all, one-sided 10 noise/h.
"""

from collections.abc import Callable

from iga._typing import Tensor

__all__ = ["central", "one_sided", "roughness"]


def central(f: Callable[[float], Tensor], h: float, noise: Tensor | float) -> tuple[Tensor, Tensor]:
    """(dF/dx at 0, a bound on its error), entry by entry of what `f` returns, float64."""
    start, up, down, half_up, half_down = (f(x) for x in (0.0, h, -h, h / 2, -h / 2))
    whole, half = (up - down) / (2 * h), (half_up - half_down) / h
    best = (4 * half - whole) / 3
    bend = ((up - start) + (down - start)) / h - 4 * ((half_up - start) + (half_down - start)) / h
    return best, 3 * (best - half).abs() + bend.abs() + 40 * noise / h


def roughness(f: Callable[[float], Tensor], h: float, far: float, noise: Tensor | float) -> tuple[Tensor, Tensor]:
    """(|F(h) − 2F(0) + F(−h)|, a bound on it for a function with a kink or without, whose values err by `noise`).

    The bound is 8 noise + 2h|B(far)|, h ≪ far: a smooth F gives h²F'' = h (h/far) B(far), a kink at most h·B(far). A
    function that rounds its values to r gives r, far above it.
    """
    start = f(0.0)

    def bend(x: float) -> Tensor:
        return ((f(x) - start) + (f(-x) - start)).abs()

    return bend(h), 8 * noise + 2 * h * bend(far) / far


def one_sided(f: Callable[[float], Tensor], h: float, noise: Tensor | float) -> tuple[Tensor, Tensor]:
    """The same towards positive x (h > 0) or negative x (h < 0), where there is no kink."""
    start = f(0.0)
    whole, half = (f(h) - start) / h, 2 * (f(h / 2) - start) / h
    best = 2 * half - whole
    return best, (best - half).abs() + 10 * noise / abs(h)
