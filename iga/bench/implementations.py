"""The registry of timed implementations: name, what it is, how it is run, and why it cannot run on this machine.

An implementation is built for one case (compiled code is made for one size) and maps a `Problem` to (values, points).
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from iga._typing import Tensor
from iga.bench import peers
from iga.bench.problem import CONFIG, Case, Problem
from iga.frame import Frame
from iga.kernels import gaussian_attention, obstacle

__all__ = ["IMPLEMENTATIONS", "OURS", "YARDSTICK", "Forward", "Implementation", "lookup", "step"]

Forward = Callable[[Problem], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Implementation:
    """`build` makes a Forward for a case. `function`: what it computes, "gaussian" or "ipa" (the gate's reference).

    compiles    takes seconds to minutes before its first result: left out of --quick
    backward    where gradients of all inputs exist: device types
    needs       a package that must be installed, if any
    floats      dense memory, in floats a pair-point, at the peak of forward and of backward; 0: linear in N
    most_points by device type: its compiler unrolls the points, and takes minutes beyond this P
    """

    name: str
    what: str
    build: Callable[[Case], Forward]
    function: str = "gaussian"
    compiles: bool = False
    backward: tuple[str, ...] = ("cpu", "cuda")
    needs: str | None = None
    floats: tuple[float, float] = (0.0, 0.0)
    most_points: dict[str, int] = field(default_factory=dict)

    def obstacle(self, device: torch.device) -> str | None:
        """Why it cannot run on this device; None if it can."""
        if self.name in OURS:
            return obstacle(self.name, device, torch.float32, CONFIG)
        if self.needs is not None and importlib.util.find_spec(self.needs) is None:
            return "not installed"
        return None

    def megabytes(self, case: Case) -> float:
        """What the intermediates of size N² · H · P would need at the peak, 0 for linear memory. 10⁶ bytes."""
        return 4e-6 * self.floats[case.backward] * case.pair_points


def _ours(name: str) -> Callable[[Case], Forward]:
    def run(p: Problem) -> tuple[Tensor, Tensor]:
        out = gaussian_attention(
            p.q,
            p.k,
            p.v,
            p.value_points,
            (p.q_mean, p.q_sigma),
            (p.k_mean, p.k_sigma),
            Frame(p.rot, p.trans),
            p.mask,
            geo_scale=p.geo_scale,
            geo_bias=p.geo_bias,
            config=CONFIG,
            implementation=name,
        )
        return out.values, out.points

    return lambda case: run


def _same(forward: Forward) -> Callable[[Case], Forward]:
    """One forward for every case."""
    return lambda case: forward


def _made(build: Callable[..., Forward], *given: str) -> Callable[[Case], Forward]:
    """A forward of its own for each case."""
    return lambda case: build(*given)


OURS = ("fused", "cpu", "reference")
YARDSTICK = "dense"  # what a baseline measures against: plain torch, the same on every machine

# Floats a pair-point that are alive at the peak, (forward, backward): measured at N = 256, H = 8, P = 8.
_DENSE: Any = {"floats": (30.0, 160.0)}
_TEXTBOOK: Any = {"floats": (30.0, 55.0)}
_COMPILED: Any = {"floats": (3.0, 20.0), "compiles": True}
_FORWARD_ONLY: Any = {"compiles": True, "backward": ()}
_FLEX = "FlexAttention, the score as score_mod"
_SDPA = "IPA's geometry through scaled_dot_product_attention"

IMPLEMENTATIONS: dict[str, Implementation] = {
    entry.name: entry
    for entry in (
        Implementation("fused", "iga.kernels: Triton", _ours("fused")),
        Implementation("cpu", "iga.kernels: blocks, threads, linear memory", _ours("cpu")),
        Implementation("reference", "iga.kernels: dense, with statistics", _ours("reference"), **_DENSE),
        Implementation("dense", "closed form by broadcasting, eager", _same(peers.dense), **_DENSE),
        Implementation("textbook", "Σ built and factored, eager", _same(peers.textbook), **_TEXTBOOK),
        Implementation("textbook_compiled", "textbook, torch.compile", _made(peers.compiled, "textbook"), **_COMPILED),
        Implementation("closed_compiled", "dense, torch.compile", _made(peers.compiled, "closed"), **_COMPILED),
        Implementation("flex", _FLEX, _made(peers.flex), most_points={"cpu": 2, "cuda": 16}, **_FORWARD_ONLY),
        Implementation("keops", "KeOps, one reduction", _same(peers.keops), needs="pykeops", **_FORWARD_ONLY),
        Implementation("ipa_sdpa", _SDPA, _same(peers.ipa_sdpa), function="ipa"),
    )
}


def lookup(names: list[str]) -> list[Implementation]:
    """The implementations of these names, in this order, each once. Raises ValueError that lists those known."""
    unknown = [name for name in names if name not in IMPLEMENTATIONS]
    if unknown:
        raise ValueError(f"unknown implementation {unknown[0]!r}; known: {', '.join(IMPLEMENTATIONS)}")
    return [IMPLEMENTATIONS[name] for name in dict.fromkeys(names)]


def step(forward: Forward, problem: Problem, cotangents: tuple[Tensor, Tensor] | None) -> Callable[[], list[Tensor]]:
    """What one repeat runs: forward without a graph, or forward and the gradients of all inputs against `cotangents`.

    Returns outputs, followed by the gradients in the order of `Problem.named`.
    """
    if cotangents is None:

        def forward_only() -> list[Tensor]:
            with torch.no_grad():
                return list(forward(problem))

        return forward_only
    leaves = problem.leaves()
    inputs = list(leaves.named().values())

    def both() -> list[Tensor]:
        outputs = forward(leaves)
        gradients = torch.autograd.grad(outputs, inputs, cotangents, allow_unused=True)
        filled = (torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True))
        return [*(o.detach() for o in outputs), *filled]

    return both
