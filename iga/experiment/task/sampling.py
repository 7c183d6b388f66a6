"""The sampler, which takes Euler steps from noise along the predicted flow, and the distance of two backbones.

    trans ← trans + dt (x̂_1 − trans)/(1 − t)               local mean and log scale alike, in the learned mode
    R ← R exp(min(rate · dt, 1) log(Rᵀ R̂_1))               the exponential schedule: the angle left falls as e^(−rate t)

Source: J. Yim et al. (FrameFlow), arXiv:2310.05297: the exponential schedule of the rotations with rate 10; W. Kabsch,
Acta Crystallographica A32 (1976), 922, for the superposition.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from iga import rotation
from iga._typing import NM_PER_ANGSTROM, Bool, Float, Tensor
from iga.experiment.settings import Stress
from iga.experiment.task.chains import Batch, neutral
from iga.experiment.task.flow import T_MIN, check_gaussians, nearest_rotation, noised
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.rotation import rotate

__all__ = ["Network", "ca_rmsd", "sample"]

Network = Callable[[GaussianRigid, Tensor, Tensor, Tensor], GaussianRigid]  # (x_t, t [b], mask, index) → x̂_1


def sample(
    network: Network,
    template: Batch,
    *,
    steps: int = 100,
    seed: int,
    gaussians: str = "fixed",
    stress: Stress | bool | None = False,
    rate: float = 10.0,
) -> GaussianRigid:
    """x̂_1 [b, n] at the end of `steps` Euler steps from t = 0.01, with noise at its start, to t = 1.

    Of `template` are taken the mask, the index, the draws, and in the fixed mode the Gaussians; of its frames nothing.
    The noise is that of training, of (seed, draw), so that structures differ by their draws. `network` is called
    steps + 1 times, without gradient; a module is in eval mode meanwhile and afterwards as it was.
    """
    check_gaussians(gaussians)
    if steps < 1:
        raise ValueError(f"steps must be an integer ≥ 1, got {steps}; 100 is usual")
    if not 0 < rate < float("inf"):
        raise ValueError(f"rate must be a finite number > 0, got {rate}; 10 is usual")
    mask, index = template.mask, template.index
    x = noised(_without_frames(template), seed=seed, gaussians=gaussians, stress=stress, t=0.0).gaussian
    times = [T_MIN + (1 - T_MIN) * k / steps for k in range(steps)] + [1.0]
    with _evaluating(network), torch.no_grad():
        for t, after in zip(times, times[1:], strict=False):
            predicted = network(x, _times(t, x), mask, index)
            x = neutral(_step(x, predicted, t, after - t, rate, learned=gaussians == "learned"), mask)
        return neutral(network(x, _times(1.0, x), mask, index), mask)


def ca_rmsd(a: Float[Tensor, "*b n 3"], b: Float[Tensor, "*b n 3"], mask: Bool[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """Root mean square distance of the valid positions after the best superposition, Å, float64.

    Positions in nm. By translation and proper rotation only, so that a mirror image is not at 0. Raises ValueError for
    a chain without a valid position.
    """
    count = mask.sum(dim=-1, keepdim=True)
    if not (count > 0).all():
        raise ValueError("mask must leave at least one position in every chain, got a chain without; drop that chain")
    a, b = (_about_mean(x, mask, count) for x in (a, b))
    turn = nearest_rotation((b[..., :, None] * a[..., None, :]).sum(dim=-3))
    square = (rotate(turn[..., None, :, :], a) - b).square().sum(dim=(-2, -1))
    return (square / count[..., 0]).sqrt() / NM_PER_ANGSTROM


def _step(
    x: GaussianRigid, predicted: GaussianRigid, t: float, dt: float, rate: float, *, learned: bool
) -> GaussianRigid:
    share = min(dt / (1 - t), 1.0)  # 1 in the last step, but for rounding

    def line(a: Tensor, b: Tensor) -> Tensor:
        return a + share * (b - a)

    turn = rotation.log(rotation.multiply(rotation.transpose(x.rot), predicted.rot))
    rot = rotation.compose(x.rot, rotation.exp(min(rate * dt, 1.0) * turn))
    frame = Frame(rot, line(x.trans, predicted.trans))
    if not learned:
        return replace(x, frame=frame)
    local_mean, log_scale = line(x.local_mean, predicted.local_mean), line(x.log_scale, predicted.log_scale)
    return GaussianRigid(frame, local_mean, log_scale)


def _times(t: float, x: GaussianRigid) -> Tensor:
    return torch.full(x.shape[:1], t, dtype=x.dtype, device=x.device)


def _without_frames(template: Batch) -> Batch:
    """With identity frames: not even a rounding of the answer is in the start."""
    gaussian = template.gaussian
    identity = Frame.identity(*gaussian.shape, dtype=gaussian.dtype, device=gaussian.device)
    return replace(template, gaussian=replace(gaussian, frame=identity))


@contextmanager
def _evaluating(network: Network) -> Iterator[None]:
    modules = list(network.modules()) if isinstance(network, torch.nn.Module) else []
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _about_mean(x: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    x = torch.where(mask[..., None], x.double(), 0.0)
    mean = x.sum(dim=-2, keepdim=True) / count[..., None]
    return torch.where(mask[..., None], x - mean, 0.0)
