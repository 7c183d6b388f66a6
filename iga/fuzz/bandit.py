"""The choice of the engine that has the next round: mostly the one that lately got furthest, each now and then.

Rule: first each engine twice; then with probability `EVEN` any of them alike, else the one of the largest gain, a mean
of its rounds that forgets by `FORGET` a round. A round's gain is the number of sides first taken, of checks whose
worst value rose by a tenth, a tenth of the cells first met, and five for each candidate. An
engine's round costs about what another's does, or less: nothing is measured in seconds, and the same seed gives the
same choices.
"""

from dataclasses import dataclass, field

import torch

__all__ = ["EVEN", "FORGET", "Bandit"]

EVEN = 0.4
FORGET = 0.8


@dataclass
class Bandit:
    """rounds and gain of each engine."""

    engines: tuple[str, ...]
    rounds: dict[str, int] = field(default_factory=dict)
    gain: dict[str, float] = field(default_factory=dict)

    def choose(self, generator: torch.Generator) -> str:
        for engine in self.engines:
            if self.rounds.get(engine, 0) < 2:
                return engine
        if float(torch.rand((), generator=generator)) < EVEN:
            return self.engines[int(torch.randint(0, len(self.engines), (), generator=generator))]
        return max(self.engines, key=lambda engine: self.gain.get(engine, 0.0))

    def reward(self, engine: str, gain: float) -> None:
        known = self.gain.get(engine, 0.0)
        self.gain[engine] = gain if engine not in self.gain else FORGET * known + (1 - FORGET) * gain
        self.rounds[engine] = self.rounds.get(engine, 0) + 1
