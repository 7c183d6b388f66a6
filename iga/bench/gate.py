"""The gate before the clock: values and gradients of the case to be timed against float64, on a sample of query rows.

The cotangents are zero outside some rows; an implementation runs the whole case, and the float64 reference needs those
rows only. The reference shares no code with the implementations: Σ is built and inverted by its cross products, which
costs κ²·2⁻⁵³, nothing beside float32. The budget is that of section 13 of docs/theory.md, norm by norm: inputs turned
by random signs of relative size s change a result by s·S; p roundings in a chain of sums allow p·u·(S + |result|).
Rotations are judged along the tangent of SO(3), where their gradient is defined.
"""

import math
from typing import NamedTuple

import torch

from iga import rotation
from iga._typing import Tensor
from iga.bench.peers import IPA_POINT_WEIGHT
from iga.bench.problem import CONFIG, Case, Problem

__all__ = ["Verdict", "Yardstick", "cotangents", "reference", "sampled_rows"]

_PROBES = 3
_STEP = 2.0**-24
_TF32 = 2.0**-11


class Verdict(NamedTuple):
    """The quantity that is nearest to its budget, or furthest over it: largest error, relative to the largest entry."""

    error: float
    budget: float
    where: str

    @property
    def passed(self) -> bool:
        """NaN does not pass."""
        return self.error <= self.budget


def sampled_rows(case: Case, pair_points: int) -> Tensor:
    """Query rows spread over 0 … N − 1, the last one included: as many as `pair_points` allow, at least two."""
    count = max(2, min(case.residues, pair_points // (case.residues * case.heads * case.points)))
    return torch.linspace(0, case.residues - 1, min(count, case.residues)).round().long().unique()


def cotangents(problem: Problem, rows: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Of values and of points: normal in `rows`, zero elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for like in (problem.v, problem.value_points):
        full = torch.zeros(like.shape)
        full[:, :, rows] = torch.randn(full[:, :, rows].shape, generator=generator)
        made.append(full.to(like))
    return made[0], made[1]


class Yardstick:
    """The float64 results of one case and their budgets; `judge` compares what an implementation's `step` returned.

    `tf32`: products of features (q, k, v and weights, never the geometry) may be rounded to 2⁻¹¹.
    """

    def __init__(
        self,
        problem: Problem,
        function: str,
        rows: Tensor,
        cotangent: tuple[Tensor, Tensor] | None,
        *,
        tf32: bool = False,
    ) -> None:
        self._rows = rows.to(problem.q.device)
        self._backward = cotangent is not None
        self._rot = problem.rot.double()
        names = list(problem.named())
        self._names = ["values", "points", *(f"d_{name}" for name in names if self._backward)]
        short = None if cotangent is None else tuple(c[:, :, self._rows].double() for c in cotangent)
        exact = problem.double()

        def evaluate(p: Problem) -> list[Tensor]:
            return _evaluate(p, function, self._rows, short)

        self._exact = self._comparable(evaluate(exact))
        self._changes = [torch.zeros((), dtype=torch.float64, device=self._rows.device) for _ in self._names]
        self._features = list(self._changes)
        for probe in range(_PROBES):
            self._widen(self._changes, evaluate(_shaken(exact, _STEP, probe, set(names))))
            if tf32:
                self._widen(self._features, evaluate(_shaken(exact, _STEP, probe, {"q", "k", "v"})))
        self._tf32 = tf32
        points, heads, n = problem.q_mean.shape[2], problem.q.shape[1], problem.q.shape[2]
        self._chain = problem.q.shape[-1] + 3 * points + 3 * n + heads * points + 64

    def judge(self, found: list[Tensor]) -> Verdict:
        """`found`: outputs, then gradients, of the whole case."""
        sampled = [found[0][:, :, self._rows], found[1][:, :, self._rows], *found[2:]]
        unit = torch.finfo(found[0].dtype).eps / 2
        worst = Verdict(0.0, 0.0, "nothing")
        pairs = zip(self._names, self._comparable(sampled), self._exact, self._changes, self._features, strict=True)
        for name, got, exact, change, of_features in pairs:
            size = float(exact.abs().amax())
            if size == 0.0:
                continue
            budget = self._chain * unit * (float(change) / _STEP + size)
            if self._tf32:
                budget += 4.0 * _TF32 * (float(of_features) / _STEP + size)
            error = float((got.double() - exact).abs().amax()) if bool(got.isfinite().all()) else math.inf
            if worst.where == "nothing" or error / budget > worst.error / worst.budget:
                worst = Verdict(error / size, budget / size, name)
        return worst

    def _widen(self, changes: list[Tensor], moved: list[Tensor]) -> None:
        for index, (value, exact) in enumerate(zip(self._comparable(moved), self._exact, strict=True)):
            changes[index] = torch.maximum(changes[index], (value - exact).abs().amax())

    def _comparable(self, results: list[Tensor]) -> list[Tensor]:
        """float64, and the gradient of the rotations as the skew part of Rᵀ dR."""
        made = [r.double() for r in results]
        if self._backward:
            at = self._names.index("d_rot")
            turned = (self._rot[..., :, :, None] * made[at][..., :, None, :]).sum(-3)
            made[at] = turned - turned.mT
        return made


def reference(p: Problem, function: str, rows: Tensor) -> tuple[Tensor, Tensor]:
    """(values, points) of the query rows `rows`, by formulas written out for the purpose; differentiable."""
    x, y = p.q_mean[:, :, :, rows, None], p.k_mean[:, :, :, None]
    delta = x - y
    weight = torch.log1p(torch.exp(p.geo_scale))[:, None, None]
    scalar = torch.einsum("bhqc,bhkc->bhqk", p.q[:, :, rows], p.k) / p.q.shape[-1] ** 0.5
    points = p.q_mean.shape[2]
    if function == "ipa":
        geo = -0.5 * IPA_POINT_WEIGHT * points**-0.5 * weight * delta.square().sum((2, -1))
        logits = scalar / 3.0**0.5 + geo
    else:
        cov_q = torch.einsum(
            "bnxk,bhpnk,bnyk->bhpnxy", p.rot[:, rows], p.q_sigma[:, :, :, rows].square(), p.rot[:, rows]
        )
        cov_k = torch.einsum("bnxk,bhpnk,bnyk->bhpnxy", p.rot, p.k_sigma.square(), p.rot)
        a, b, c = (cov_q[:, :, :, :, None] + cov_k[:, :, :, None]).unbind(-2)
        cross = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=-2)
        det = (a * cross[..., 0, :]).sum(-1)
        dist_sq = torch.einsum("...x,...xy,...y->...", delta, cross, delta) / det
        score = -0.5 * (CONFIG.dof + 3.0) * torch.log1p(dist_sq / CONFIG.dof) - 0.5 * torch.log(det)
        share = {"sum": 1.0, "rsqrt": points**-0.5, "mean": 1.0 / points}[CONFIG.point_scaling]
        geo = weight * share / CONFIG.temperature * score.sum(2)
        if CONFIG.logit_cap is not None:
            geo = CONFIG.logit_cap * torch.tanh(geo / CONFIG.logit_cap)
        logits = scalar + geo
    weights = torch.exp(logits - logits.amax(-1, keepdim=True))
    weights = weights / weights.sum(-1, keepdim=True)
    world = torch.einsum("bnxy,bhnpy->bhnpx", p.rot, p.value_points) + p.trans[:, None, :, None]
    attended = torch.einsum("bhqk,bhkpx->bhqpx", weights, world) - p.trans[:, None, rows, None]
    return weights @ p.v, torch.einsum("bqxy,bhqpx->bhqpy", p.rot[:, rows], attended)


def _evaluate(p: Problem, function: str, rows: Tensor, cotangent: tuple[Tensor, ...] | None) -> list[Tensor]:
    if cotangent is None:
        with torch.no_grad():
            return list(reference(p, function, rows))
    leaves = p.leaves()
    outputs = reference(leaves, function, rows)
    inputs = list(leaves.named().values())
    found = torch.autograd.grad(outputs, inputs, cotangent, allow_unused=True)
    gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
    return [*(o.detach() for o in outputs), *gradients]


def _shaken(p: Problem, size: float, seed: int, names: set[str]) -> Problem:
    """The inputs `names` with relative errors of `size` and random signs; rotations turned about each axis instead."""
    generator = torch.Generator().manual_seed(seed)

    def signs(like: Tensor) -> Tensor:
        return size * (2.0 * torch.randint(0, 2, like.shape, generator=generator).to(like) - 1.0)

    moved = {name: t * (1.0 + signs(t)) for name, t in p.named().items() if name in names and name != "rot"}
    if "rot" in names:
        moved["rot"] = rotation.multiply(p.rot, rotation.exp(signs(p.trans)))
    return p.replaced(moved)
