"""Losses on structures that no run trains on, with noise that is the same for every arm and every evaluation."""

from collections.abc import Callable, Sequence

import torch

from iga._typing import Tensor
from iga.experiment.model.network import FlowNetwork
from iga.experiment.settings import Settings, Training
from iga.experiment.task.batches import Batches
from iga.experiment.task.chains import Batch, Chain
from iga.experiment.task.flow import Losses, Noised, losses, mean_frame, noised, shuffled
from iga.gaussian import GaussianRigid

__all__ = ["Evaluation", "batches_of"]

# The least number of samples of one evaluation: where there are fewer held-out chains, they come several times.
SAMPLES = 32
# The seed of the noise. No training run can have it: their seeds are 32 bits long.
NOISE_SEED = 2**32
_FIELDS = {
    "trans_loss": "trans",
    "trans_loss_raw": "trans_raw",
    "rots_vf_loss": "rots_vf",
    "se3_vf_loss": "se3_vf",
    "se3_vf_loss_raw": "se3_vf_raw",
    "gaussian_loss": "gaussian",
}


def batches_of(chains: Sequence[Chain], training: Training, *, seed: int, parts: int = 1) -> Batches:
    """The batches of `chains` in the sizes of `training`."""
    sizes = {"residues_squared": training.residues_squared, "max_samples": training.max_samples, "crop": training.crop}
    return Batches(chains, **sizes, seed=seed, parts=parts)


class Evaluation:
    """The samples of an evaluation: the held-out chains once, or several times until there are SAMPLES. Each sample has
    noise and a crop of its own."""

    def __init__(self, held_out: Sequence[Chain], settings: Settings, device: torch.device | str = "cpu") -> None:
        batches = batches_of(held_out, settings.training, seed=NOISE_SEED)
        epochs = -(-SAMPLES // len(held_out))
        steps = sum(batches.steps_in(epoch) for epoch in range(epochs))
        self._device = device
        self._batches = [batches(step) for step in range(steps)]
        options = {"gaussians": settings.model.gaussians, "stress": settings.data.stressed}
        self._noised = [noised(batch, seed=NOISE_SEED, **options) for batch in self._batches]

    @property
    def first_mask(self) -> Tensor:
        """The mask of the batch of `first`."""
        return self._batches[0].mask.to(self._device)

    def first(self, network: FlowNetwork) -> GaussianRigid:
        """The network's prediction for the first batch: for whoever listens to its taps."""
        batch, x = self._batches[0].to(self._device), self._noised[0].to(self._device)
        return network(x.gaussian, x.t, batch.mask, batch.index)

    def network(self, network: FlowNetwork) -> dict[str, float]:
        """Means of every loss over the samples, and of se3_vf_loss_raw with the frames shuffled among residues."""

        def predict(batch: Batch, x: Noised) -> GaussianRigid:
            batch, x = batch.to(self._device), x.to(self._device)
            return network(x.gaussian, x.t, batch.mask, batch.index)

        training = network.training
        network.eval()
        with torch.no_grad():
            found = self._means(predict, lambda batch, x: x)
            mixed = self._means(predict, lambda batch, x: shuffled(x, batch.mask, NOISE_SEED))
        network.train(training)
        return {**found, "shuffled_se3_vf_loss_raw": mixed["se3_vf_loss_raw"]}

    def mean_frame(self) -> dict[str, float]:
        """The same for predicting each chain's own mean frame. A network that has learned something does better."""
        return self._means(lambda batch, x: mean_frame(x, batch.mask), lambda batch, x: x)

    def unchanged(self) -> dict[str, float]:
        """The same for predicting the input itself, as a network does before its first step."""
        return self._means(lambda batch, x: x.gaussian, lambda batch, x: x)

    def _means(
        self, predict: Callable[[Batch, Noised], GaussianRigid], given: Callable[[Batch, Noised], Noised]
    ) -> dict[str, float]:
        found: list[Losses] = []
        for batch, x in zip(self._batches, self._noised, strict=True):
            predicted = predict(batch, given(batch, x)).to(device="cpu")
            found.append(losses(predicted, x, batch.mask))
        return {
            name: float(torch.cat([getattr(one, field) for one in found]).double().mean())
            for name, field in _FIELDS.items()
        }
