"""The pairs of the golden vectors: ordinary, degenerate, and the worst that a short search finds. nm.

Frames of the pairs made here are integer quaternions, so that each matrix is an exact rotation rounded entry by entry,
whatever the machine (docs/theory.md, 6.1). Pairs are drawn from Python's own generator; those of `degenerate` and
`worst` come from `iga.search.pairs`, the ordinary ones from `iga.structure.synthetic`.
"""

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch

from iga._typing import Tensor
from iga.search.pairs import Domain, decode, degenerate_pairs
from iga.structure.synthetic import synthetic_structures
from iga.testing.overlap.worst_rounding import BANDS, MEASURES, hill_climb, judge, ratio

__all__ = ["DEFAULT_COUNT", "Drawn", "draw"]

DEFAULT_COUNT = 280
SIGMA_MIN, SIGMA_MAX = 0.03, 150.0

Numbers = tuple[list[float], list[float], list[float], list[float], list[float], list[float]]
_Quaternion = tuple[int, int, int, int]


@dataclass(frozen=True)
class Drawn:
    """`numbers` of q_rot (by rows), q_mean, q_sigma, k_rot, k_mean, k_sigma, each exact in `dtype`."""

    kind: str
    dtype: str
    numbers: Numbers


def draw(count: int = DEFAULT_COUNT, seed: int = 0, found: Path | None = None) -> list[Drawn]:
    """About `count` pairs, at least one of each kind; `found`: JSON of `iga.testing.overlap.worst_rounding`, whose
    pairs are added.

    Raises ValueError for a count under 1, or a file that holds no records of pairs.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    searched = _found(found) if found is not None else []
    pairs: list[Drawn] = []
    for kind, (share, make) in _KINDS.items():
        rng = random.Random(f"{seed} {kind}")
        for index in range(max(1, round(share * count))):
            pairs.append(Drawn(kind, "float32", _rounded(make(rng, index))))
    rng = random.Random(f"{seed} float64")
    makers = [make for _, make in _KINDS.values()]
    for index in range(max(1, round(0.2 * count))):
        pairs.append(Drawn("float64", "float64", makers[index % len(makers)](rng, index // len(makers))))
    pairs += _ordinary(max(1, round(0.14 * count)), seed)
    pairs += _genomes("degenerate", degenerate_pairs(max(1, round(0.12 * count)), _generator(seed)))
    pairs += _worst(max(1, round(0.12 * count)), seed)
    return pairs + searched


# --- made by hand ----------------------------------------------------------------------------------------------------


def _needles(rng: random.Random, index: int) -> Numbers:
    long = _between(rng, 1.0, SIGMA_MAX) if index % 2 else SIGMA_MAX
    sigma = [[_short(rng), _short(rng), _short(rng)] for _ in range(2)]
    for row in sigma:
        row[rng.randrange(3)] = long
    return _pair(_frame(rng), _frame(rng), _delta(rng), sigma[0], sigma[1], rng)


def _pancakes(rng: random.Random, index: int) -> Numbers:
    long = _between(rng, 1.0, SIGMA_MAX) if index % 2 else SIGMA_MAX
    sigma = [[long, long * rng.uniform(0.5, 1.0), long] for _ in range(2)]
    for row in sigma:
        row[rng.randrange(3)] = _short(rng)
    return _pair(_frame(rng), _frame(rng), _delta(rng), sigma[0], sigma[1], rng)


def _nearly_shared(rng: random.Random, index: int) -> Numbers:
    """Frames 10⁻⁷ to 0.1 radians apart, often about 1/κ; every second pair of equal σ."""
    sigma = [_between(rng, SIGMA_MIN, SIGMA_MAX) for _ in range(3)]
    other = sigma if index % 2 else [_between(rng, SIGMA_MIN, SIGMA_MAX) for _ in range(3)]
    angle = min(sigma) / max(sigma) if index % 3 == 0 else _between(rng, 1e-7, 0.1)
    frame = _frame(rng)
    return _pair(frame, _turned(frame, angle, rng), _delta(rng), sigma, other, rng)


def _shared(rng: random.Random, index: int) -> Numbers:
    """One frame for both; the identity in every second pair, whose answers are sums of three terms."""
    frame = (1, 0, 0, 0) if index % 2 else _frame(rng)
    sigma = [[_between(rng, SIGMA_MIN, SIGMA_MAX) for _ in range(3)] for _ in range(2)]
    return _pair(frame, frame, _delta(rng), sigma[0], sigma[1], rng)


def _coincident(rng: random.Random, index: int) -> Numbers:
    """Means that are the same numbers: dist_sq and its gradients are exactly 0."""
    sigma = [[_between(rng, SIGMA_MIN, SIGMA_MAX) for _ in range(3)] for _ in range(2)]
    return _pair(_frame(rng), _frame(rng), [0.0] * 3, sigma[0], sigma[1], rng, far=10.0)


def _near(rng: random.Random, index: int) -> Numbers:
    """Means whose difference is 10⁻⁶ to 10⁻² of their size."""
    sigma = [[_between(rng, SIGMA_MIN, 1.0) for _ in range(3)] for _ in range(2)]
    delta = [x * _between(rng, 1e-5, 1e-1) for x in _direction(rng)]
    return _pair(_frame(rng), _frame(rng), delta, sigma[0], sigma[1], rng, far=10.0)


def _far(rng: random.Random, index: int) -> Numbers:
    sigma = [[_between(rng, SIGMA_MIN, 10.0) for _ in range(3)] for _ in range(2)]
    delta = [x * _between(rng, 1e2, 1e4) for x in _direction(rng)]
    return _pair(_frame(rng), _frame(rng), delta, sigma[0], sigma[1], rng, far=1e3)


def _equal(rng: random.Random, index: int) -> Numbers:
    """The same Gaussian twice, in every second pair apart."""
    frame, sigma = _frame(rng), [_between(rng, SIGMA_MIN, SIGMA_MAX) for _ in range(3)]
    return _pair(frame, frame, _delta(rng) if index % 2 else [0.0] * 3, sigma, sigma, rng)


def _ends(rng: random.Random, index: int) -> Numbers:
    """σ at the floor, at the ceiling, or one Gaussian at each; spheres, so that frames do not matter."""
    sizes = ((SIGMA_MIN, SIGMA_MIN), (SIGMA_MAX, SIGMA_MAX), (SIGMA_MIN, SIGMA_MAX))[index % 3]
    return _pair(_frame(rng), _frame(rng), _delta(rng), [sizes[0]] * 3, [sizes[1]] * 3, rng)


def _along(rng: random.Random, index: int) -> Numbers:
    """Equal needles in nearly one frame, δ along or across the long axis."""
    sigma, frame = [SIGMA_MAX, SIGMA_MIN, SIGMA_MIN], _frame(rng)
    axis = _matrix(frame)[index % 2 :: 3]
    delta = [x * _between(rng, 1.0, 100.0) for x in axis]
    return _pair(frame, _turned(frame, _between(rng, 1e-5, 1e-2), rng), delta, sigma, sigma, rng, far=0.0)


_KINDS: dict[str, tuple[float, Callable[[random.Random, int], Numbers]]] = {
    "needles": (0.07, _needles),
    "pancakes": (0.07, _pancakes),
    "nearly shared frames": (0.08, _nearly_shared),
    "shared frames": (0.04, _shared),
    "coincident means": (0.03, _coincident),
    "close means": (0.03, _near),
    "far apart": (0.04, _far),
    "equal Gaussians": (0.03, _equal),
    "floor and ceiling": (0.03, _ends),
    "along the long axis": (0.04, _along),
}


def _pair(
    q_frame: _Quaternion,
    k_frame: _Quaternion,
    delta: list[float],
    q_sigma: list[float],
    k_sigma: list[float],
    rng: random.Random,
    far: float = 1.0,
) -> Numbers:
    k_mean = [rng.gauss(0.0, 1.0) * far for _ in range(3)]
    q_mean = [x + y for x, y in zip(k_mean, delta, strict=True)]
    return _matrix(q_frame), q_mean, list(q_sigma), _matrix(k_frame), k_mean, list(k_sigma)


def _matrix(q: _Quaternion) -> list[float]:
    """The rotation of an integer quaternion (w first), by rows, each entry rounded once."""
    w, x, y, z = q
    n = w * w + x * x + y * y + z * z
    rows = (
        (w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z),
    )
    return [float(Fraction(entry, n)) for row in rows for entry in row]


def _frame(rng: random.Random) -> _Quaternion:
    w, x, y, z = (round(rng.gauss(0.0, 1.0) * 2**20) for _ in range(4))
    return (w or 1, x, y, z)


def _turned(q: _Quaternion, angle: float, rng: random.Random) -> _Quaternion:
    """q followed, in its own axes, by a turn of `angle`."""
    one = 2**50
    x, y, z = (round(one * math.tan(0.5 * angle) * a) for a in _direction(rng))
    a, b, c, d = q
    return (
        a * one - b * x - c * y - d * z,
        a * x + b * one + c * z - d * y,
        a * y - b * z + c * one + d * x,
        a * z + b * y - c * x + d * one,
    )


def _direction(rng: random.Random) -> list[float]:
    x = [rng.gauss(0.0, 1.0) for _ in range(3)]
    return [a / math.hypot(*x) for a in x]


def _delta(rng: random.Random) -> list[float]:
    return [x * _between(rng, 1e-2, 20.0) for x in _direction(rng)]


def _between(rng: random.Random, low: float, high: float) -> float:
    """Uniform in the logarithm."""
    return min(max(low * (high / low) ** rng.random(), low), high)


def _short(rng: random.Random) -> float:
    return SIGMA_MIN if rng.random() < 0.5 else _between(rng, SIGMA_MIN, 0.3)


def _rounded(numbers: Numbers) -> Numbers:
    rows = (torch.tensor(row, dtype=torch.float64).float().double().tolist() for row in numbers)
    return tuple(rows)  # pyright: ignore[reportReturnType] - six of them


# --- drawn elsewhere -------------------------------------------------------------------------------------------------


def _ordinary(count: int, seed: int) -> list[Drawn]:
    """Residues of synthetic proteins: neighbours in the chain, or any two."""
    rng = random.Random(f"{seed} ordinary")
    rigid = synthetic_structures(1, seed=seed, lengths=(120, 120))[0].gaussian
    sigma = rigid.sigma.clamp(min=SIGMA_MIN)
    columns = [x.double().flatten(1).tolist() for x in (rigid.rot, rigid.mean, sigma)]
    pairs = []
    for index in range(count):
        i = rng.randrange(120)
        j = (i + rng.choice((-2, -1, 1, 2, 4))) % 120 if index % 2 else rng.choice([k for k in range(120) if k != i])
        pairs.append(Drawn("ordinary", "float32", tuple(column[k] for k in (i, j) for column in columns)))  # pyright: ignore[reportArgumentType]
    return pairs


def _worst(count: int, seed: int) -> list[Drawn]:
    """The worst of a short climb for each measure and band of κ, a few of each."""
    rows = [(m, band) for m in MEASURES for band in (BANDS if m.grows else ((1.0, math.inf),))]
    each = -(-count // len(rows))
    generator, domain = _generator(seed + 1), Domain()
    sampled = degenerate_pairs(600 * count, generator, domain)
    outcome = judge(decode(sampled, domain), domain)
    pairs: list[Drawn] = []
    for measure, band in rows[:count]:
        inside = (outcome.kappa >= band[0]) & (outcome.kappa < band[1])
        start = sampled[torch.where(inside, ratio(measure, outcome), -math.inf).argsort(descending=True)[:32]]
        climbed = hill_climb(measure, start, 80, generator, domain, band=band)
        share = ratio(measure, judge(decode(climbed, domain), domain))
        pairs += _genomes("worst", climbed[share.argsort(descending=True)[:each]])
    return pairs[:count]


def _genomes(kind: str, genomes: Tensor) -> list[Drawn]:
    columns = [x.double().flatten(1).tolist() for x in decode(genomes)]
    return [Drawn(kind, "float32", row) for row in zip(*columns, strict=True)]


def _found(path: Path) -> list[Drawn]:
    """The pairs of a search's JSON, one a measure and band: those of its last stage."""
    document = json.loads(path.read_text(encoding="utf-8"))
    records = document.get("records") if isinstance(document, dict) else None
    if not records or not all(isinstance(r, dict) and len(r.get("pair", ())) == 6 for r in records):
        raise ValueError(
            f"{path} must be the JSON of python -m iga.testing.overlap.worst_rounding, with pairs in its records"
        )
    latest = {(r["measure"], r["band"]): r["pair"] for r in records}
    return [Drawn("found", document.get("dtype", "float32"), tuple(pair)) for pair in latest.values()]  # pyright: ignore[reportArgumentType]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
