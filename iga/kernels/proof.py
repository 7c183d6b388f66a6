"""The proof of an implementation: a small fixed problem, its results against the reference in float64.

The budgets are those of docs/theory.md, 15.4: the reference with every number moved by random signs of relative size s,
rotations turned by s, changes by s S, and an implementation with p roundings along its longest chain of sums errs by at
most p u (S + |result|). Where torch may shorten products of features (`torch.set_float32_matmul_precision`), what they
change is allowed besides. Scores are of the form that is asked for, at the given number of points.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from iga import rotation
from iga._typing import Tensor
from iga.kernels.blocks import Outputs
from iga.kernels.derivatives import attend_by_reference
from iga.kernels.ops import DIFFERENTIABLE, TENSORS, Arguments, computed, gaussian_attention_backward_op
from iga.presets import IGAConfig

__all__ = ["CPU_FORMS", "Form", "disagreement"]

# Odd sizes, so that every last tile is incomplete: B samples, H heads, N residues; channels of q, v, points, z.
BATCH, HEADS, RESIDUES, CHANNELS = 2, 2, 37, (4, 5, 2, 6)
CAP = 20.0
PROBES = 3
NO_FACTORS = ("rot", "mask")  # the others move by a factor
FEATURES = ("q", "k", "v", "points", "bias", "z", "z_weight")
# Of products that may be shortened: bf16 on a CPU, TF32 or bf16 elsewhere.
SHORT = 2.0**-8
OUTPUTS = ("values", "points", "pair", "lse")


class Form(NamedTuple):
    """A score as a kernel is specialised for it; log_det_min = −inf: no clamp."""

    score: str
    dof: float
    log_det_min: float
    points: int


# The CPU kernels' branches: points in pairs, points alone because of ν, and because of the clamp.
CPU_FORMS = (
    Form("student_t", 4.0, -math.inf, 3),
    Form("student_t", 30.0, -math.inf, 2),
    Form("gaussian", 4.0, -5.0, 3),
)


@dataclass(frozen=True, eq=False)
class _Problem:
    """The operator's tensors by name as they are given, and the form."""

    tensors: dict[str, Tensor]
    form: Form

    def double(self) -> "_Problem":
        return _Problem({n: t if t.dtype == torch.bool else t.double() for n, t in self.tensors.items()}, self.form)


Evaluate = Callable[[_Problem], dict[str, Tensor]]


def disagreement(implementation: str, device: torch.device, dtype: torch.dtype, form: Form, *, gradients: bool) -> str:
    """Which result of `implementation` is over its budget, and by how much; "" if none is.

    Outputs and row statistics, or with `gradients` those of every input. Raises what the kernels raise.
    """
    problem = _problem(form, dtype, device)
    right = _gradients(problem.double()) if gradients else _outputs(problem.double())
    flashes = (False,) if gradients or implementation != "fused" else (False, True)
    for flash in flashes:
        asked = _without_z(problem) if flash else problem
        exact = _outputs(asked.double()) if flash else right
        found = _kernel_gradients(asked, implementation) if gradients else _kernel(asked, implementation, flash)
        wrong = _over(asked, exact, found, gradients)
        if wrong:
            return f"{wrong} ({'flash, ' if flash else ''}{form.score}, {form.points} points, {dtype})"
    return ""


def _problem(form: Form, dtype: torch.dtype, device: torch.device) -> _Problem:
    """Rotations uniform, means normal about origins 1 nm apart, σ about 0.3 nm with a needle in every residue's tenth;
    drawn on the CPU in float64 and rounded once."""
    generator = torch.Generator("cpu").manual_seed(20261129)
    batch, heads, n, points = BATCH, HEADS, RESIDUES, form.points
    c, cv, pv, cz = CHANNELS

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")

    trans = normal(batch, n, 3)
    of_points = (batch, heads, points, n, 3)

    def sigma() -> Tensor:
        made = (0.4 * normal(*of_points) - 1.2).exp()
        made[..., ::10, 0] *= 30.0
        return made

    mask = torch.rand(batch, n, generator=generator, device="cpu") > 0.2
    mask[:, -1] = True  # the last key of the last tile
    tensors = {
        "q": normal(batch, heads, n, c),
        "k": normal(batch, heads, n, c),
        "v": normal(batch, heads, n, cv),
        "points": normal(batch, heads, n, 3 * pv),
        "trans": trans,
        "rot": rotation.exp(2.0 * normal(batch, n, 3)),
        "q_mean": trans[:, None, None] + normal(*of_points),
        "q_sigma": sigma(),
        "k_mean": trans[:, None, None] + normal(*of_points),
        "k_sigma": sigma(),
        "mask": mask,
        "geo_weight": 0.3 / points * (0.2 * normal(batch, heads)).exp(),
        "geo_bias": normal(heads),
        "bias": normal(batch, heads, n, n),
        "z": normal(batch, n, n, cz),
        "z_weight": normal(heads, cz) / math.sqrt(cz),
    }
    given = {name: t if name == "mask" else t.to(dtype) for name, t in tensors.items()}
    return _Problem({name: t.contiguous().to(device) for name, t in given.items()}, form)


def _without_z(problem: _Problem) -> _Problem:
    return _Problem({n: t for n, t in problem.tensors.items() if n not in ("z", "z_weight")}, problem.form)


def _reference(problem: _Problem) -> Outputs:
    form = problem.form
    clamp = None if form.log_det_min == -math.inf else form.log_det_min
    config = IGAConfig(score=form.score, dof=form.dof, log_det_min=clamp)  # pyright: ignore[reportArgumentType]
    return attend_by_reference([problem.tensors.get(name) for name in TENSORS], config, CAP)


def _outputs(problem: _Problem) -> dict[str, Tensor]:
    with torch.no_grad():
        return _reference(problem)._asdict()


def _gradients(problem: _Problem) -> dict[str, Tensor]:
    """The gradient of Σ ⟨cotangent, output⟩ by every tensor; a torque for the rotations."""
    leaves = {n: t if n == "mask" else t.detach().requires_grad_() for n, t in problem.tensors.items()}
    out = _reference(_Problem(leaves, problem.form))._asdict()
    loss = sum((out[name] * g).masked_fill(g == 0, 0.0).sum() for name, g in _cotangents(problem, out).items())
    names = [name for name in DIFFERENTIABLE if name in leaves]
    found = torch.autograd.grad(loss, [leaves[n] for n in names], materialize_grads=True)  # pyright: ignore
    return _with_torque(problem, dict(zip(names, found, strict=True)))


def _cotangents(problem: _Problem, out: dict[str, Tensor]) -> dict[str, Tensor]:
    """Eighths, fixed, 0 in masked rows, whose lse is −∞."""
    generator = torch.Generator("cpu").manual_seed(1)
    made = {}
    for name in OUTPUTS:
        like = out[name]
        eighths = torch.randint(-16, 17, like.shape, generator=generator, device="cpu") / 8
        valid = problem.tensors["mask"][:, None].reshape(like.shape[0], 1, -1, *(1,) * (like.ndim - 3))
        made[name] = torch.where(valid, eighths.to(like), 0.0)
    return made


def _with_torque(problem: _Problem, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The derivative by rotations along SO(3), where alone it is defined; in float64."""
    made = {name: t.double() for name, t in found.items()}
    turned = problem.tensors["rot"].double().mT @ made["rot"]
    made["rot"] = turned - turned.mT
    return made


def _arguments(problem: _Problem, implementation: str, statistics: bool) -> Arguments:
    form = problem.form
    options = (form.score, form.dof, form.log_det_min, CAP, implementation, statistics)
    return Arguments._make((*(problem.tensors.get(name) for name in TENSORS), *options))


@torch.no_grad()
def _kernel(problem: _Problem, implementation: str, flash: bool) -> dict[str, Tensor]:
    return Outputs(*computed(_arguments(problem, implementation, True), flash=flash))._asdict()


@torch.no_grad()
def _kernel_gradients(problem: _Problem, implementation: str) -> dict[str, Tensor]:
    given = _arguments(problem, implementation, False)
    out = Outputs(*computed(given, flash=False))
    cotangents = _cotangents(problem, out._asdict())
    ends = (*(cotangents[name] for name in OUTPUTS), out.points, out.lse)
    found = gaussian_attention_backward_op(*ends, *given, True, True, True)
    return _with_torque(problem, dict(zip(DIFFERENTIABLE, found, strict=True)))


def _over(problem: _Problem, exact: dict[str, Tensor], found: dict[str, Tensor], gradients: bool) -> str:
    """The result that is furthest over its budget, in words; "" where each is within."""
    unit = torch.finfo(problem.tensors["rot"].dtype).eps / 2
    step = max(unit, 2.0**-30)  # what float64 can resolve
    evaluate = _gradients if gradients else _outputs
    right = problem.double()
    tensors = frozenset(problem.tensors)
    change = _change(evaluate, right, exact, tensors, step)
    terms = sum(CHANNELS) + (3 + HEADS) * problem.form.points + 3 * RESIDUES + 64
    budgets = {name: terms * unit * (change[name] + _finite(value).abs()) for name, value in exact.items()}
    if torch.get_float32_matmul_precision() != "highest" and unit > 1e-9:
        short = _change(evaluate, right, exact, frozenset(FEATURES), step)
        for name, value in exact.items():
            budgets[name] = budgets[name] + 4.0 * SHORT * (short[name] + _finite(value).abs())
    worst = 1.0, ""
    for name, value in exact.items():
        got = found[name].double()
        share = torch.where(got == value, 0.0, (got - value).abs() / budgets[name]).nan_to_num(nan=math.inf)
        ratio = float(share.amax()) if share.numel() else 0.0
        worst = max(worst, (ratio, name))
    ratio, name = worst
    what = f"the gradient of {name}" if gradients else name
    return f"{what} is off by {ratio:.3g} times what rounding explains" if name else ""


def _change(
    evaluate: Evaluate, problem: _Problem, exact: dict[str, Tensor], names: frozenset[str], step: float
) -> dict[str, Tensor]:
    """S: the largest change of each result's row, per unit, when the named tensors err."""
    most = {name: torch.zeros_like(value) for name, value in exact.items()}
    for probe in range(PROBES):
        moved = evaluate(_shaken(problem, names, step, probe))
        for name, value in exact.items():
            change = _finite(moved[name] - value).abs() / step
            if change.numel():
                change = change.amax(dim=-1, keepdim=True).expand_as(change) if change.ndim else change
            most[name] = torch.maximum(most[name], change)
    return most


def _shaken(problem: _Problem, names: frozenset[str], size: float, seed: int) -> _Problem:
    generator = torch.Generator("cpu").manual_seed(seed)

    def signs(like: Tensor) -> Tensor:
        drawn = torch.randint(0, 2, like.shape, generator=generator, device="cpu")
        return (size * (2.0 * drawn.double() - 1.0)).to(like.device)

    tensors = dict(problem.tensors)
    for name in sorted(names - set(NO_FACTORS)):
        tensors[name] = tensors[name] * (1.0 + signs(tensors[name]))
    if "rot" in names:
        turn = rotation.exp(signs(tensors["trans"]))
        tensors["rot"] = rotation.multiply(tensors["rot"], turn)
    return _Problem(tensors, problem.form)


def _finite(x: Tensor) -> Tensor:
    return torch.where(x.isfinite(), x, 0.0)
