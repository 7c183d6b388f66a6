"""The simplest pair of Gaussians on which a predicate still holds: numbers that a person can read.

Order of simplicity, one kind of coordinate a pass: the second mean at the origin; the first frame the identity; the
second a right angle, whole degrees about an axis, whole degrees; equal scales; each scale 1, a power of ten, one digit,
two digits …; each component of the mean 0, ±1, a power of ten, fewer digits. A change is kept if the predicate holds
and the pair is simpler; passes go on until none is.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from iga._typing import Bool, Tensor
from iga.search.pairs import Pairs, _turn, _turn_of
from iga.search.ties import right_angles

__all__ = ["cost_of", "shrink", "smallest_batch"]

Fails = Callable[[Pairs], Bool[Tensor, " n"]]
DIGITS = 6  # more than these are as many as there are
UNREAD = 20.0  # cost of a frame that is given by nine numbers


@dataclass(frozen=True, eq=False)
class _Simple:
    """One pair in float64 (already rounded to its dtype), with what its two frames cost to read."""

    q_rot: Tensor
    q_mean: Tensor
    q_sigma: Tensor
    k_rot: Tensor
    k_mean: Tensor
    k_sigma: Tensor
    frames: tuple[float, float] = (UNREAD, UNREAD)

    @property
    def numbers(self) -> Pairs:
        return self.q_rot, self.q_mean, self.q_sigma, self.k_rot, self.k_mean, self.k_sigma

    @property
    def cost(self) -> float:
        sigma = torch.cat([self.q_sigma, self.k_sigma]).tolist()
        means = torch.cat([self.q_mean, self.k_mean]).tolist()
        different = sum(cost_of(x) for x in set(sigma)) + 0.1 * len(set(sigma))
        return sum(self.frames) + different + sum(cost_of(x) for x in means)


def cost_of(x: float) -> float:
    """How much a number is to read: 0, then 1, then powers of ten, then one more for each significant digit."""
    if x == 0:
        return 0.0
    sign = 0.25 if x < 0 else 0.0
    if abs(x) == 1:
        return 1.0 + sign
    for digits in range(1, DIGITS + 1):
        short = float(f"{abs(x):.{digits - 1}e}")
        if math.isclose(short, abs(x), rel_tol=2e-7):
            power = digits == 1 and f"{short:e}".startswith("1.0")
            return (2.0 if power else 2.5 + digits) + sign + 0.01 * abs(math.log10(short))
    return 3.5 + DIGITS + sign


def shrink(pair: Pairs, fails: Fails, seconds: float = 30.0) -> Pairs:
    """The simplest pair that was found within so many seconds. `pair` is one pair without leading dimensions, on which
    `fails` holds; `fails` is given pairs [n] in the same dtype."""
    dtype, last = pair[0].dtype, time.monotonic() + seconds
    best = _Simple(*(x.detach().double() for x in pair))  # pyright: ignore[reportArgumentType]
    best = _read(best)
    passes: list[Callable[[_Simple], Iterator[_Simple]]] = [_places, _frames, _turns, _scales, _means, _turns]
    moved = True
    while moved and time.monotonic() < last:
        moved = False
        for one in passes:
            while time.monotonic() < last:
                better = _step(best, list(one(best)), fails, dtype)
                if better is None:
                    break
                best, moved = better, True
    return tuple(x.to(dtype) for x in best.numbers)  # pyright: ignore[reportReturnType]


def _step(best: _Simple, changes: list[_Simple], fails: Fails, dtype: torch.dtype) -> _Simple | None:
    """The simplest of the changes on which it still fails, if it is simpler than `best`."""
    rounded = [_Simple(*(x.to(dtype).double() for x in one.numbers), frames=one.frames) for one in changes]  # pyright: ignore[reportArgumentType]
    simpler = sorted((one for one in rounded if one.cost < best.cost - 1e-9), key=lambda one: one.cost)
    if not simpler:
        return None
    batch = tuple(torch.stack(column).to(dtype) for column in zip(*(one.numbers for one in simpler), strict=True))
    for place in fails(batch).nonzero().flatten().tolist():  # pyright: ignore[reportArgumentType]
        alone = tuple(x[place : place + 1] for x in batch)
        if bool(fails(alone).all()):  # pyright: ignore[reportArgumentType]
            return simpler[place]
    return None


def _with(one: _Simple, **numbers: Tensor | tuple[float, float]) -> _Simple:
    return _Simple(**{**vars(one), **numbers})


def _read(one: _Simple) -> _Simple:
    """With what its frames cost as they are."""
    group = right_angles()
    costs = []
    for rot in (one.q_rot, one.k_rot):
        same = (group == rot).all(-1).all(-1)
        costs.append(UNREAD if not bool(same.any()) else 0.0 if bool(same[0]) else 1.0)
    return _with(one, frames=(costs[0], costs[1]))


def _places(one: _Simple) -> Iterator[_Simple]:
    """One mean at the origin."""
    zero = torch.zeros(3, dtype=torch.float64)
    yield _with(one, q_mean=one.q_mean - one.k_mean, k_mean=zero)
    yield _with(one, k_mean=one.k_mean - one.q_mean, q_mean=zero)
    for digits in range(1, 4):
        yield _with(one, q_mean=_digits(one.q_mean, digits), k_mean=_digits(one.k_mean, digits))


def _frames(one: _Simple) -> Iterator[_Simple]:
    """Both frames the identity; one of them: all is seen from it."""
    eye = torch.eye(3, dtype=torch.float64)
    yield _with(one, q_rot=eye, k_rot=eye, frames=(0.0, 0.0))
    for own, other in (("q", "k"), ("k", "q")):
        rot = vars(one)[f"{own}_rot"]
        turned = (rot[:, :, None] * vars(one)[f"{other}_rot"][:, None, :]).sum(0)
        means = {f"{end}_mean": (rot * vars(one)[f"{end}_mean"][:, None]).sum(0) for end in ("q", "k")}
        cost = (0.0, UNREAD - 1) if own == "q" else (UNREAD - 1, 0.0)
        yield _with(one, **{f"{own}_rot": eye, f"{other}_rot": turned}, **means, frames=cost)


def _turns(one: _Simple) -> Iterator[_Simple]:
    """Each frame a right angle, whole degrees about a coordinate axis, or a rotation vector of few digits."""
    for place, name in enumerate(("q_rot", "k_rot")):
        rot = vars(one)[name]

        def put(new: Tensor, cost: float, place: int = place, name: str = name) -> _Simple:
            frames = (cost, one.frames[1]) if place == 0 else (one.frames[0], cost)
            return _with(one, **{name: new}, frames=frames)

        for number, right in enumerate(right_angles()):
            yield put(right, 1.0 if number else 0.0)
        axis, angle = (x[0] for x in _turn_of(rot[None]))
        degrees = math.degrees(float(angle))
        for k in range(3):
            for sign in (1.0, -1.0):
                unit = torch.eye(3, dtype=torch.float64)[k] * sign
                for digits in (1, 2, 3, 4, 5):
                    short = float(f"{degrees:.{digits - 1}e}")
                    yield put(_turn(unit[None], torch.tensor([math.radians(short)]).double())[0], 2.0 + cost_of(short))
        vector = axis * degrees
        for digits in (1, 2, 3, 4):
            short = _digits(vector, digits)
            size = short.norm()
            if size > 0:
                new = _turn(short[None], torch.deg2rad(size)[None])[0]
                yield put(new, 4.0 + sum(cost_of(x) for x in short.tolist()))


def _scales(one: _Simple) -> Iterator[_Simple]:
    """All scales equal, both Gaussians alike, then each scale for itself."""
    sigma = torch.cat([one.q_sigma, one.k_sigma])
    for value in {1.0, *sigma.tolist(), *(_round(x, 1) for x in sigma.tolist())}:
        yield _with(one, q_sigma=torch.full((3,), value).double(), k_sigma=torch.full((3,), value).double())
        yield _with(one, q_sigma=torch.full((3,), value).double())
        yield _with(one, k_sigma=torch.full((3,), value).double())
    yield _with(one, k_sigma=one.q_sigma)
    yield _with(one, q_sigma=one.k_sigma)
    for place, value in enumerate(sigma.tolist()):
        powers = {10.0**e for e in (-2, -1, 0, 1, 2)}
        tens = {10.0 ** math.floor(math.log10(value)), 10.0 ** math.ceil(math.log10(value))}
        for new in powers | tens | _shorter(value) | set(sigma.tolist()):
            changed = torch.where(sigma == value, new, sigma)  # all that are equal move together
            yield _with(one, q_sigma=changed[:3], k_sigma=changed[3:])
            changed = sigma.clone()
            changed[place] = new
            yield _with(one, q_sigma=changed[:3], k_sigma=changed[3:])


def _means(one: _Simple) -> Iterator[_Simple]:
    """Each component of a mean for itself."""
    for name in ("q_mean", "k_mean"):
        mean = vars(one)[name]
        for axis, value in enumerate(mean.tolist()):
            if value == 0:
                continue
            sign = math.copysign(1.0, value)
            tens = {sign * 10.0 ** math.floor(math.log10(abs(value))), sign * 10.0 ** math.ceil(math.log10(abs(value)))}
            for new in {0.0, 1.0, -1.0, abs(value)} | tens | _shorter(value):
                changed = mean.clone()
                changed[axis] = new
                yield _with(one, **{name: changed})


def _round(x: float, digits: int) -> float:
    return float(f"{x:.{digits - 1}e}")


def _shorter(x: float) -> set[float]:
    """x with fewer digits: to the nearest, and the next on either side."""
    result = set()
    for digits in range(1, DIGITS):
        near = _round(x, digits)
        step = 10.0 ** (math.floor(math.log10(abs(x))) - digits + 1)
        result |= {near, _round(near + step, digits), _round(near - step, digits)}
    return {value for value in result if value * x > 0}


def _digits(x: Tensor, digits: int) -> Tensor:
    return torch.tensor([_round(value, digits) for value in x.tolist()], dtype=torch.float64)


def smallest_batch(size: int, fails: Callable[[int], bool], most: int = 200) -> int:
    """The smallest batch, of those that were tried, that fails as one of `size` does: those beside a power of two, and
    as far beside a whole block as `size` is; then one less."""
    tried = 0
    blocks = {k + d for d in (-1, 0, 1) for k in range(1, size) if (size - d) % k == 0}
    smaller = sorted({1, 2, 3, *(2**k + d for k in range(1, 20) for d in (-1, 0, 1)), *blocks} - {0})
    for candidate in (n for n in smaller if n < size):
        tried += 1
        if fails(candidate):
            size = candidate
            break
    while size > 1 and tried < most and fails(size - 1):
        size, tried = size - 1, tried + 1
    return size
