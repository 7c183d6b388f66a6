"""The batches of a run: epochs of chains, cropped, and cut into batches bounded by residues².

Nothing here has a state that a run must save: a batch is a function of (seed, step), a crop of (seed, draw).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from iga.experiment.task.chains import Batch, Chain, at_least, collate, cropped, stream

__all__ = ["Batches"]

# Batches that lie together in a sorted stretch of the epoch: more pad less, fewer mix better.
_BATCHES_A_BLOCK = 8


class Batches:
    """The batches of a run: `batches(step)`, or the share of one of several processes, `batches(step, part)`.

    An epoch is a permutation of the chains by (seed, epoch), each once. Within stretches of it the chains, cropped to
    `crop` residues, are sorted by length and cut greedily so that in every batch

        samples · longest² ≤ residues_squared          samples ≤ max_samples          parts divides samples

    A batch has at least `parts` samples, however long they are. Then the batches are permuted. Where `parts` does not
    divide the number of chains, the first chains of the permutation come a second time. Both bounds are of the whole
    batch, of which each part gets samples/parts. The start of a crop is uniform, drawn by (seed, draw).

    To find a step, the samples before it are numbered. That takes about a microsecond each, and is done once.
    """

    def __init__(
        self,
        chains: Sequence[Chain],
        *,
        residues_squared: int,
        max_samples: int,
        crop: int,
        seed: int,
        parts: int = 1,
    ) -> None:
        at_least(1, residues_squared=residues_squared, crop=crop, parts=parts)
        if not chains:
            raise ValueError("chains must hold at least one chain, got none; see chains_of")
        if max_samples < parts:
            raise ValueError(f"max_samples must be at least parts = {parts}, one sample each, got {max_samples}")
        stream(seed, "epoch")  # refuses a negative seed now rather than at the first step
        self.chains = tuple(chains)
        self.residues_squared, self.max_samples, self.crop = residues_squared, max_samples, crop
        self.seed, self.parts = seed, parts
        self._lengths = np.minimum([len(chain) for chain in chains], crop)
        self._first_steps = [0]  # of the epochs met so far and the next
        self._last: tuple[int, list[list[tuple[int, int]]]] = (-1, [])

    def __call__(self, step: int, part: int = 0) -> Batch:
        """The share of `part` (0 … parts − 1) in the batch of `step` (0, 1, …): every parts-th sample of it."""
        if not 0 <= part < self.parts:
            raise ValueError(f"part must be one of 0 … {self.parts - 1}, got {part}")
        return self._batch(self.samples(step)[part :: self.parts])

    def whole(self, step: int) -> Batch:
        """The batch of `step` with the samples of all parts."""
        return self._batch(self.samples(step))

    def samples(self, step: int) -> list[tuple[int, int]]:
        """(number of the chain, draw) of each sample in the batch of `step`."""
        if step < 0:
            raise ValueError(f"step must be an integer ≥ 0, got {step}")
        while self._first_steps[-1] <= step:
            self._first_steps.append(self._first_steps[-1] + len(self._epoch(len(self._first_steps) - 1)))
        epoch = int(np.searchsorted(self._first_steps, step, side="right")) - 1
        return self._epoch(epoch)[step - self._first_steps[epoch]]

    def steps_in(self, epoch: int = 0) -> int:
        """How many batches the epoch has."""
        return len(self._epoch(epoch))

    def _epoch(self, epoch: int) -> list[list[tuple[int, int]]]:
        if self._last[0] != epoch:
            self._last = (epoch, self._cut(epoch))
        return self._last[1]

    def _cut(self, epoch: int) -> list[list[tuple[int, int]]]:
        size = self.parts * math.ceil(len(self.chains) / self.parts)
        drawn = np.resize(stream(self.seed, "epoch", epoch).permutation(len(self.chains)), size)
        lengths = self._lengths[drawn]
        block = self.parts * math.ceil(_BATCHES_A_BLOCK * self.max_samples / self.parts)
        batches: list[list[int]] = []
        for first in range(0, size, block):
            by_length = first + np.argsort(lengths[first : first + block], kind="stable")
            batches += self._greedy(by_length.tolist(), lengths.tolist())
        order = stream(self.seed, "order", epoch).permutation(len(batches))
        return [[(int(drawn[place]), epoch * size + place) for place in batches[i]] for i in order]

    def _greedy(self, places: list[int], lengths: list[int]) -> Iterator[list[int]]:
        batch: list[int] = []
        for first in range(0, len(places), self.parts):
            group = places[first : first + self.parts]
            size, longest = len(batch) + self.parts, lengths[group[-1]]  # sorted: the last one is the longest
            if batch and (size > self.max_samples or size * longest**2 > self.residues_squared):
                yield batch
                batch = []
            batch = batch + group
        yield batch

    def _batch(self, samples: list[tuple[int, int]]) -> Batch:
        return collate([self._sample(chain, draw) for chain, draw in samples], [draw for _, draw in samples])

    def _sample(self, number: int, draw: int) -> Chain:
        chain = self.chains[number]
        spare = len(chain) - self.crop
        if spare <= 0:
            return chain
        return cropped(chain, int(stream(self.seed, "crop", draw).integers(spare + 1)), self.crop)
