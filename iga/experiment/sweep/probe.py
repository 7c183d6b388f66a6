"""The network as training leaves it: entropy of rows at every evaluation, and at the end what its geometry has become.

probes.json of a run: a row an evaluation, {"step", "row_entropy"}, and `left` of the last step, of held-out chains:

    sigma, kappa     histograms of log10 σ [nm] and log10 κ, κ = largest σ of a Gaussian over its smallest; ipa has none
    weights          softplus of geo_scale, of IPA's head_weights: a list a block, a number a head
    at_cap           share of pairs whose |geometry logit| is at least 0.95 of the cap: their gradient is under a tenth
    removed          se3_vf_loss_raw with the weight of the geometry 0
    shuffled         the same with the trained geometry logits permuted among the valid keys of each chain; ipa has none

Nothing is drawn from a global generator, and the network is as it was afterwards.
"""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from iga import taps
from iga._files import write_text
from iga._typing import Bool, Tensor
from iga.attention import InvariantGaussianAttention
from iga.experiment.model.arms import ArmAttention
from iga.experiment.model.cures import attended, logits_with
from iga.experiment.model.network import FlowNetwork
from iga.experiment.run.dataset import Dataset
from iga.experiment.run.evaluate import Evaluation
from iga.experiment.run.train import Probe
from iga.experiment.settings import Settings
from iga.gaussian import GaussianRigid
from iga.kernels import Statistics

__all__ = ["EDGES", "FILE", "probe_of", "read_probes"]

FILE = "probes.json"
# Histograms: bins of half a decade of log10 of σ [nm] and of κ; what lies outside is in the first or last.
EDGES = {"sigma": (-7.0, 3.0), "kappa": (0.0, 10.0)}
WIDTH = 0.5
_NEAR_CAP = 0.95
_SILENT = -1e4  # softplus of it is 0


def probe_of(settings: Settings, dataset: Dataset, folder: Path, device: str) -> Probe:
    """The probe of a run, which keeps its rows in the run's folder."""
    evaluation = Evaluation(dataset.held_out, settings, device)

    def probe(network: FlowNetwork, step: int) -> None:
        kept = read_probes(folder)
        rows = [row for row in kept["rows"] if row["step"] < step]  # later ones belong to steps that are made again
        heard = _Heard(settings)
        with _evaluating(network), taps.listen(heard):
            entropy = heard.entropy_of(lambda: evaluation.first(network), evaluation.first_mask)
        rows.append({"step": step, "row_entropy": entropy})
        left = None
        if step >= settings.training.steps:
            with _evaluating(network):
                left = {**heard.shapes(), "weights": weights_of(network), **worth(network, evaluation)}
        write_text(folder / FILE, json.dumps({"rows": rows, "left": left}, allow_nan=False) + "\n")

    return probe


def read_probes(folder: Path) -> dict[str, Any]:
    """What the probe of a run wrote; without rows where it wrote nothing that can be read."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        rows, left = found["rows"], found["left"]
        return {"rows": [row for row in rows if isinstance(row["step"], int)], "left": left}
    except (OSError, ValueError, KeyError, TypeError):
        return {"rows": [], "left": None}


def weights_of(network: FlowNetwork) -> list[list[float]]:
    """The weight of the geometry, of each block's heads."""
    return [F.softplus(_scale(layer).detach().double()).tolist() for layer in _layers(network)]


def worth(network: FlowNetwork, evaluation: Evaluation) -> dict[str, float | None]:
    """The held-out loss without the trained geometry logits, and with them shuffled; beside the run's own."""
    with _without_geometry(network):
        removed = evaluation.network(network)["se3_vf_loss_raw"]
    shuffled = None
    if all(isinstance(layer, InvariantGaussianAttention) for layer in _layers(network)):
        with _with_shuffled(network):
            shuffled = evaluation.network(network)["se3_vf_loss_raw"]
    return {"removed": _finite(removed), "shuffled": None if shuffled is None else _finite(shuffled)}


class _Heard:
    """What the taps of one call of the network show, summed up as it is shown."""

    def __init__(self, settings: Settings) -> None:
        config = settings.arm.config
        self._cap = None if config is None else config.logit_cap
        self._mask: Tensor | None = None
        self._entropy: list[Tensor] = []
        self._counts = {name: torch.zeros(round((high - low) / WIDTH)) for name, (low, high) in EDGES.items()}
        self._over, self._gaussians, self._at_cap, self._pairs = 0, 0, 0, 0

    def __call__(self, name: str, tensor: Tensor, dims: str) -> None:
        if self._mask is None:
            return
        valid, tensor = self._mask, tensor.detach()
        if name == "weights":  # [b, h, q, k]
            rows = torch.special.entr(tensor).sum(dim=-1)
            self._entropy.append(rows[valid[:, None].expand(rows.shape)])
        elif name == "sigma":  # [b, h, p, n, 3]
            sigma = tensor[valid[:, None, None].expand(tensor.shape[:-1])]
            kappa = sigma.amax(dim=-1) / sigma.amin(dim=-1)
            self._count("sigma", sigma)
            self._count("kappa", kappa)
            self._over += int((kappa > 100.0).sum())
            self._gaussians += kappa.numel()
        elif name == "geometry_logit" and self._cap is not None:
            pairs = (valid[:, :, None] & valid[:, None, :])[:, None].expand(tensor.shape)
            self._at_cap += int((tensor[pairs].abs() >= _NEAR_CAP * self._cap).sum())
            self._pairs += int(pairs.sum())

    def entropy_of(self, call: Callable[[], Any], mask: Bool[Tensor, "b n"]) -> float | None:
        """Mean entropy of the rows of a call, nats."""
        self._mask = mask
        call()
        self._mask = None
        return _finite(float(torch.cat(self._entropy).double().mean())) if self._entropy else None

    def shapes(self) -> dict[str, Any]:
        counts = {name: [int(x) for x in found] if self._gaussians else None for name, found in self._counts.items()}
        return {
            **counts,
            "kappa_over_100": self._over / self._gaussians if self._gaussians else None,
            "at_cap": self._at_cap / self._pairs if self._pairs else None,
        }

    def _count(self, name: str, values: Tensor) -> None:
        low, high = EDGES[name]
        bins = (
            ((values.double().log10() - low) / WIDTH).nan_to_num(0.0).floor().clamp(0, round((high - low) / WIDTH) - 1)
        )
        self._counts[name] += torch.bincount(bins.long().flatten().cpu(), minlength=len(self._counts[name]))


def _layers(network: FlowNetwork) -> list[Any]:
    return [module.layer for module in network.modules() if isinstance(module, ArmAttention)]


def _scale(layer: Any) -> Tensor:
    return layer.geo_scale if isinstance(layer, InvariantGaussianAttention) else layer.head_weights


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)


@contextmanager
def _without_geometry(network: FlowNetwork) -> Iterator[None]:
    """The weight of every geometry logit is 0 while inside."""
    kept = [(scale, scale.detach().clone()) for scale in map(_scale, _layers(network))]
    with torch.no_grad():
        for scale, _ in kept:
            scale.fill_(_SILENT)
    try:
        yield
    finally:
        with torch.no_grad():
            for scale, value in kept:
                scale.copy_(value)


@contextmanager
def _with_shuffled(network: FlowNetwork) -> Iterator[None]:
    blocks: list[Any] = [
        block for block in network.modules() if isinstance(getattr(block, "attention", None), ArmAttention)
    ]
    own = [block.attention for block in blocks]
    for block in blocks:
        block.attention = _Shuffled(block.attention)
    try:
        yield
    finally:
        for block, attention in zip(blocks, own, strict=True):
            block.attention = attention


class _Shuffled(nn.Module):
    """An arm's attention whose geometry logits stand at other keys: a permutation of the valid keys of each chain."""

    def __init__(self, arm: ArmAttention) -> None:
        super().__init__()
        self.arm = arm

    def forward(
        self, s: Tensor, z: Tensor, gaussian: GaussianRigid, mask: Tensor, t: Tensor
    ) -> tuple[Tensor, Statistics]:
        layer: Any = self.arm.layer
        trace = layer.trace(s, z, gaussian, mask, t=t if self.arm.gated else None)
        order = shuffled_keys(mask)[:, None, None, :].expand(trace.logits.shape)
        output, weights = attended(layer, trace, logits_with(trace, trace.geo_scaled.gather(-1, order)))
        row = weights.amax(dim=-1)
        return output, Statistics(row, row, row)  # nobody reads these


def shuffled_keys(mask: Bool[Tensor, "b n"]) -> Tensor:
    """For each place the one whose logit it gets, long [b, n]: the same permutation for the same mask."""
    generator = torch.Generator().manual_seed(0)
    order = torch.arange(mask.shape[1]).repeat(len(mask), 1)
    for row, valid in enumerate(mask.cpu()):
        places = valid.nonzero()[:, 0]
        order[row, places] = places[torch.randperm(len(places), generator=generator)]
    return order.to(mask.device)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
