"""Peers: other ways to the same attention, and IPA's simpler geometry through torch's fused attention.

Each function takes a `Problem` and returns (values [1, h, n, c], value points in the query's frame [1, h, n, pv, 3]).
The score, its cap and its weight are those of `problem.CONFIG`; what each peer is able to skip, it skips.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from iga._typing import Tensor
from iga.bench.problem import CONFIG, Problem
from iga.functional import point_scale
from iga.overlap import gaussian_overlap, gaussian_overlap_textbook, student_t_score
from iga.rotation import rotate, rotate_inverse

__all__ = ["IPA_POINT_WEIGHT", "compiled", "dense", "flex", "ipa_sdpa", "keops", "textbook"]

Forward = Callable[[Problem], tuple[Tensor, Tensor]]
Overlap = Callable[..., tuple[Tensor, Tensor]]
_CAP = CONFIG.logit_cap or math.inf


def dense(p: Problem) -> tuple[Tensor, Tensor]:
    """The closed form of `iga.overlap` by broadcasting: N² · H · P intermediates."""
    return _dense(gaussian_overlap, *_positional(p))


def textbook(p: Problem) -> tuple[Tensor, Tensor]:
    """Σ built and factored, as the historical layers did; dense too."""
    return _dense(gaussian_overlap_textbook, *_positional(p))


def compiled(form: str) -> Forward:
    """`dense` ("closed") or `textbook` through torch.compile, for one size."""
    overlap = gaussian_overlap if form == "closed" else gaussian_overlap_textbook

    def attention(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return _dense(overlap, *tensors)

    quick = torch.compile(attention, dynamic=False)
    return lambda p: quick(*_positional(p))


def flex() -> Forward:
    """FlexAttention with the score as score_mod: nothing of size N², no gradient of the geometry on a CPU.

    Values and value points, global, are one tensor of values, padded to a power of two.
    """
    from torch.nn.attention.flex_attention import flex_attention

    attention = torch.compile(flex_attention, dynamic=False)

    def run(p: Problem) -> tuple[Tensor, Tensor]:
        share = _weight(p)
        # Structure of arrays: a tensor a component [h, p, n], which score_mod indexes.
        a, b = (_covariances(p.rot, sigma) for sigma in (p.q_sigma, p.k_sigma))
        x, y = ([mean[0, ..., axis].contiguous() for axis in range(3)] for mean in (p.q_mean, p.k_mean))
        points = p.q_mean.shape[2]

        def score_mod(score: Tensor, batch: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            total = torch.zeros_like(score)
            for point in range(points):
                s = [u[h, point, i] + w[h, point, j] for u, w in zip(a, b, strict=True)]
                d = [u[h, point, i] - w[h, point, j] for u, w in zip(x, y, strict=True)]
                num, det = _cofactors(s, d)
                total = total + student_t_score(num / det, torch.log(det), dof=CONFIG.dof)
            return score + _CAP * torch.tanh(share[h] * total / _CAP)

        values = _values_and_points(p)
        width = values.shape[-1]
        padded = F.pad(values, (0, _power_of_two(width) - width))
        out = attention(p.q, p.k, padded, score_mod=score_mod)
        return _split(p, out[..., :width])  # pyright: ignore[reportArgumentType] - a tensor without return_lse

    return run


def keops(p: Problem) -> tuple[Tensor, Tensor]:
    """KeOps: one reduction over keys, its formula written with vectors of the P points, by cofactors."""
    # It writes formulas, and what it lacks, to stdout; it imports its core before it reads its own variable.
    for name in ("KEOPS_VERBOSE", "PYKEOPS_VERBOSE"):
        os.environ.setdefault(name, "0")
    from pykeops.torch import LazyTensor  # pyright: ignore[reportMissingImports] - an extra

    def rows(x: Tensor) -> Any:  # [h, n, d] → h × n × 1 × d
        return LazyTensor(x[:, :, None].contiguous())

    def columns(x: Tensor) -> Any:
        return LazyTensor(x[:, None].contiguous())

    a, b = (_covariances(p.rot, sigma) for sigma in (p.q_sigma, p.k_sigma))
    s = [rows(u.transpose(-1, -2)) + columns(w.transpose(-1, -2)) for u, w in zip(a, b, strict=True)]
    x, y = ([mean[0, ..., axis].transpose(-1, -2) for axis in range(3)] for mean in (p.q_mean, p.k_mean))
    num, det = _cofactors(s, [rows(u) - columns(w) for u, w in zip(x, y, strict=True)])
    score = -0.5 * (CONFIG.dof + 3.0) * (1.0 + num / (CONFIG.dof * det)).log() - 0.5 * det.log()
    share = LazyTensor(_weight(p)[:, None, None, None].contiguous())
    # tanh(x) = 1 − 2 / (1 + e^{2x}): KeOps has no tanh
    capped = _CAP - 2.0 * _CAP / (1.0 + (2.0 / _CAP * (share * score.sum(-1))).exp())
    logits = (rows(p.q[0] * p.q.shape[-1] ** -0.5) | columns(p.k[0])) + capped
    out = logits.sumsoftmaxweight(columns(_values_and_points(p)[0]), axis=2)
    return _split(p, out[None])


IPA_POINT_WEIGHT = math.sqrt(1.0 / 3.0) * math.sqrt(2.0 / 9.0)


def ipa_sdpa(p: Problem) -> tuple[Tensor, Tensor]:
    """Another function: IPA's geometry (algorithm 22), −½ w |x − y|² = w x·y − ½ w |y|² up to a constant of the row,
    as a dot product of longer vectors through scaled_dot_product_attention. The price of the simpler geometry; the
    expansion loses digits far from the origin, and the structure is centred."""
    heads, points = p.q_mean.shape[1:3]
    weight = IPA_POINT_WEIGHT * points**-0.5 * F.softplus(p.geo_scale)[:, None, None]
    x, y = (m[0].transpose(1, 2).flatten(-2) for m in (p.q_mean, p.k_mean))  # [h, n, 3p]
    ones = x.new_ones(heads, x.shape[1], 1)
    scale = (3.0 * p.q.shape[-1]) ** -0.5
    query = torch.cat([scale * p.q[0], weight * x, ones], dim=-1)
    key = torch.cat([p.k[0], y, -0.5 * weight * y.square().sum(-1, keepdim=True)], dim=-1)
    out = F.scaled_dot_product_attention(query[None], key[None], _values_and_points(p), scale=1.0)
    return _split(p, out)


def _dense(
    overlap: Overlap,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    value_points: Tensor,
    rot: Tensor,
    trans: Tensor,
    q_mean: Tensor,
    q_sigma: Tensor,
    k_mean: Tensor,
    k_sigma: Tensor,
    geo_scale: Tensor,
) -> tuple[Tensor, Tensor]:
    dist_sq, log_det = overlap(
        rot[:, None, None, :, None],
        q_mean[..., :, None, :],
        q_sigma[..., :, None, :],
        rot[:, None, None, None],
        k_mean[..., None, :, :],
        k_sigma[..., None, :, :],
    )
    score = student_t_score(dist_sq, log_det, dof=CONFIG.dof)
    share = F.softplus(geo_scale)[:, None, None] * (point_scale(q_mean.shape[2], CONFIG) / CONFIG.temperature)
    geo = _CAP * torch.tanh(share * score.sum(2) / _CAP)
    weights = (q @ k.mT * q.shape[-1] ** -0.5 + geo).softmax(dim=-1)
    by_head, at = rot[:, None, :, None], trans[:, None, :, None]
    world = rotate(by_head, value_points) + at
    # float64: out of TF32's reach, as `iga.functional` has it
    attended = (weights.double() @ world.double().flatten(-2)).to(world.dtype).unflatten(-1, world.shape[-2:])
    return weights @ v, rotate_inverse(by_head, attended - at)


def _covariances(rot: Tensor, sigma: Tensor) -> list[Tensor]:
    """The entries xx, xy, xz, yy, yz, zz of R diag(σ²) Rᵀ, each [h, p, n]: of order N, before any pair is looked at."""
    v = sigma[0].square()
    return [
        sum(
            (rot[0, :, r, k] * v[..., k] * rot[0, :, c, k] for k in (1, 2)),
            rot[0, :, r, 0] * v[..., 0] * rot[0, :, c, 0],
        )
        for r, c in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    ]


def _cofactors(s: Sequence[Any], d: Sequence[Any]) -> tuple[Any, Any]:
    """(dᵀ adj(S) d, det S) of a symmetric S: 40 operations, and κ² units of rounding, which healthy input can spare."""
    xx, xy, xz, yy, yz, zz = s
    c0, c1, c2 = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    det = xx * c0 + xy * c1 + xz * c2
    c3, c4, c5 = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    num = d[0] * (c0 * d[0] + 2.0 * (c1 * d[1] + c2 * d[2])) + d[1] * (c3 * d[1] + 2.0 * c4 * d[2]) + c5 * d[2] * d[2]
    return num, det


def _positional(p: Problem) -> tuple[Tensor, ...]:
    return tuple(p.named().values())


def _weight(p: Problem) -> Tensor:
    """[h]: the factor on Σ_p score."""
    return F.softplus(p.geo_scale) * (point_scale(p.q_mean.shape[2], CONFIG) / CONFIG.temperature)


def _values_and_points(p: Problem) -> Tensor:
    """[1, h, n, c + 3 pv]: values, and value points in global coordinates."""
    world = rotate(p.rot[:, None, :, None], p.value_points) + p.trans[:, None, :, None]
    return torch.cat([p.v, world.flatten(-2)], dim=-1)


def _split(p: Problem, out: Tensor) -> tuple[Tensor, Tensor]:
    channels = p.v.shape[-1]
    world = out[..., channels:].unflatten(-1, p.value_points.shape[-2:])
    return out[..., :channels], rotate_inverse(p.rot[:, None, :, None], world - p.trans[:, None, :, None])


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
