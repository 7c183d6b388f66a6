"""The engine that samples: many pairs at little cost, and batches of every size and layout.

A grid of a query ends by b key ends that vary about one place is a · b pairs for the price of a + b decoded ones: most
pairs come from there. `screen` compares their values with a cheap float64 formula, and the checks judge what it finds
suspicious; it decides nothing. Batches of odd sizes, around powers of two and beyond, are screened in the same way; and
at every size up to EVERY the first pairs of one batch are called by themselves: what one size alone gets wrong shows.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from iga._typing import Tensor
from iga.search import pairs as genes
from iga.search.pair_space import PairSpace
from iga.search.pairs import Pairs
from iga.testing.judges.overlap import condition, overlap_reference
from iga.testing.overlap import budgets

__all__ = [
    "ENDS",
    "EVERY",
    "GRIDS",
    "SIZES",
    "Suspects",
    "by_pivots",
    "first",
    "grid",
    "odd_gradients",
    "odd_sizes",
    "picked",
    "repeated",
    "rests_in_turn",
    "screen",
    "sizes_in_turn",
    "slowness",
    "table_in_turn",
]

ENDS = 512  # of a grid, on each side
GRIDS = 3  # of a sampling round
ROUND = 10.0  # seconds that the grids of a round may take; a slow function has smaller ones
TRIAL = 0.3  # seconds in which it is tried how long a call takes; one call at least
SIZES = (
    *(1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 300, 511, 512, 513),
    *(
        1000,
        1023,
        1024,
        1025,
        2047,
        2049,
        4095,
        4096,
        4097,
        8191,
        8193,
        10000,
        16383,
        16385,
        32767,
        32769,
        65535,
        65537,
    ),
    *(100_000, 131_071, 131_073),
    *(239_999, 240_001),  # beside whole blocks of 1000, 5000, 20 000, 384, 480 and their like
    *(262_143, 262_145),
)
FEW, STRIDE = 65, 8  # batches up to so many pairs cost little; the larger ones' number and the stride are coprime
EVERY, A_ROUND = 2048, 64  # all batch sizes up to the one, so many in a round
BESIDE = sorted({k * block + 1 for block in (500, 512, 640, 768) for k in range(1, 25) if EVERY < k * block <= 12_500})
SOME = 4  # of BESIDE in a round: one pair more than whole blocks of such sizes and of their multiples
WHOLE = (32_768, 81_920)  # whole blocks of powers of two, of 5, 640 and 1280 …, in turn
RESTS, CLOSE = 8, 8  # sizes of a round beside them: rests up to CLOSE on both sides first, then any within ± 512
PIECE, CLEAR = 700, 2.0**-6  # pairs, one of them beside no usual block; share of a gradient's largest entry
_CORES = (2, 1, 1, 2, 1, 1)


@dataclass(frozen=True, eq=False)
class Suspects:
    """The worst of a batch: places [m] in it, flattened, and shares of their budgets [m], both from the worst on; how
    many pairs were looked at."""

    index: Tensor
    share: Tensor
    examples: int


def slowness(function: Callable[..., Any], space: PairSpace, dtype: torch.dtype, alive: Callable[[], None]) -> int:
    """How often the ends of a grid are halved so that the grids of a round take a few seconds."""
    pairs = space.decode(space.draw(1024, torch.Generator().manual_seed(0)), dtype)
    cost, last = math.inf, time.perf_counter() + TRIAL
    try:
        # the first may load what it needs, others may wait for a busy machine: the fastest says what it costs
        while (began := time.perf_counter()) < last:
            with torch.no_grad():
                function(*(x.clone() for x in pairs))
            cost = min(cost, (time.perf_counter() - began) / 1024)
            alive()
    except Exception:  # the checks meet it too
        return 0
    halvings = 0
    while halvings < 5 and GRIDS * (ENDS >> halvings) ** 2 * cost > ROUND:
        halvings += 1
    return halvings


def grid(space: PairSpace, generator: torch.Generator, dtype: torch.dtype, ends: int = ENDS) -> Pairs:
    """`ends` queries [ends, 1] by `ends` keys [ends] about one place: moved by decades from one base, and turned by
    decades in half of the grids, by any angle in the others."""
    q, k = (space.draw(ends, generator, 0.15) for _ in range(2))
    if float(torch.rand((), generator=generator)) < 0.5:
        for ends_of in (q, k):
            angle = math.pi * torch.rand(len(ends_of), 1, generator=generator, dtype=torch.float64)
            ends_of[:, genes._ANGLE] = angle.clamp(min=1e-8).log10()
    k[:, genes._FRAME] = q[:, genes._FRAME] = q[:1, genes._FRAME].clone()
    k[:, genes._MEAN] = q[:, genes._MEAN] = q[:1, genes._MEAN].clone()
    first, second = space.decode(q, dtype), space.decode(k, dtype)
    queries = (first[3], first[1], first[2])
    return tuple(x[:, None] for x in queries) + (second[3], second[1], second[5])  # pyright: ignore[reportReturnType]


def screen(function: Callable[..., Any], given: Pairs, dtype: torch.dtype, *, most: int = 256) -> Suspects:
    """The `most` pairs whose errors are the largest shares of their budgets; what is not finite is infinitely wrong.
    `given` may broadcast; in float64 the judge's QR stands for the formula."""
    with torch.no_grad():
        values = function(*(x.clone() for x in given))  # it may change what it is given
        reference = by_pivots(*given) if dtype == torch.float32 else overlap_reference(*given)
        allowed = budgets.value_budgets(*reference, condition(given[2], given[5]), dtype)
        share = torch.zeros((), dtype=torch.float64)
        for value, right, name in zip(values, reference, ("dist_sq", "log_det"), strict=True):
            part = (value.double() - right).abs() / allowed[name].clamp(min=1e-300)
            part = torch.where(value.isfinite(), part, torch.inf)
            share = torch.maximum(share, torch.where(allowed[name].isinf() & value.isfinite(), 0.0, part))
    flat = share.reshape(-1)
    if flat.numel() == 0:
        return Suspects(torch.empty(0, dtype=torch.long), flat, 0)
    worst, index = flat.nan_to_num(nan=torch.inf).topk(min(most, flat.numel()))
    return Suspects(index, worst, flat.numel())


def repeated(space: PairSpace, generator: torch.Generator, size: int, dtype: torch.dtype) -> Pairs:
    """A batch of that size at little cost: some hundred genomes over and over, in another order."""
    base = space.draw(min(size, 1024), generator, 0.5)
    if size > len(base):
        base = base[torch.randint(0, len(base), (size,), generator=generator)]
    return space.decode(base, dtype)


def first(pairs: Pairs, count: int) -> Pairs:
    """The first so many pairs of a list."""
    return tuple(x[:count] for x in pairs)  # pyright: ignore[reportReturnType]


def table_in_turn(turn: int, halvings: int) -> list[int]:
    """Four small sizes of the table in a round and two large ones, in strides, so that very large ones come early;
    none that is too large for a slow function."""
    small, large = ([n for n in SIZES if (n <= FEW) == few] for few in (True, False))
    sizes = [small[(4 * turn + k) % len(small)] for k in range(4)]
    sizes += [large[(2 * turn + k) * STRIDE % len(large)] for k in range(2)]
    return [n for n in sizes if n <= SIZES[-1] >> 2 * halvings]


def sizes_in_turn(turn: int, seed: int, halvings: int) -> list[int]:
    """The sizes of a round, in an order by the seed: small ones, others in each of EVERY // A_ROUND rounds, and some of
    those BESIDE blocks, all of them in half as many; fewer and smaller ones for a slow function."""
    most, count = EVERY >> halvings, A_ROUND >> halvings
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(most, generator=generator).tolist()
    beside = torch.randperm(len(BESIDE), generator=generator).tolist()
    large = [BESIDE[beside[(turn * SOME + k) % len(BESIDE)]] for k in range(SOME)]
    small = [order[(turn * count + k) % most] + 1 for k in range(count)]
    return small + [n for n in large if n <= BESIDE[-1] >> 2 * halvings]


def rests_in_turn(turn: int, seed: int, halvings: int) -> list[int]:
    """Sizes beside many whole blocks, so that a tail of any length that such a batch leaves out has its turn; fewer for
    a slow function, and none for one that is slower still."""
    far = torch.randperm(1024, generator=torch.Generator().manual_seed(seed)).tolist()
    order = [sign * k for k in range(1, CLOSE + 1) for sign in (1, -1)] + [k - 511 for k in far]
    count = RESTS >> 2 * halvings
    of, first = WHOLE[turn % len(WHOLE)], turn // len(WHOLE) * count
    return [of + order[(first + k) % len(order)] for k in range(count)]


def odd_sizes(
    function: Callable[..., Any], given: Pairs, sizes: Sequence[int], dtype: torch.dtype, alive: Callable[[], None]
) -> list[int]:
    """The n of `sizes` at which the first n pairs of the list `given` get values, by themselves, that two evaluations
    of them cannot differ by; all that are given, where the function raises there. alive() is called between calls."""
    found: list[int] = []
    with torch.no_grad():
        try:
            whole = function(*(x.clone() for x in given))
        except Exception:  # whoever asks meets it again
            return [len(given[0])]
        allowed = budgets.value_budgets(*overlap_reference(*given), condition(given[2], given[5]), dtype)
        for n in sizes:
            alive()
            try:
                parts = function(*(x[:n].clone() for x in given))
                same = all(
                    bool(((part - value[:n]).abs() <= 2 * allowed[name][:n]).all())
                    for part, value, name in zip(parts, whole, ("dist_sq", "log_det"), strict=True)
                )
            except Exception:  # whoever asks meets it again
                same = False
            if not same:
                found.append(n)
    return found


def odd_gradients(
    function: Callable[..., Any], given: Pairs, sizes: Sequence[int], alive: Callable[[], None]
) -> list[int]:
    """The n of `sizes` at which the gradients of the first n pairs of the list `given` are clearly others than in
    pieces of PIECE pairs; none of a function that has no gradient. What is clear is for a check to say."""

    def gradients(pairs: Pairs) -> list[Tensor]:
        alive()
        leaves = [x.detach().clone().requires_grad_(True) for x in pairs]
        with torch.enable_grad():
            dist_sq, log_det = function(*leaves)
            total = dist_sq.log1p().sum() + log_det.sum()
        found = torch.autograd.grad(total, leaves, allow_unused=True)
        return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]

    try:
        pieces = [gradients(tuple(x[k : k + PIECE] for x in given)) for k in range(0, max(sizes), PIECE)]  # pyright: ignore[reportArgumentType]
    except Exception:  # it has no gradient, or none of a usual batch: the checks meet it too
        return []
    expected = [torch.cat(parts) for parts in zip(*pieces, strict=True)]
    found: list[int] = []
    for n in sizes:
        try:
            parts = gradients(tuple(x[:n] for x in given))  # pyright: ignore[reportArgumentType]
            rows = [(part.flatten(1), right[:n].flatten(1)) for part, right in zip(parts, expected, strict=True)]
            near = [(a - b).abs().amax(1) <= CLEAR * b.abs().amax(1) for a, b in rows]  # of no number: not
            clear = any(bool((~x & b.isfinite().all(1)).any()) for x, (_, b) in zip(near, rows, strict=True))
        except Exception:  # at this size alone: the check that is asked meets it again
            clear = True
        if clear:
            found.append(n)
    return found


def least_raising(function: Callable[..., Any], given: Pairs, alive: Callable[[], None]) -> Pairs:
    """The fewest of the first pairs of a list at which the function raises, as halving finds them."""
    right, wrong = 0, len(given[0])
    with torch.no_grad():
        while wrong - right > 1:
            alive()
            middle = (right + wrong) // 2
            try:
                function(*(x[:middle].clone() for x in given))
                right = middle
            except Exception:  # that it raises is what is asked
                wrong = middle
    return tuple(x[:wrong] for x in given)  # pyright: ignore[reportReturnType] - six of them


def picked(given: Pairs, index: Tensor) -> Pairs:
    """The pairs at these places of the flattened batch, [m]."""
    batch = torch.broadcast_shapes(*(x.shape[: x.ndim - c] for x, c in zip(given, _CORES, strict=True)))
    places = torch.unravel_index(index, batch)
    return tuple(  # pyright: ignore[reportReturnType] - six of them
        x.expand(*batch, *x.shape[x.ndim - c :])[places] for x, c in zip(given, _CORES, strict=True)
    )


def by_pivots(
    q_rot: Tensor, q_mean: Tensor, q_sigma: Tensor, k_rot: Tensor, k_mean: Tensor, k_sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """(dist_sq, log_det) [...] in float64 by Σ = L D Lᵀ: off by some κ² 2⁻⁵³, which is enough to see float32, at a
    quarter of the judge's price."""
    parts = []
    for rot, sigma in ((q_rot.double(), q_sigma.double()), (k_rot.double(), k_sigma.double())):
        rows = (rot * sigma[..., None, :]).unbind(-2)
        parts.append([(rows[i] * rows[j]).sum(-1) for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))])
    a, b, c, d, e, f = (x + y for x, y in zip(*parts, strict=True))
    x, y, z = (q_mean.double() - k_mean.double()).unbind(-1)
    l21, l31 = b / a, c / a
    second, below = d - l21 * b, e - l21 * c
    l32 = below / second
    third = f - l31 * c - l32 * below
    y = y - l21 * x
    z = z - l31 * x - l32 * y
    return x.square() / a + y.square() / second + z.square() / third, a.log() + second.log() + third.log()
