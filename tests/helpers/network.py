"""Small networks of every arm, noised chains for them, and how far rounding may move what they predict."""

from dataclasses import dataclass, replace

import torch

from iga import rotation
from iga.experiment.model.arms import network_of
from iga.experiment.model.network import FlowNetwork
from iga.experiment.settings import Model, load_settings
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.structure.synthetic import synthetic_structures
from iga.testing.layer.subject import randomise

TINY = Model(
    c_s=16,
    c_z=8,
    c_hidden=4,
    heads=2,
    points=2,
    value_points=2,
    blocks=2,
    transformer_layers=1,
    transformer_heads=2,
)


@dataclass
class Inputs:
    gaussian: GaussianRigid
    t: torch.Tensor
    mask: torch.Tensor
    index: torch.Tensor

    def __iter__(self):
        return iter((self.gaussian, self.t, self.mask, self.index))


def chains(n: int = 9, *, batch: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32) -> Inputs:
    """Noised synthetic chains with healthy Gaussians: frames turned at random, translations half data, half noise."""
    generator = torch.Generator().manual_seed(seed)
    found = [s.gaussian for s in synthetic_structures(batch, seed=seed, lengths=(n, n), dtype=torch.float64)]
    trans, local_mean, log_scale = (
        torch.stack([getattr(g, name) for g in found]) for name in ("trans", "local_mean", "log_scale")
    )
    noise = torch.randn(trans.shape, generator=generator, dtype=torch.float64)
    rot = rotation.random(batch, n, generator=generator, dtype=torch.float64)
    gaussian = GaussianRigid(Frame(rot, (trans + noise) / 2), local_mean, log_scale).to(dtype)
    t = 0.1 + 0.8 * torch.rand(batch, generator=generator)
    index = torch.arange(n).expand(batch, n) + torch.tensor([0, 5] * batch)[:batch, None]
    return Inputs(gaussian, t.to(dtype), torch.ones(batch, n, dtype=torch.bool), index.contiguous())


def network(
    arm: str, *, gaussians: str = "fixed", seed: int = 0, moved: bool = True, dtype: torch.dtype = torch.float32
) -> FlowNetwork:
    """The tiny network of an arm; `moved`: every parameter drawn anew, since zero updates would hide everything."""
    settings = load_settings(arm, "small", [f"training.seed={seed}"])
    built = network_of(replace(settings, model=replace(TINY, gaussians=gaussians)))
    if moved:
        randomise(built, seed)
    return built.to(dtype)


def numbers(gaussian: GaussianRigid) -> torch.Tensor:
    """[b, n, 18]: everything that a prediction holds."""
    parts = [gaussian.rot.flatten(-2), gaussian.trans, gaussian.local_mean, gaussian.log_scale]
    return torch.cat(parts, dim=-1)


def shaken(gaussian: GaussianRigid, step: float, seed: int) -> GaussianRigid:
    """Every number of `gaussian` moved by a normal draw of `step` times its size, at least of `step`."""
    generator = torch.Generator().manual_seed(seed)

    def moved(x: torch.Tensor) -> torch.Tensor:
        draw = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
        return x + step * draw * x.detach().abs().clamp(min=1.0)

    frame = Frame(moved(gaussian.rot), moved(gaussian.trans))
    return GaussianRigid(frame, moved(gaussian.local_mean), moved(gaussian.log_scale))


def rounding_budget(built: FlowNetwork, given: Inputs, *, roundings: int = 1000) -> float:
    """How far apart two orders of the same float64 arithmetic may come out.

    Shaking the inputs by a relative 2⁻³⁰ tells by how much a step in them grows on the way to the prediction; the
    largest of four shakes, doubled, stands for the condition. Each of `roundings` errors of 2⁻⁵³, some fifty operations
    in each of twenty layers, is let grow by all of it.
    """
    exact, step, largest = numbers(built(*given)), 2.0**-30, 0.0
    for seed in range(4):
        other = built(shaken(given.gaussian, step, seed), given.t, given.mask, given.index)
        largest = max(largest, (numbers(other) - exact).abs().max().item())
    return 2 * largest / step * roundings * 2.0**-53
