"""The task: flow matching on SE(3), noise at t = 0, data at t = 1; the network predicts the clean frames.

State x_t = (frame (R_t, t_t), local mean m_t, log scale l_t) of every residue, nm. With t uniform in [0.01, 1]

    trans_t = (1 − t) trans_0 + t trans_1          trans_0 normal, deviation 1 nm, centred over the chain
    R_t = R_0 exp(t log(R_0ᵀ R_1))                 R_0 uniform on SO(3)
    learned   m_t = (1 − t) m_0 + t m_1            m_0 normal, deviation 0.1 nm
              l_t = (1 − t) l_0 + t l_1            l_0 normal about log 0.1, deviation 0.5
    fixed     m_t = m_1,  l_t = l_1;  free: the same, and the network moves them without a loss of their own

The losses divide by 1 − c, c = min(t, 0.9), because the way that is left shrinks as 1 − t. All of them:
docs/experiment/README.md.

Source: J. Yim et al., "Fast protein backbone generation with SE(3) flow matching" (FrameFlow), arXiv:2310.05297, and
its code for the weights and the clamp; the Gaussians, and the stress, are this package's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from iga import rotation
from iga._typing import NM_PER_ANGSTROM, Bool, Float, Tensor
from iga.experiment.settings import GAUSSIANS, Stress
from iga.experiment.task.chains import LOG_NEUTRAL_SIGMA, Batch, neutral, stream
from iga.frame import Frame
from iga.gaussian import GaussianRigid

__all__ = [
    "GAUSSIANS",
    "Losses",
    "Noise",
    "Noised",
    "check_gaussians",
    "draw_noise",
    "interpolate",
    "losses",
    "mean_frame",
    "nearest_rotation",
    "noised",
    "shuffled",
]

T_MIN = 0.01
T_CLIP = 0.9
TRANS_NOISE = 1.0  # nm, FrameFlow's 10 Å
MEAN_NOISE = 0.1  # nm, the size of a residue's local mean
LOG_SCALE_NOISE = 0.5  # the spread of log σ over real residues is 0.49

TRANS_SCALE = 0.1  # per Å
TRANS_WEIGHT = 2.0
TRANS_CLAMP = 5.0

STRESS_SHIFT = (-8.0, -4.0)  # added to log σ
NEEDLE_SIGMA = (1.0, 148.0)  # nm, uniform in log; just under the layers' ceiling of 150 nm
NEEDLES_ONE_IN = 4  # residues


class Noise(NamedTuple):
    """What is drawn for one sample of n residues; float64, nm."""

    t: float
    trans: np.ndarray  # [n, 3], centred
    quaternion: np.ndarray  # [n, 4], of any length
    local_mean: np.ndarray  # [n, 3]
    log_scale: np.ndarray  # [n, 3]
    shift: np.ndarray  # [n, 3], of log scales under stress
    is_needle: np.ndarray  # [n, 3], one axis of a needle under stress
    needle: np.ndarray  # [n, 3], its log σ


@dataclass(frozen=True, eq=False)
class Noised:
    """A batch on its way: `gaussian` is x_t, `target` x_1, both [b, n] with neutral padded rows; t [b].

    In the fixed mode both have the Gaussians that the attention sees. draws [b] is the batch's; learned: the mode.
    """

    t: Float[Tensor, " b"]
    gaussian: GaussianRigid
    target: GaussianRigid
    draws: Tensor
    learned: bool

    def to(self, device: torch.device | str) -> "Noised":
        """The same on another device."""
        moved = {name: getattr(self, name).to(device=device) for name in ("t", "gaussian", "target", "draws")}
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class Losses:
    """The losses of each sample [b]. Where trans_raw > 5, trans is 5 and has no gradient."""

    trans: Float[Tensor, " b"]
    trans_raw: Float[Tensor, " b"]
    rots_vf: Float[Tensor, " b"]
    gaussian: Float[Tensor, " b"]

    @property
    def se3_vf(self) -> Float[Tensor, " b"]:
        """trans + rots_vf."""
        return self.trans + self.rots_vf

    @property
    def se3_vf_raw(self) -> Float[Tensor, " b"]:
        """trans_raw + rots_vf."""
        return self.trans_raw + self.rots_vf


def draw_noise(seed: int, draw: int, length: int) -> Noise:
    """The noise of sample `draw` with `length` residues: a function of these three alone.

    Everything is drawn in every mode, so that modes share what they have in common.
    """
    rng = stream(seed, "noise", draw)
    t = T_MIN + (1 - T_MIN) * rng.random()
    trans = TRANS_NOISE * rng.standard_normal((length, 3))
    quaternion = rng.standard_normal((length, 4))
    local_mean = MEAN_NOISE * rng.standard_normal((length, 3))
    log_scale = LOG_NEUTRAL_SIGMA + LOG_SCALE_NOISE * rng.standard_normal((length, 3))
    shift = np.repeat(rng.uniform(*STRESS_SHIFT, size=(length, 1)), 3, axis=1)
    chosen = rng.permutation(length)[: length // NEEDLES_ONE_IN]
    is_needle = np.zeros((length, 3), dtype=bool)
    is_needle[chosen, rng.integers(3, size=len(chosen))] = True
    needle = np.repeat(rng.uniform(*np.log(NEEDLE_SIGMA), size=(length, 1)), 3, axis=1)
    return Noise(t, trans - trans.mean(axis=0), quaternion, local_mean, log_scale, shift, is_needle, needle)


def noised(
    batch: Batch,
    *,
    seed: int,
    gaussians: str = "fixed",
    stress: Stress | bool | None = False,
    t: float | None = None,
) -> Noised:
    """x_t and x_1 of a batch.

    gaussians  "fixed" and "free": the Gaussians of the data at every t; "learned": they move too, from noise to those
               of the data
    stress     scales that collapse: a shift of −8 … −4 on each residue's three log scales, and on every fourth residue
               one axis a needle of 1 … 148 nm instead; fixed: seen at every t; learned: l_0 is log 0.1 so changed.
               A `Stress` has the parts of it: collapse, needles (alone and learned: on l_0 as drawn), one dose for all
    t          one time in [0, 1] for all samples; None: drawn, in [0.01, 1]
    """
    check_gaussians(gaussians)
    if t is not None and not 0 <= t <= 1:
        raise ValueError(f"t must lie in [0, 1] (flow time, 1 = data), or be None, got {t}")
    lengths = batch.mask.sum(dim=-1).tolist()
    drawn = [draw_noise(seed, draw, length) for draw, length in zip(batch.draws.tolist(), lengths, strict=True)]
    target, stack = neutral(batch.gaussian, batch.mask), _stacker(batch)
    frame = Frame(_rotations(drawn, stack, batch.mask), stack([x.trans for x in drawn]))
    learned = gaussians == "learned"
    if learned:
        local_mean, log_scale = stack([x.local_mean for x in drawn]), stack([x.log_scale for x in drawn])
    else:
        local_mean, log_scale = target.local_mean, target.log_scale
    kind = (Stress() if stress else None) if stress is None or isinstance(stress, bool) else stress
    if kind is not None and kind.collapse:
        base = torch.full_like(log_scale, LOG_NEUTRAL_SIGMA) if learned else log_scale
        log_scale = base + (stack([x.shift for x in drawn]) if kind.dose is None else kind.dose)
    if kind is not None and kind.needles:
        is_needle = stack([x.is_needle for x in drawn]) > 0
        log_scale = torch.where(is_needle, stack([x.needle for x in drawn]), log_scale)
    start = neutral(GaussianRigid(frame, local_mean, log_scale), batch.mask)
    if not learned:
        target = replace(target, log_scale=start.log_scale)
    times = torch.tensor([x.t if t is None else t for x in drawn], dtype=target.dtype).to(target.device)
    between = neutral(interpolate(start, target, times), batch.mask)
    if not learned:  # bit for bit, where (1 − t) l + t l rounds
        between = replace(between, local_mean=target.local_mean, log_scale=target.log_scale)
    return Noised(times, between, target, batch.draws, learned)


def interpolate(start: GaussianRigid, end: GaussianRigid, t: Float[Tensor, " b"]) -> GaussianRigid:
    """The state at time t [b] on the path from `start` to `end`, both [b, n]: lines, and geodesics of rotations."""
    t = t[:, None, None]

    def line(a: Tensor, b: Tensor) -> Tensor:
        return (1 - t) * a + t * b

    turn = rotation.log(rotation.multiply(rotation.transpose(start.rot), end.rot))
    frame = Frame(rotation.compose(start.rot, rotation.exp(t * turn)), line(start.trans, end.trans))
    return GaussianRigid(frame, line(start.local_mean, end.local_mean), line(start.log_scale, end.log_scale))


def losses(predicted: GaussianRigid, noised: Noised, mask: Bool[Tensor, "b n"]) -> Losses:
    """How far the predicted clean state is from x_1, of each sample; c = min(t, 0.9), means over the valid residues.

        trans_raw = 2 mean ((x_1 − x̂_1)[Å] · 0.1/(1 − c))²          trans = min(trans_raw, 5)
        rots_vf   = mean ((v − v̂)/(1 − c))²                         v = log(R_tᵀ R_1), v̂ = log(R_tᵀ R̂_1)
        gaussian  = mean (((m_1 − m̂_1)/0.1 nm, l_1 − l̂_1)/(1 − c))²    learned mode; else 0

    The means are over three coordinates, of `gaussian` over six numbers. v̂ jumps where the predicted rotation passes a
    half turn from R_t; the gradient there is that of one side. Rows that the mask leaves out may hold anything.
    """
    predicted, target = neutral(predicted, mask), noised.target
    scale = 1 / (1 - noised.t.clamp(max=T_CLIP))[:, None, None]
    trans = (target.trans - predicted.trans) / NM_PER_ANGSTROM * TRANS_SCALE
    back = rotation.transpose(noised.gaussian.rot)
    v, v_hat = (rotation.log(rotation.multiply(back, x.rot)) for x in (target, predicted))
    trans_raw = TRANS_WEIGHT * _mean_square(trans * scale, mask)
    rots_vf = _mean_square((v - v_hat) * scale, mask)
    if noised.learned:
        moved = (target.local_mean - predicted.local_mean) / MEAN_NOISE
        error = torch.cat([moved, target.log_scale - predicted.log_scale], dim=-1)
        gaussian = _mean_square(error * scale, mask)
    else:
        gaussian = torch.zeros_like(trans_raw)
    return Losses(trans_raw.clamp(max=TRANS_CLAMP), trans_raw, rots_vf, gaussian)


def mean_frame(noised: Noised, mask: Bool[Tensor, "b n"]) -> GaussianRigid:
    """A prediction to beat: every residue at its chain's mean frame of x_1 (an oracle: it has seen the target).

    Mean translation, the rotation nearest to the mean of the matrices, and in the learned mode mean m_1 and l_1.
    """
    target = neutral(noised.target, mask)
    count = mask.sum(dim=-1).clamp(min=1)

    def mean(x: Tensor) -> Tensor:
        valid = mask.reshape(*mask.shape, *(1,) * (x.ndim - 2))
        total = torch.where(valid, x.double(), 0.0).sum(dim=1, keepdim=True)
        return (total / count.reshape(-1, *(1,) * (x.ndim - 1))).expand(x.shape)

    rot = nearest_rotation(mean(target.rot)[:, 0])[:, None].expand(target.rot.shape)
    frame = Frame(rot.to(target.dtype), mean(target.trans).to(target.dtype))
    if not noised.learned:
        return neutral(replace(target, frame=frame), mask)
    local_mean, log_scale = (mean(x).to(target.dtype) for x in (target.local_mean, target.log_scale))
    return neutral(GaussianRigid(frame, local_mean, log_scale), mask)


def nearest_rotation(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation with the smallest ‖R − matrix‖_F, equally the largest tr(Rᵀ matrix): U diag(1, 1, ±1) Vᵀ."""
    u, _, vh = torch.linalg.svd(matrix)
    sign = torch.linalg.det(u) * torch.linalg.det(vh)
    last = torch.where(sign[..., None] < 0, -u[..., 2], u[..., 2])
    return rotation.multiply(torch.stack([u[..., 0], u[..., 1], last], dim=-1), vh)


def shuffled(noised: Noised, mask: Bool[Tensor, "b n"], seed: int) -> Noised:
    """x_t with its frames permuted among the valid residues of each chain, by (seed, draw); the target is as before.

    Gaussians and indices stay with their residues: a network that reads the frames must do worse.
    """
    order = torch.arange(mask.shape[1]).repeat(len(mask), 1)
    for row, (valid, draw) in enumerate(zip(mask.cpu(), noised.draws.tolist(), strict=True)):
        places = valid.nonzero()[:, 0]
        order[row, places] = places[torch.from_numpy(stream(seed, "shuffle", draw).permutation(len(places)))]
    order = order.to(mask.device)
    frame = noised.gaussian.frame[torch.arange(len(mask), device=mask.device)[:, None], order]
    return replace(noised, gaussian=replace(noised.gaussian, frame=frame))


def check_gaussians(gaussians: str) -> None:
    """Raises ValueError unless it is one of the modes."""
    if gaussians not in GAUSSIANS:
        raise ValueError(f'gaussians must be "fixed", "learned" or "free", got {gaussians!r}')


def _mean_square(error: Float[Tensor, "b n c"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Over the valid residues and the last dimension."""
    total = torch.where(mask[..., None], error, 0.0).square().sum(dim=(-2, -1))
    return total / (mask.sum(dim=-1).clamp(min=1) * error.shape[-1])


def _stacker(batch: Batch) -> Callable[[Sequence[np.ndarray]], Tensor]:
    """stack(arrays [length, c] of each sample): [b, n, c] in the valid rows of the batch, 0 elsewhere."""
    mask, like = batch.mask.cpu(), batch.gaussian.trans

    def stack(arrays: Sequence[np.ndarray]) -> Tensor:
        out = np.zeros((*mask.shape, arrays[0].shape[-1]))
        out[mask.numpy()] = np.concatenate(arrays)
        return torch.from_numpy(out).to(dtype=like.dtype).to(like.device)

    return stack


def _rotations(drawn: Sequence[Noise], stack: Callable[[Sequence[np.ndarray]], Tensor], mask: Tensor) -> Tensor:
    """Haar-uniform rotations: a normal 4-vector is a uniform quaternion."""
    quaternion = stack([x.quaternion for x in drawn])
    one = quaternion.new_tensor([1.0, 0.0, 0.0, 0.0])
    return rotation.from_quaternion(torch.where(mask[..., None], quaternion, one))
