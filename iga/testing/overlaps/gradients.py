"""The derivatives of an overlap: their values, that they are finite, that they keep their bounds, and the second ones.

`gradient_values`      every first derivative against autograd through the float64 QR
`gradient_finiteness`  finite on every degenerate pair, and 0 where the means coincide
`gradient_bounds`      |∂dist_sq/∂δ| ≤ |δ|/σ_min², Σ|∂dist_sq/∂log σ| ≤ 2 dist_sq, 0 ≤ ∂log_det/∂log σ ≤ 2 with sum 6,
                       the torque within κ dist_sq/√2 (docs/theory.md, 9.1): where the values are beyond float32
`second_derivatives`   gradgradcheck on single pairs in float64
"""

import torch

from iga import bounds
from iga._typing import Tensor
from iga.rotation import exp, multiply
from iga.testing import oracle
from iga.testing.overlaps import budgets
from iga.testing.overlaps.accuracy import label_of, name_of
from iga.testing.overlaps.derivatives import NAMES, derivatives
from iga.testing.overlaps.inputs import Inputs
from iga.testing.overlaps.subject import OverlapSubject, Pair
from iga.testing.tally import Tally
from iga.testing.targets import one_line

__all__ = ["gradient_bounds", "gradient_finiteness", "gradient_values", "second_derivatives"]

MODERATE = 10.0  # κ up to which a wrong per cent shows in float32
SINGLE = 2  # pairs of the second derivatives


def gradient_values(function: OverlapSubject, inputs: Inputs, seed: int, tally: Tally) -> None:
    """Each derivative over its budget: κ up to 10 in both dtypes, and any κ in float64."""
    reference = OverlapSubject("reference", oracle.overlap_reference)
    for dtype in function.dtypes:
        batches = [("moderate", inputs.few(dtype, seed, spread=MODERATE))]
        if dtype == torch.float64:
            batches.append(("degenerate", inputs.few(dtype, seed)))
        for label, pair in batches:
            _, _, found = derivatives(function, pair)
            double: Pair = tuple(x.double() for x in pair)  # pyright: ignore[reportAssignmentType] - six of them
            dist_sq, _, expected = derivatives(reference, double)
            kappa, smallest = oracle.condition(pair[2], pair[5]), _smallest(pair)
            allowed = budgets.gradient_budgets(dist_sq, kappa, smallest, dtype)
            for name in NAMES:
                error = (found[name] - expected[name]).norm(dim=-1)
                size, limit = expected[name].norm(dim=-1), allowed[name]
                ratio = budgets.share(error, limit)
                where = label_of(pair, f"{label}, {name_of(dtype)}: d {name}")
                tally.add(ratio, 1.0, where, could_fail=(limit <= 0.5 * size) | (limit == 0))


def gradient_finiteness(function: OverlapSubject, inputs: Inputs, seed: int, tally: Tally) -> None:
    """Counts derivatives that are not finite; with equal means those of dist_sq have to be 0."""
    for dtype in function.dtypes:
        pair = inputs.few(dtype, seed)
        together: Pair = (*pair[:4], pair[1].clone(), pair[5])
        shared: Pair = (*pair[:3], pair[0].clone(), pair[4], pair[2].clone())
        itself: Pair = (*pair[:3], *(x.clone() for x in pair[:3]))  # pyright: ignore[reportAssignmentType]
        batches = {"degenerate": pair, "equal means": together, "equal frames": shared, "a Gaussian and itself": itself}
        for label, batch in batches.items():
            _, _, found = derivatives(function, batch)
            if label == "degenerate" and not bool((found["dist_sq by mean"] != 0).any()):
                tally.void("no mean leads to dist_sq")
            for name in NAMES:
                where = label_of(batch, f"{label}, {name_of(dtype)}: d {name}")
                lost = (~found[name].isfinite()).any(dim=-1).double()
                reached = bool((found[name] != 0).any()) or name == "log_det by mean"
                tally.add(lost, 0.0, where, could_fail=reached or label in ("equal means", "a Gaussian and itself"))
                if name.startswith("dist_sq") and torch.equal(batch[1], batch[4]):
                    tally.add(found[name].abs().amax(dim=-1), 0.0, where)


def gradient_bounds(function: OverlapSubject, inputs: Inputs, seed: int, tally: Tally) -> None:
    """Sizes of derivatives over what theory allows them, rounding included, on pairs of any κ."""
    for dtype in function.dtypes:
        pair = inputs.few(dtype, seed, share=4)
        _, _, found = derivatives(function, pair)
        double: Pair = tuple(x.double() for x in pair)  # pyright: ignore[reportAssignmentType] - six of them
        dist_sq, log_det = oracle.overlap_reference(*double)
        kappa, smallest = oracle.condition(pair[2], pair[5]), _smallest(pair)
        rounding = budgets.gradient_budgets(dist_sq, kappa, smallest, dtype)
        delta = (double[1] - double[4]).norm(dim=-1)
        by_sigma = found["log_det by log sigma"]
        slack = rounding["log_det by log sigma"]
        sizes = {
            "dist_sq by mean": (
                found["dist_sq by mean"].unflatten(-1, (2, 3)).norm(dim=-1).amax(dim=-1),
                bounds.dist_sq_gradient_bound(delta, smallest),
            ),
            "dist_sq by log sigma": (found["dist_sq by log sigma"].abs().sum(dim=-1), 2 * dist_sq),
            "dist_sq by rotation": (
                found["dist_sq by rotation"].abs().amax(dim=-1),
                bounds.torque_bound(dist_sq, kappa),
            ),
        }
        for name, (size, bound) in sizes.items():
            limit = torch.as_tensor(bound) + 6**0.5 * rounding[name]  # a sum of six within √6 of a norm
            ratio = budgets.share(size, limit)
            where = label_of(pair, f"{name_of(dtype)}: d {name}")
            tally.add(ratio, 1.0, where, could_fail=limit.isfinite())
        where = label_of(pair, f"{name_of(dtype)}: d log_det by log sigma")
        able = slack <= 1.0
        tally.add(by_sigma.amax(dim=-1), 2 + slack, where, could_fail=able)
        tally.add(by_sigma.amin(dim=-1), -slack, where, lower=True, could_fail=able)
        tally.add((by_sigma.sum(dim=-1) - 6).abs(), 6**0.5 * slack, where, could_fail=able)


def second_derivatives(function: OverlapSubject, inputs: Inputs, seed: int, tally: Tally) -> None:
    """torch.autograd.gradgradcheck, float64, by means, log scales and turns of both frames; and that there are any."""
    pairs = inputs.few(torch.float64, seed, spread=MODERATE)
    still = torch.zeros(3, dtype=torch.float64)
    # unit lengths, so that gradgradcheck's own step and tolerance (1e-6, 1e-4) fit the function
    for k in range(SINGLE):
        q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = (x[k].double() for x in pairs)
        unit = float(torch.minimum(q_sigma.amin(), k_sigma.amin()))
        apart = torch.nn.functional.normalize(q_mean - k_mean, dim=-1)
        where = label_of(pairs, "float64")((k,))

        def of(x: Tensor) -> Tensor:
            delta, q_log, k_log, q_turn, k_turn = x.split(3)
            turned = multiply(q_rot, exp(q_turn)), multiply(k_rot, exp(k_turn))  # noqa: B023 - called at once
            dist_sq, log_det = function(turned[0], unit * delta, q_log.exp(), turned[1], unit * still, k_log.exp())  # noqa: B023
            return dist_sq.log1p() + log_det

        x = torch.cat([apart, q_sigma.log(), k_sigma.log(), still, still]).requires_grad_(True)
        answer = of(x)
        first = torch.autograd.grad(answer, x, allow_unused=True)[0] if answer.requires_grad else None
        if first is None or not bool((first != 0).any()):
            tally.fail(where, "no input leads to the answer")
            continue
        try:
            with torch.random.fork_rng(devices=[]):  # it draws its direction from the global generator
                torch.manual_seed(seed + k)
                torch.autograd.gradgradcheck(of, x)
            agrees = 0.0
        except RuntimeError as error:  # GradcheckError is one
            agrees = 1.0
            tally.note(one_line(error))
        tally.add(agrees, 0.0, where)


def _smallest(pair: Pair) -> Tensor:
    return torch.minimum(pair[2].amin(-1), pair[5].amin(-1)).double()
