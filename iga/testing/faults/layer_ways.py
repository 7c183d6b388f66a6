"""Slips of layers in how they are called: modes, and gradients asked of some inputs, or of many residues."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from iga._typing import Tensor
from iga.testing.faults.accused import layer_slips
from iga.testing.faults.fault import Fault
from iga.testing.faults.layer_sizes import rigid_of
from iga.testing.faults.slips import (
    Passed,
    graded,
    kept_where,
    plain,
    recording,
)
from iga.testing.layer.subject import Subject

__all__ = ["FAULTS", "scaled", "steeper"]


def _tensors(s: Any, z: Any, r: Any) -> tuple[Any, ...]:
    return s, z, r.rot, r.trans, r.local_mean, r.log_scale


def scaled(when: Callable[..., bool]) -> Callable[..., Tensor]:
    """In a mode of its own the output is a tenth too large; when(layer, s, z, r, mask)."""

    def wrong(call: Any, layer: Any, *inputs: Any) -> Tensor:
        output = call(*inputs)
        return output + 0.1 * output.detach() if when(layer, *inputs) else output

    return wrong


def steeper(when: Callable[..., bool]) -> Callable[..., Tensor]:
    """In a mode of its own the gradient is half of what it is; values are right."""

    def wrong(call: Any, layer: Any, *inputs: Any) -> Tensor:
        output = call(*inputs)
        return graded(output, 0.5) if when(layer, *inputs) else output

    return wrong


def _recorded(layer: nn.Module, s: Any, z: Any, r: Any, mask: Any) -> bool:
    return recording(*_tensors(s, z, r), *layer.parameters())


MODES = layer_slips(
    "modes",
    [
        ("the output is a tenth larger in train()", "train()", scaled(lambda layer, *_: layer.training)),
        ("the output is a tenth larger while gradients are recorded", "training", scaled(_recorded), "mask_inertness"),
        (
            "the output is a tenth larger where no gradient is recorded",
            "grad mode off",
            scaled(lambda *_: not torch.is_grad_enabled() and not torch.is_inference_mode_enabled()),
            "mask_inertness",
        ),
        (
            "the output is a tenth larger under inference_mode",
            "inference_mode",
            scaled(lambda *_: torch.is_inference_mode_enabled()),
        ),
        (
            "frozen parameters: the output is a tenth larger",
            "all parameters frozen, grad mode",
            scaled(lambda layer, *_: torch.is_grad_enabled() and not any(p.requires_grad for p in layer.parameters())),
        ),
        (
            "the output is a tenth larger under deterministic algorithms",
            "torch.use_deterministic_algorithms(True)",
            scaled(lambda *_: torch.are_deterministic_algorithms_enabled()),
        ),
        (
            "a constant is made on the default device",
            "with torch.device(…)",
            lambda call, layer, s, *rest: call(s, *rest) + torch.zeros(1, dtype=s.dtype),
        ),
        (
            "the output has the default dtype",
            "set_default_dtype(float64)",
            lambda call, layer, *inputs: (lambda x: x.to(torch.get_default_dtype()) if x.dtype == torch.float32 else x)(
                call(*inputs)
            ),
        ),
    ],
)


# --- gradients --------------------------------------------------------------------------------------------------


def _held(when: Callable[..., bool]) -> Callable[..., Tensor]:
    """No gradient comes back to the inputs."""

    def wrong(call: Any, layer: Any, s: Any, z: Any, r: Any, mask: Any) -> Tensor:
        if not when(layer, s, z, r, mask):
            return call(s, z, r, mask)
        return call(s.detach(), z if z is None else z.detach(), rigid_of(r, lambda x: x.detach()), mask)

    return wrong


def _lost(when: Callable[..., bool]) -> Callable[..., Tensor]:
    """No gradient comes back at all, to inputs or parameters."""

    def wrong(call: Any, layer: Any, *inputs: Any) -> Tensor:
        output = call(*inputs)
        return output.detach() if when(layer, *inputs) else output

    return wrong


def _only(number: int) -> Callable[..., bool]:
    """Whether of (s, z, r) only the numbered one requires a gradient."""

    def asked(layer: Any, s: Any, z: Any, r: Any, mask: Any) -> bool:
        wanted = (recording(s), recording(z), recording(*_tensors(None, None, r)))
        return wanted == tuple(k == number for k in range(3))

    return asked


def _still_inputs(layer: Any, s: Any, z: Any, r: Any, mask: Any) -> bool:
    return torch.is_grad_enabled() and not recording(*_tensors(s, z, r))


def _residues(keep: Callable[[Tensor, int], Tensor], *, frames: bool) -> Callable[..., Tensor]:
    """Only the kept residues' s, or frames, get a gradient."""

    def wrong(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
        n, d = s.shape[-2], s.ndim - 2
        here = keep(torch.arange(n, device=s.device), n)

        def held(x: Tensor) -> Tensor:
            return kept_where(x, here.view(n, *(1,) * (x.ndim - d - 1)))

        return call(s if frames else held(s), z, rigid_of(r, held) if frames else r, mask)

    return wrong


def _ruled(rule: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """The gradient of the output goes through a rule."""

    def wrong(call: Any, layer: Any, s: Tensor, *rest: Any) -> Tensor:
        output = call(s, *rest)
        return Passed.apply(output, rule) if plain(s) and recording(output) else output  # pyright: ignore[reportReturnType]

    return wrong


def _over_the_batch(call: Any, layer: Any, s: Tensor, *rest: Any) -> Tensor:
    output = call(s, *rest)
    return graded(output, 1 / s.shape[0]) if s.ndim == 3 and s.shape[0] > 1 else output


GRADIENTS = layer_slips(
    "gradients",
    [
        (
            "frozen parameters: no gradient to the inputs",
            "all parameters frozen",
            _held(lambda layer, *_: torch.is_grad_enabled() and not any(p.requires_grad for p in layer.parameters())),
        ),
        ("inputs that need none: no gradient to the parameters", "no input requires one", _lost(_still_inputs)),
        ("s alone gets no gradient", "only s requires one", _held(_only(0))),
        ("z alone gets no gradient", "only z requires one", _held(_only(1))),
        ("frames alone get no gradient", "only the rigid requires one", _held(_only(2))),
        (
            "frames' gradient of the last block of sixteen only",
            "N > 16",
            _residues(lambda i, n: i >= (n - 1) // 16 * 16, frames=True),
            "large_sizes",
        ),
        (
            "s has no gradient from the 129th residue on",
            "N > 128",
            _residues(lambda i, n: i < 128, frames=False),
        ),
        (
            "frames have no gradient from the 129th residue on",
            "N > 128",
            _residues(lambda i, n: i < 128, frames=True),
        ),
        (
            "frames' gradient of the first hundred residues only, where they are odd",
            "N > 100, odd",
            _residues(lambda i, n: (i < 100) | (n % 2 == 0), frames=True),
        ),
        ("the gradient is divided by the batch", "batch > 1", _over_the_batch),
        (
            "the gradient is clipped to one",
            "|gradient| > 1",
            _ruled(lambda g: g.clamp(-1.0, 1.0)),
        ),
        ("the gradient is rounded to bf16", "float32 and float64", _ruled(lambda g: g.bfloat16().to(g.dtype))),
        ("train(): the gradient is half", "train()", steeper(lambda layer, *_: layer.training)),
        ("the output's gradient has no gradient", "double backward", _ruled(Tensor.detach), "second_derivatives"),
    ],
)


def _of_float32_alone(fault: Fault) -> Fault:
    """The same of a layer that claims float32 alone, so that no check can ask for more."""

    def plant(clean: Subject, size: float) -> Subject:
        return replace(fault.plant(clean, size), dtypes=(torch.float32,))

    return replace(fault, name=f"float32 alone: {fault.name}", plant=plant)


FAULTS: tuple[Fault, ...] = (*MODES, *GRADIENTS, _of_float32_alone(GRADIENTS[-1]))
