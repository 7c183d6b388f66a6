"""Checks of an overlap function's derivatives: values, finiteness, bounds, and the second ones.

`gradient_values`      every first derivative against autograd through the float64 QR
`gradient_finiteness`  finite on every degenerate pair, and 0 where the means coincide
`second_derivatives`   gradgradcheck on single pairs in float64; float32 alone against the float64 QR's

What is within its budget of a right derivative is within the bounds of docs/theory.md, 9.1, and that budget: they need
no check of their own. First derivatives are taken in a residue's own coordinates: means, log scales, turns of the
frames. A turn is R → R exp([ω]×): off SO(3) two forms of one function differ, along it they do not (docs/theory.md,
9.3).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from iga._typing import Tensor
from iga.rotation import exp, multiply
from iga.testing.check import SMOOTH, THOROUGH, check
from iga.testing.judges import overlap as oracle
from iga.testing.overlap import budgets
from iga.testing.overlap.accuracy import label_of, name_of
from iga.testing.overlap.pairs import PairSource
from iga.testing.overlap.subject import OverlapSubject, Pair
from iga.testing.tally import Tally
from iga.testing.targets import TargetError, one_line

__all__ = [
    "NAMES",
    "derivatives",
    "gradient_finiteness",
    "gradient_values",
    "second_derivatives",
    "torque",
]

MODERATE = 10.0  # κ up to which a wrong per cent shows in float32
SINGLE = 2  # pairs of the second derivatives
# of the largest second derivative, in float32: 2600 roundings of two passes back, each κ² u at MODERATE
ROUGH = 2.0**-6


@check("overlap", "of the budget", requires=("gradients",))
def gradient_values(function: OverlapSubject, inputs: PairSource, seed: int, tally: Tally) -> None:
    """Each derivative over its budget, which grows with κ: for κ up to 10, where it is tightest, and for any κ.

    Where the budget is infinite nothing is claimed of a derivative but that it is finite, and `gradient_finiteness`
    judges that.
    """
    for dtype in function.dtypes:
        batches = {"moderate": inputs.few(dtype, seed, spread=MODERATE), "degenerate": inputs.few(dtype, seed, share=4)}
        for label, pair in batches.items():
            *values, found = derivatives(function, pair)
            dist_sq, _, expected = _reference(pair)
            agrees = _agree(values, pair, dtype)
            kappa, smallest = oracle.condition(pair[2], pair[5]), _smallest(pair)
            allowed = budgets.gradient_budgets(dist_sq, kappa, smallest, dtype)
            for name in NAMES:
                error = (found[name] - expected[name]).norm(dim=-1)
                size, limit = expected[name].norm(dim=-1), allowed[name]
                keep, able = limit.isfinite(), (limit <= 0.5 * size) | (limit == 0)
                where = label_of(pair, f"{label}, {name_of(dtype)}: d {name}", keep)
                broken = tally.broken
                says = (found[name][keep], expected[name][keep])
                tally.add(budgets.share(error, limit)[keep], 1.0, where, could_fail=able[keep], says=says)
                if tally.broken > broken and agrees:
                    tally.note(f"gradient: {name}; values agree")


@check("overlap", "entries", requires=("gradients",))
def gradient_finiteness(function: OverlapSubject, inputs: PairSource, seed: int, tally: Tally) -> None:
    """Counts derivatives that are not finite; with equal means those of dist_sq have to be 0."""
    for dtype in function.dtypes:
        pair = inputs.few(dtype, seed)
        together: Pair = (*pair[:4], pair[1].clone(), pair[5])
        shared: Pair = (*pair[:3], pair[0].clone(), pair[4], pair[2].clone())
        itself: Pair = (*pair[:3], *(x.clone() for x in pair[:3]))  # pyright: ignore[reportAssignmentType]
        batches = {"degenerate": pair, "equal means": together, "equal frames": shared, "a Gaussian and itself": itself}
        for label, batch in batches.items():
            *values, found = derivatives(function, batch)
            agrees = _agree(values, batch, dtype)
            if label == "degenerate" and not bool((found["dist_sq by mean"] != 0).any()):
                tally.void("no mean leads to dist_sq")
            for name in NAMES:
                where = label_of(batch, f"{label}, {name_of(dtype)}: d {name}")
                lost = (~found[name].isfinite()).any(dim=-1).double()
                if bool(lost.any()) and agrees:
                    tally.note(f"gradient: {name} is not finite; values agree")
                reached = bool((found[name] != 0).any()) or name == "log_det by mean"
                says = (found[name], _reference(batch)[2][name]) if bool(lost.any()) else None
                able = reached or label in ("equal means", "a Gaussian and itself")
                tally.add(lost, 0.0, where, could_fail=able, says=says)
                if name.startswith("dist_sq") and torch.equal(batch[1], batch[4]):
                    says = (found[name], torch.zeros_like(found[name]))
                    tally.add(found[name].abs().amax(dim=-1), 0.0, where, says=says)


@check(
    "overlap",
    "failures",
    seen_faults=SMOOTH,
    every=4,
    requires=("gradients", "double_backward"),
)
def second_derivatives(function: OverlapSubject, inputs: PairSource, seed: int, tally: Tally) -> None:
    """torch.autograd.gradgradcheck, float64, by means, log scales and turns of both frames; and that there are any.

    A function of float32 alone has no difference quotients that say much: each entry is compared with the QR's.
    """
    dtype = torch.float64 if torch.float64 in function.dtypes else torch.float32
    pairs = inputs.few(dtype, seed, spread=MODERATE)
    # unit lengths, so that gradgradcheck's own step and tolerance (1e-6, 1e-4) fit the function
    count = SINGLE if inputs.profile in THOROUGH else 1
    for k in range(count + 1):
        q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = (x[k] for x in pairs)
        unit = float(torch.minimum(q_sigma.amin(), k_sigma.amin()))
        # equal means last: the first derivative of dist_sq is 0 there, and the second is not
        apart = torch.nn.functional.normalize(q_mean - k_mean, dim=-1) * (k < count)
        where = label_of(pairs, f"{'' if k < count else 'equal means, '}{name_of(dtype)}")((k,))

        def of(x: Tensor, function: Any = function) -> Tensor:
            delta, q_log, k_log, q_turn, k_turn = x.split(3)
            turned = (multiply(rot.to(x), exp(turn)) for rot, turn in ((q_rot, q_turn), (k_rot, k_turn)))  # noqa: B023 - called at once
            q_turned, k_turned = turned
            dist_sq, log_det = function(q_turned, unit * delta, q_log.exp(), k_turned, 0.0 * delta, k_log.exp())  # noqa: B023
            return dist_sq.log1p() + log_det

        x = torch.cat([apart, q_sigma.log(), k_sigma.log(), torch.zeros(6, dtype=dtype)]).requires_grad_(True)
        answer = of(x)
        first = torch.autograd.grad(answer, x, allow_unused=True)[0] if answer.requires_grad else None
        if first is None or not bool((first != 0).any()):
            tally.fail(where, "no input leads to the answer")
            continue
        if dtype == torch.float32:
            _against_the_reference(of, x, where, tally)
            continue
        try:
            with torch.random.fork_rng(devices=[]):  # it draws its direction from the global generator
                torch.manual_seed(seed + k)
                torch.autograd.gradgradcheck(of, x)
            agrees = 0.0
            says = None
        except RuntimeError as error:  # GradcheckError is one
            agrees = 1.0
            tally.note(one_line(error))
            says = _entry_that_differs(of, x)
        tally.add(agrees, 0.0, where, says=says)


def _against_the_reference(of: Callable[..., Tensor], x: Tensor, where: str, tally: Tally) -> None:
    """All second derivatives of of(x), in float32, and those of the float64 QR."""
    try:
        found: Any = torch.autograd.functional.hessian(of, x.detach())
    except RuntimeError as error:
        tally.fail(where, f"second derivative: {one_line(error)}")
        return
    expected: Any = torch.autograd.functional.hessian(lambda y: of(y, oracle.overlap_reference), x.detach().double())
    error = (found.double() - expected).abs().flatten()
    worst = error.nan_to_num(nan=torch.inf).argmax()
    limit = ROUGH * expected.abs().amax()
    says = (found.flatten()[worst], expected.flatten()[worst])
    tally.add((error <= limit).logical_not().any().double(), 0.0, where, says=says)


def _entry_that_differs(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Of the second derivatives, the one that is furthest from the difference quotient of the first ones, and that."""
    step = 1e-6  # gradgradcheck's own
    try:
        found: Any = torch.autograd.functional.hessian(function, x.detach())
        right = torch.zeros_like(found)
        for k in range(len(x)):
            moved = (x.detach() + sign * step * (torch.arange(len(x)) == k) for sign in (1.0, -1.0))
            ends: list[Any] = [torch.autograd.functional.jacobian(function, one) for one in moved]
            right[k] = (ends[0] - ends[1]) / (2 * step)
    except RuntimeError:  # it has none at all, as the note says
        return None
    worst = (found - right).abs().nan_to_num(nan=torch.inf).argmax()
    return found.flatten()[worst], right.flatten()[worst]


def _agree(values: Sequence[Tensor], pair: Pair, dtype: torch.dtype) -> bool:
    """Whether a call's values are right where its gradients are asked for: what is off is then the gradient alone."""
    expected = oracle.overlap_reference(*(x.double() for x in pair))
    allowed = budgets.value_budgets(*expected, oracle.condition(pair[2], pair[5]), dtype)
    limits = (allowed["dist_sq"], allowed["log_det"])
    errors = [(value - right).abs() for value, right in zip(values, expected, strict=True)]
    return all(bool((error <= limit)[expected[0] > 0].all()) for error, limit in zip(errors, limits, strict=True))


def _reference(pair: Pair) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The derivatives by autograd through the float64 QR."""
    double: Pair = tuple(x.double() for x in pair)  # pyright: ignore[reportAssignmentType] - six of them
    return derivatives(OverlapSubject("reference", oracle.overlap_reference), double)


def _smallest(pair: Pair) -> Tensor:
    return torch.minimum(pair[2].amin(-1), pair[5].amin(-1)).double()


NAMES = tuple(f"{value} by {by}" for value in ("dist_sq", "log_det") for by in ("mean", "log sigma", "rotation"))


def derivatives(function: OverlapSubject, pair: Pair) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """(dist_sq [n], log_det [n], {name of NAMES: [n, 3 or 6]}) of n pairs, in float64 as the function gave them.

    Both ends' derivatives stand side by side, query first. A result that no input leads to has derivative 0. What
    claims to be led back only once is called for each result. Raises TargetError where autograd does.
    """
    leaves = [x.detach().clone().requires_grad_(True) for x in pair]
    values = function(*leaves)
    once = "retain_graph" in function.claims.lacking
    result: dict[str, Tensor] = {}
    for k, name in enumerate(("dist_sq", "log_det")):
        value = function(*leaves)[k] if once and k else values[k]
        if value.requires_grad:
            try:
                grads = torch.autograd.grad(value.sum(), leaves, retain_graph=not once, allow_unused=True)
            except RuntimeError as error:
                raise TargetError(f"the gradient of {name} raised {one_line(error)}") from error
        else:
            grads = [None] * len(leaves)
        full = [(torch.zeros_like(x) if g is None else g).double() for g, x in zip(grads, leaves, strict=True)]
        rots, sigmas = (leaves[0], leaves[3]), (leaves[2], leaves[5])
        result[f"{name} by mean"] = torch.cat([full[1], full[4]], dim=-1)
        by_sigma = [g * s.detach().double() for g, s in zip((full[2], full[5]), sigmas, strict=True)]
        result[f"{name} by log sigma"] = torch.cat(by_sigma, dim=-1)
        turned = [torque(r.detach().double(), g) for r, g in zip(rots, (full[0], full[3]), strict=True)]
        result[f"{name} by rotation"] = torch.cat(turned, dim=-1)
    return values[0].detach().double(), values[1].detach().double(), result


def torque(rot: Tensor, grad: Tensor) -> Tensor:
    """The derivative by ω: twice the skew part of Rᵀ ∂R, as a vector [..., 3]."""
    m = (rot[..., :, :, None] * grad[..., :, None, :]).sum(-3)
    return torch.stack([m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], dim=-1)
