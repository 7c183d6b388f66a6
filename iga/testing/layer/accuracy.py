"""`accuracy`: what the layer computes against a float64 reference that shares no code with it.

On sampled pairs of a trace, all points of each: dist_sq and log_det of the layer's own Gaussians in units of κ·2⁻²⁴
against the proven budget; the means and scales from the raw projections (the floor in both places); G and the logit put
together from them. float32 on every trace, float64 on the focus structures against 50 digits. `judge_trace` serves
`reduced_precision` as well; `content` judges what of the logits is no geometry.
"""

import math
from dataclasses import replace
from typing import cast

import torch
from torch import nn

from iga import bounds
from iga._typing import Tensor
from iga.frame import Frame
from iga.functional import Trace
from iga.presets import IGAConfig
from iga.testing.check import TRACE, check
from iga.testing.contract import Contract
from iga.testing.figures import half_decades
from iga.testing.judges import overlap as oracle
from iga.testing.layer import budgets
from iga.testing.layer.cases import Case
from iga.testing.layer.content import judge_content
from iga.testing.layer.guards import require_own_output
from iga.testing.layer.subject import Observation, Subject, TracedLayer
from iga.testing.tally import Tally

__all__ = ["accuracy", "judge_trace"]

SAMPLED = 512  # pair-points of each trace


def _of_a_trace(seen: Observation, tally: Tally) -> None:
    """Judge one trace in its own dtype against float64, and that forward gives its output."""
    require_own_output(seen, tally)
    judge_trace(seen, tally)
    judge_content(seen, tally)


@check("layer", "of the budget", each_trace=_of_a_trace, degenerate=True, needs=TRACE)
def accuracy(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """float64 frames and features against 50 digits."""
    if torch.float64 not in subject.dtypes:
        return
    for index, case in enumerate(cases):
        points = contract.points[index % len(contract.points)]
        layer = subject.random(points, seed)
        # A float32 matrix is no rotation in float64: the nearest one is.
        rigid = case.rigid.to(dtype=torch.float64)
        rigid = replace(rigid, frame=Frame(oracle.nearest_rotation(rigid.rot), rigid.trans))
        double = replace(case, rigid=rigid, s=case.s.double(), z=case.z.double())
        with torch.no_grad():
            trace = subject.trace(layer.double(), double)
        _against_digits(trace, subject, contract, f"{case.label}, P = {points}, float64", tally)


def judge_trace(seen: Observation, tally: Tally) -> None:
    """A trace's overlaps, Gaussians, G and logits against float64, each over its own budget."""
    trace, contract, label = seen.trace, seen.contract, seen.label
    config, dtype = seen.subject.iga_config, trace.dist_sq.dtype
    u = bounds.unit_roundoff(dtype)
    chosen = _Chosen(trace)
    kappa, off = chosen.pick(budgets.condition(trace, contract)), budgets.drift(trace.rigid)
    gaussians = chosen.gaussians(trace)
    dist_sq, log_det = oracle.overlap_reference(*gaussians)

    where = f"{label}: dist_sq"
    error = _relative(chosen.pick(trace.dist_sq).double(), dist_sq) / (kappa * u)
    limit = bounds.dist_sq_budget(kappa, dtype, drift=off, roundings=bounds.REFERENCE) / (kappa * u)
    tally.add(error, limit, where, could_fail=dist_sq > 0)
    tally.highest("float32: dist_sq within κ·2⁻²⁴ times", error)
    _along_kappa(tally, "dist_sq", dtype, kappa, error, limit)
    error = (chosen.pick(trace.log_det).double() - log_det).abs() / (kappa * u)
    limit = bounds.log_det_budget(kappa, dtype, drift=off, roundings=bounds.REFERENCE) / (kappa * u)
    tally.add(error, limit, f"{label}: log_det")
    tally.highest("log_det within κ·2⁻²⁴ times", error)
    _along_kappa(tally, "log_det", dtype, kappa, error, limit)

    ratio = _scales_and_means(trace, config, contract, u)
    for name, values in ratio.items():
        tally.add(values, 1.0, f"{label}: {name}, of its budget")

    # The score and G, put together again from the reference's numbers.
    score = _reference_score(dist_sq, log_det, config)  # [pairs, points]
    points = score.shape[-1]
    geo = score.sum(dim=-1) * points ** {"sum": 0.0, "rsqrt": -0.5, "mean": -1.0}[config.point_scaling]
    limit = chosen.pick_pairs(budgets.geometry_logit(trace, config, contract))
    error = (chosen.pick_pairs(trace.geo_raw).double() - geo).abs() / limit
    tally.add(error, 1.0, f"{label}: G, of its budget")
    weight = nn.functional.softplus(cast(TracedLayer, seen.layer).geo_scale.detach().double())[chosen.head]
    expected = weight * geo / config.temperature
    limit = weight / config.temperature * limit + 8 * u * expected.abs()
    if config.logit_cap is not None:
        expected = config.logit_cap * torch.tanh(expected / config.logit_cap)
        limit = limit + 8 * u * config.logit_cap
    error = (chosen.pick_pairs(trace.geo_scaled).double() - expected).abs() / limit
    tally.add(error, 1.0, f"{label}: geometry logit, of its budget")

    parts = trace.scalar.double() + trace.geo_scaled.double() + trace.geo_bias.double()[:, None, None]
    size = trace.scalar.double().abs() + trace.geo_scaled.double().abs()
    size = size + trace.geo_bias.double().abs()[:, None, None]
    if trace.pair_bias is not None:
        parts, size = parts + trace.pair_bias.double(), size + trace.pair_bias.double().abs()
    tally.add((trace.logits.double() - parts).abs() / (4 * u * size), 1.0, f"{label}: logits, of their budget")


def _against_digits(trace: Trace, subject: Subject, contract: Contract, label: str, tally: Tally) -> None:
    chosen = _Chosen(trace, subject.profile.digits_pairs)
    dtype = trace.dist_sq.dtype
    if dtype != torch.float64:
        tally.fail(label, f"float64 frames and features gave {dtype} scores")
        return
    u = bounds.unit_roundoff(dtype)
    kappa, off = chosen.pick(budgets.condition(trace, contract)), budgets.drift(trace.rigid)
    dist_sq, log_det = oracle.overlap_digits(*chosen.gaussians(trace), digits=50)
    error = _relative(chosen.pick(trace.dist_sq), dist_sq) / (kappa * u)
    limit = bounds.dist_sq_budget(kappa, dtype, drift=off, roundings=bounds.REFERENCE) / (kappa * u)
    tally.add(error, limit, f"{label}: dist_sq", could_fail=dist_sq > 0)
    tally.highest("float64: dist_sq within κ·2⁻⁵³ times", error)
    _along_kappa(tally, "dist_sq", dtype, kappa, error, limit)
    error = (chosen.pick(trace.log_det) - log_det).abs() / (kappa * u)
    limit = bounds.log_det_budget(kappa, dtype, drift=off, roundings=bounds.REFERENCE) / (kappa * u)
    tally.add(error, limit, f"{label}: log_det")


def _along_kappa(
    tally: Tally, what: str, dtype: torch.dtype, kappa: Tensor, error: Tensor, limit: Tensor | float
) -> None:
    """Errors and budgets, in units of κ·u, as the errors themselves along κ."""
    size = kappa * bounds.unit_roundoff(dtype)
    unit = "relative error" if what == "dist_sq" else "error, ln nm⁶"
    title = f"{what}, {str(dtype).removeprefix('torch.')}"
    tally.figures.curve(title, "κ", unit, half_decades(kappa), error * size, limit * size)


def _relative(value: Tensor, reference: Tensor) -> Tensor:
    """|value − reference| / reference; where the reference is 0 the value has to be, or the error is infinite."""
    error = (value - reference).abs()
    return torch.where(error == 0, 0.0, error / reference)


def _reference_score(dist_sq: Tensor, log_det: Tensor, config: IGAConfig) -> Tensor:
    """The score from its definition, float64."""
    if config.log_det_min is not None:
        log_det = log_det.clamp(min=config.log_det_min)
    if config.score == "gaussian":
        return -(dist_sq + log_det) / 2
    return -((config.dof + 3) * (1 + dist_sq / config.dof).log() + log_det) / 2


def _scales_and_means(trace: Trace, config: IGAConfig, contract: Contract, u: float) -> dict[str, Tensor]:
    """Errors of σ and μ, recomputed in float64 from the raw projections, over their budgets."""
    rigid = trace.rigid
    rot = rigid.rot.double()[..., None, None, :, :, :]
    ratios = {}
    for name, gaussians, raw in (("query", trace.query, trace.raw_query), ("key", trace.key, trace.raw_key)):
        offset, change = (value.detach().double().tanh() for value in raw)
        log_sigma = rigid.log_scale.double()[..., None, None, :, :] + config.log_scale_max * change
        sigma = log_sigma.clamp(max=math.log(config.sigma_max) if config.sigma_max else None, min=-700.0).exp()
        if config.floor == "hard":
            sigma = sigma.clamp(min=config.sigma_min)
        else:
            sigma = (sigma**2 + config.sigma_min**2).sqrt()
        # docs/theory.md, 8.7: exp turns the absolute error of its argument into a relative one
        relative = 8 * u * (1 + log_sigma.abs().clamp(max=100.0) + config.log_scale_max)
        ratios[f"{name} σ"] = (gaussians.sigma.double() - sigma).abs() / (relative * sigma)
        anchor, moved = rigid.local_mean.double()[..., None, None, :, :], config.offset_max * offset * sigma
        local = anchor + moved
        trans = rigid.trans.double()[..., None, None, :, :]
        mean = torch.einsum("...ab,...b->...a", rot, local) + trans
        # the errors of σ and of tanh move the offset; then 8.1, whose √dist_sq is √2 σ_min times a length
        reach = anchor.norm(dim=-1) + moved.norm(dim=-1)
        rounded = bounds.mean_budget(reach, contract.sigma_min, u, trans=reach + trans.norm(dim=-1))
        slack = (relative.amax(dim=-1) + 4 * u) * moved.norm(dim=-1) + rounded * 2**0.5 * contract.sigma_min
        ratios[f"{name} μ"] = (gaussians.mean.double() - mean).norm(dim=-1) / slack.clamp(min=1e-300)
    return ratios


class _Chosen:
    """Seeded pairs (head, query, key) of the first sample, all points of each."""

    def __init__(self, trace: Trace, pair_points: int = SAMPLED) -> None:
        heads, points, queries, keys = trace.score.shape[-4:]
        generator = torch.Generator().manual_seed(points)
        count = max(pair_points // points, 8)
        self.head = torch.randint(0, heads, (count,), generator=generator)
        self.query = torch.randint(0, queries, (count,), generator=generator)
        # a share of neighbours and of the diagonal, where frames are alike
        near = (self.query + torch.randint(-1, 2, (count,), generator=generator)).clamp(0, keys - 1)
        far = torch.randint(0, keys, (count,), generator=generator)
        self.key = torch.where(torch.rand(count, generator=generator) < 0.5, near, far)

    def pick(self, values: Tensor) -> Tensor:
        """[pairs, points] from [1, h, p, q, k]."""
        return values.detach()[0][self.head, :, self.query, self.key]

    def pick_pairs(self, values: Tensor) -> Tensor:
        """[pairs] from [1, h, q, k]."""
        return values.detach()[0][self.head, self.query, self.key]

    def gaussians(self, trace: Trace) -> tuple[Tensor, ...]:
        """The six arguments of an overlap function, [pairs, points, …], float64."""
        rot = trace.rigid.rot.detach().double()[0]
        q, k = trace.query, trace.key
        return (
            rot[self.query][:, None],
            q.mean.detach().double()[0][self.head, :, self.query],
            q.sigma.detach().double()[0][self.head, :, self.query],
            rot[self.key][:, None],
            k.mean.detach().double()[0][self.head, :, self.key],
            k.sigma.detach().double()[0][self.head, :, self.key],
        )
