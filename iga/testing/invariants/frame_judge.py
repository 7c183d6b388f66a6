"""The judge of the frame laws: rotations, their derivatives and seeded draws in NumPy's float64, from the formulas.

Nothing of `iga` is called here. With n the unit axis, θ the angle, K = [n]ₓ:

    R = I + sin θ K + 2 sin²(θ/2) K²                       dR = R [J dv]ₓ for a rotation vector v = θ n
    J = I − (1 − cos θ)/θ² [v]ₓ + (θ − sin θ)/θ³ [v]ₓ²     J⁻¹ = I + ½[v]ₓ + (1 − (θ/2) cot(θ/2))/θ² [v]ₓ²

Entries of R err by at most JUDGE u of float64: axis 3 roundings, twice; sine, cosine and products 6; sums 4.
Source: G. S. Chirikjian, Stochastic Models, Information Theory, and Lie Groups, vol. 2 (2012), section 10.6.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from iga._typing import Tensor
from iga.testing.tally import Tally

__all__ = [
    "AWKWARD",
    "JUDGE",
    "U64",
    "Bench",
    "Turns",
    "inverse_jacobian",
    "jacobian",
    "judge_laws",
    "matrix",
    "quaternion",
    "skew",
    "turns",
]

Amount = float | int | np.ndarray

U64 = 2.0**-53
JUDGE = 16.0

# Awkward axes: on the coordinate axes, and where two or three components tie.
AWKWARD = np.array([[1, 0, 0], [0, 1, 0], [0, 0, -1], [1, 1, 0], [0, 1, -1], [1, -1, 1]], dtype=float)


def skew(v: np.ndarray) -> np.ndarray:
    """[v]ₓ, the matrix of x ↦ v × x: [..., 3] to [..., 3, 3]."""
    x, y, z = np.moveaxis(v, -1, 0)
    zero = np.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix(axis: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """The rotations about unit axes [..., 3] by angles [...]."""
    k = skew(axis)
    sine, versine = np.sin(angle), 2 * np.sin(angle / 2) ** 2
    return np.eye(3) + sine[..., None, None] * k + versine[..., None, None] * (k @ k)


def quaternion(axis: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """(cos θ/2, sin θ/2 n), w first, sign as it comes."""
    return np.concatenate([np.cos(angle / 2)[..., None], np.sin(angle / 2)[..., None] * axis], axis=-1)


def jacobian(v: np.ndarray) -> np.ndarray:
    """J of the exponential at rotation vectors [..., 3]; the series below 1e-2, where it is exact to θ⁶."""
    theta = np.linalg.norm(v, axis=-1)
    small = theta < 1e-2
    t = np.where(small, 1.0, theta)
    s = theta**2
    first = np.where(small, 0.5 - s / 24 + s**2 / 720, 2 * np.sin(t / 2) ** 2 / t**2)
    second = np.where(small, 1 / 6 - s / 120 + s**2 / 5040, (t - np.sin(t)) / t**3)
    k = skew(v)
    return np.eye(3) - first[..., None, None] * k + second[..., None, None] * (k @ k)


def inverse_jacobian(v: np.ndarray) -> np.ndarray:
    """J⁻¹ at rotation vectors [..., 3] with θ ≤ π; the series below 1e-2."""
    theta = np.linalg.norm(v, axis=-1)
    small = theta < 1e-2
    t = np.where(small, 1.0, theta)
    s = theta**2
    second = np.where(small, 1 / 12 + s / 720 + s**2 / 30240, (1 - t / 2 / np.tan(t / 2)) / t**2)
    k = skew(v)
    return np.eye(3) + 0.5 * k + second[..., None, None] * (k @ k)


@dataclass(frozen=True)
class Turns:
    """Rotations as they were drawn: unit axes [n, 3] and angles [n] in radians."""

    axis: np.ndarray
    angle: np.ndarray

    @property
    def vector(self) -> np.ndarray:
        return self.angle[:, None] * self.axis

    @property
    def matrix(self) -> np.ndarray:
        return matrix(self.axis, self.angle)


def turns(rng: np.random.Generator, *, generic: int = 0, small: int = 0, straight: int = 0) -> Turns:
    """Angles in (0.1, 3), then 10⁻¹ to 10⁻¹² above 0, then 10⁻¹ to 10⁻¹² below π; every fifth axis is awkward."""
    count = generic + small + straight
    axis = rng.standard_normal((count, 3))
    axis[::5] = AWKWARD[rng.integers(len(AWKWARD), size=len(axis[::5]))]
    angle = np.concatenate(
        [
            rng.uniform(0.1, 3.0, generic),
            10.0 ** -rng.uniform(1, 12, small),
            np.pi - 10.0 ** -rng.uniform(1, 12, straight),
        ]
    )
    return Turns(axis / np.linalg.norm(axis, axis=-1, keepdims=True), angle)


@dataclass(frozen=True)
class Bench:
    """Where values of one dtype meet the judge: every difference is handed over in units of its own budget.

    Failures of type, shape and finiteness reach the tally at once, differences at `flush`.
    """

    tally: Tally
    dtype: torch.dtype
    held: list[tuple[np.ndarray, np.ndarray, str]] = field(default_factory=list)

    @property
    def u(self) -> float:
        """The unit roundoff of the dtype."""
        return torch.finfo(self.dtype).eps / 2

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def tensor(self, x: np.ndarray) -> Tensor:
        """`x` rounded to the dtype."""
        return torch.from_numpy(np.ascontiguousarray(x)).to(self.dtype)

    def budget(self, units: Amount, size: Amount = 1.0, *, judge: Amount) -> np.ndarray:
        """`units` u of the dtype and `judge` u of float64, times `size`."""
        return np.asarray((units * self.u + judge * U64) * size)

    def number(self, found: object, shape: tuple[int, ...], where: str) -> np.ndarray | None:
        """`found` as float64, or a failure that says what is wrong with its type, shape, dtype or values."""
        if not isinstance(found, torch.Tensor) or tuple(found.shape) != shape or found.dtype != self.dtype:
            kind = f"{list(found.shape)} {found.dtype}" if isinstance(found, torch.Tensor) else type(found).__name__
            self.tally.fail(f"{where}, {self.name}", f"{where}: expected {list(shape)} {self.dtype}, got {kind}")
            return None
        if not bool(found.isfinite().all()):
            self.tally.fail(f"{where}, {self.name}", f"{where}: not finite")
            return None
        return found.detach().double().numpy()

    def near(
        self,
        found: object,
        expected: np.ndarray,
        budget: np.ndarray,
        where: str,
        *,
        scale: float | None = None,
        able: np.ndarray | bool = True,
    ) -> np.ndarray | None:
        """Judge |found − expected| ≤ budget; returns `found` as float64 if it is a finite tensor of the right kind.

        An example whose budget is as large as `scale` (by default the largest |expected|) excuses anything, so it is
        counted as unable to fail, as are those that `able` names.
        """
        value = self.number(found, expected.shape, where)
        if value is not None:
            size = float(abs(expected).max()) if scale is None else scale
            self.judge(np.asarray(abs(value - expected)), budget, where, scale=size, able=able)
        return value

    def judge(
        self,
        error: np.ndarray,
        budget: np.ndarray,
        where: str,
        *,
        scale: float | None = None,
        able: np.ndarray | bool = True,
    ) -> None:
        """Hold `error` over its budget for `flush`; a budget of 0 asks for exactly 0."""
        budget = np.broadcast_to(budget, error.shape)
        exact = budget == 0
        ratio = np.where(exact, np.where(error == 0, 0.0, np.inf), error / np.where(exact, 1.0, budget))
        could_fail = np.asarray(able & (budget < (np.inf if scale is None else scale)))
        self.held.append((ratio, could_fail, where))

    def flush(self) -> None:
        """Give the tally what was judged since the last time, at once: there are many small arrays."""
        if not self.held:
            return
        ratios, able, names = zip(*self.held, strict=True)
        self.held.clear()
        ends = np.cumsum([ratio.size for ratio in ratios])

        def where(index: tuple[int, ...]) -> str:
            law = int(np.searchsorted(ends, index[0], side="right"))
            shape = ratios[law].shape
            example = int(np.unravel_index(index[0] - ends[law] + ratios[law].size, shape)[0]) if shape else 0
            return f"{names[law]}, {self.name}, example {example}"

        value, could_fail = (torch.from_numpy(np.concatenate([x.ravel() for x in part])) for part in (ratios, able))
        self.tally.add(value, 1.0, where, could_fail=could_fail)


Law = Callable[[Any, np.random.Generator, Bench], None]


def judge_laws(laws: Sequence[Law], library: Any, seed: int, tally: Tally) -> None:
    """Each law on the library in float32 and float64, with its own draws from `seed`; a refusal is a failure.

    Every input is a valid one, and a result is looked at before it is handed on: nothing may refuse it.
    """
    for dtype in (torch.float32, torch.float64):
        bench = Bench(tally, dtype)
        for law in laws:
            name = getattr(law, "__name__", "law").strip("_")
            try:
                law(library, np.random.default_rng(seed), bench)
            except (ValueError, RuntimeError) as error:
                tally.fail(f"{name}, {bench.name}", f"{name}: {error}"[:200])
        bench.flush()
