"""`coincident_means` and `score_laws`: what holds of the overlap whatever its numbers are.

score_laws compares the function with itself, on pairs that are exactly aligned (equal frames, frames a right angle
apart, δ along an axis) as well as on degenerate ones: exchange of the two Gaussians; axes relabelled and flipped; a
rigid motion of both; lengths in other units; a larger σ never brings two Gaussians further apart.
"""

import math

import torch

from iga import rotation
from iga._typing import Tensor
from iga.search.ties import right_angles
from iga.testing.check import check
from iga.testing.judges import overlap as oracle
from iga.testing.overlap import budgets, pairs
from iga.testing.overlap.accuracy import label_of, name_of
from iga.testing.overlap.pairs import PairSource
from iga.testing.overlap.subject import OverlapSubject, Pair, require_answers
from iga.testing.tally import Tally

__all__ = ["coincident_means", "score_laws", "variants"]

ANGSTROM = 10.0  # of a nm


@check("overlap", "1")
def coincident_means(function: OverlapSubject, inputs: PairSource, seed: int, tally: Tally) -> None:
    """Equal means: δ is exactly 0, and so is dist_sq, whatever the scales and frames."""
    for dtype in function.dtypes:
        both = pairs.joined(inputs.few(dtype, seed), inputs.aligned(dtype, seed))
        pair = (*both[:4], both[1].clone(), both[5])
        with torch.no_grad():
            require_answers(function.on_copies(*both), tally)
            dist_sq, log_det = function.on_copies(*pair)
        here = label_of(pair, f"{name_of(dtype)}: dist_sq")
        tally.add(dist_sq.abs(), 0.0, here, says=(dist_sq, torch.zeros_like(dist_sq)))
        here = label_of(pair, f"{name_of(dtype)}: log_det not finite")
        lost = ~log_det.isfinite()
        tally.add(lost.double(), 0.0, here, says=(log_det, oracle.overlap_reference(*pair)[1]) if lost.any() else None)


@check("overlap", "of the budget")
def score_laws(function: OverlapSubject, inputs: PairSource, seed: int, tally: Tally) -> None:
    """Differences of two calls over the budgets of both, plus what writing the moved numbers down rounds."""
    for dtype in function.dtypes:
        u = torch.finfo(dtype).eps / 2
        low, high = function.sigma_range
        shrunk = (low, max(high / ANGSTROM, low * 1.5))  # so that the same lengths in Å stay within the claim
        pair = pairs.joined(
            inputs.aligned(dtype, seed, most=shrunk[1]),
            inputs.few(dtype, seed, most=min(shrunk[1], 30 * low), share=20),
        )
        with torch.no_grad():
            answers = function.on_copies(*pair)
            require_answers(answers, tally)
            plain = tuple(x.double() for x in answers)
            kappa = oracle.condition(pair[2], pair[5])
            budget = budgets.value_budgets(plain[0], plain[1], kappa, dtype)
            for law, moved, shift, slip in _transformed(pair, seed, u, high):
                values = tuple(x.double() for x in function.on_copies(*moved))
                # √dist_sq moved by `slip`
                extra = 2 * slip * plain[0].sqrt() + slip.square()
                other = budgets.value_budgets(plain[0] + extra, plain[1] + shift, kappa, dtype)
                for name, value, expected, more in (
                    ("dist_sq", values[0], plain[0], extra),
                    ("log_det", values[1], plain[1] + shift, 0.0),
                ):
                    limit = budget[name] + other[name] + more
                    ratio = budgets.share((value - expected).abs(), limit)
                    able = limit <= 0.5 * expected.abs().clamp(min=1.0 if name == "log_det" else 0.0)
                    where = label_of(pair, f"{law}, {name_of(dtype)}: {name}")
                    tally.add(ratio, 1.0, where, could_fail=able & (expected != 0), says=(value, expected))
            for axis in range(3):
                sigma = pair[2].clone()
                sigma[:, axis] = (2 * sigma[:, axis]).clamp(max=high)
                wider = tuple(x.double() for x in function.on_copies(pair[0], pair[1], sigma, *pair[3:]))
                room = 2 * (2 * budget["dist_sq"])  # κ doubles at most
                over = (wider[0] - plain[0] - room) / plain[0].clamp(min=1e-300)
                where = f"wider along axis {axis}, {name_of(dtype)}"
                able = room <= 0.5 * plain[0]
                says = (wider[0], plain[0])
                tally.add(over, 0.0, label_of(pair, f"{where}: dist_sq grows"), could_fail=able, says=says)
                under = plain[1] - wider[1] - 4 * budget["log_det"]
                says = (wider[1], plain[1])
                tally.add(under, 0.0, label_of(pair, f"{where}: log_det falls"), says=says)


def variants(pair: Pair, seed: int, high: float) -> dict[str, Pair]:
    """The pairs [n] under each law that `score_laws` compares, by its name; σ stays under `high`, nm."""
    found = _transformed(pair, seed, torch.finfo(pair[0].dtype).eps / 2, high)
    return {law: moved for law, moved, _, _ in found}


def _transformed(pair: Pair, seed: int, u: float, high: float) -> list[tuple[str, Pair, float, Tensor]]:
    """(law, the pairs transformed, what log_det gains, by how much √dist_sq may move for the inputs' own rounding)."""
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pair
    n, dtype = len(q_rot), q_rot.dtype
    generator = torch.Generator().manual_seed(seed)
    group = right_angles()
    none = torch.zeros(n, dtype=torch.float64)

    def relabelled(rot: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        chosen = group[torch.randint(0, 24, (n,), generator=generator)].to(dtype)
        # one term of each sum is not zero: exact
        return (rot[:, :, :, None] * chosen[:, None, :, :]).sum(-2), (sigma[:, :, None] * chosen.abs()).sum(-2)

    q_other, k_other = relabelled(q_rot, q_sigma), relabelled(k_rot, k_sigma)
    turn = rotation.random(n, generator=generator, dtype=torch.float64)
    smallest = torch.minimum(q_sigma.amin(-1), k_sigma.amin(-1)).double()
    size = (q_mean.double() - k_mean.double()).norm(dim=-1, keepdim=True)
    shift = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=torch.float64), dim=-1) * size
    means = [rotation.rotate(turn, x.double()) + shift for x in (q_mean, k_mean)]
    rots = [rotation.multiply(turn, x.double()).to(dtype) for x in (q_rot, k_rot)]
    # float32: each mean is rounded once, when it is written down; float64: also by the motion itself, 3√3 + 2 < 8 times
    steps = 1 if dtype == torch.float32 else 8
    reach = sum(x.double().norm(dim=-1) for x in (q_mean, k_mean)) + 2 * shift.norm(dim=-1)
    rounded = steps * u * reach / (2**0.5 * smallest)
    in_angstrom = tuple(x if x.ndim == 3 else (x.double() * ANGSTROM).to(dtype) for x in pair)
    rewritten = u * ANGSTROM * (q_mean.double().norm(dim=-1) + k_mean.double().norm(dim=-1))
    rewritten = rewritten / (2**0.5 * ANGSTROM * smallest)
    largest = torch.maximum(q_sigma.amax(-1), k_sigma.amax(-1)).double()
    doubled = [x if x.ndim == 3 else 2 * x for x in pair]
    laws = [
        ("exchanged", (k_rot, k_mean, k_sigma, q_rot, q_mean, q_sigma), 0.0, none),
        ("axes relabelled", (q_other[0], q_mean, q_other[1], k_other[0], k_mean, k_other[1]), 0.0, none),
        ("moved", (rots[0], means[0].to(dtype), q_sigma, rots[1], means[1].to(dtype), k_sigma), 0.0, rounded),
    ]
    if bool((2 * largest <= high).all()):
        laws.append(("doubled", tuple(doubled), 6 * math.log(2.0), none))
    if bool((ANGSTROM * largest <= high * (1 + 4 * u)).all()):
        laws.append(("in Å", in_angstrom, 6 * math.log(ANGSTROM), rewritten))
    return laws  # pyright: ignore[reportReturnType] - tuples of six
