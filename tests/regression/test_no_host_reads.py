"""Calls that do not wait for their device: no value is read, no shape depends on one, nothing is copied from the host.

A GPU would stall, and could not capture a graph. The meta device takes the ways of a GPU in every condition on a
device, and has no values: whoever asks for one fails. A mode refuses copies between devices, which meta would let pass.
The fused kernels are not launched; what is around them runs.

Origin: a flow time given as a number was copied from the host, and quaternions and matrices were looked at anywhere.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.layers import LAYERS, SIZES
from iga import rotation
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.kernels.blocks import Inputs, Outputs, attend, attend_backward
from iga.kernels.engine import Geometry, Score
from iga.kernels.masking import neutral
from iga.kernels.triton import engine as fused
from iga.presets import preset

N = 7
META = torch.device("meta")


class NoCopies(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            given = args[1] if func is torch.ops.aten.copy_.default else args[0]
            assert given.device == found.device, f"a copy from {given.device} to {found.device}"
        return found


def on_meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device=META)


def gaussians() -> GaussianRigid:
    return GaussianRigid(Frame(on_meta(2, N, 3, 3), on_meta(2, N, 3)), on_meta(2, N, 3), on_meta(2, N, 3))


def layer(kind: str) -> nn.Module:
    if kind == "IPA":
        return LAYERS["IPA"](**SIZES)
    return LAYERS["IGA"](**SIZES, config=preset("bounded", time_gate=2.0) if kind == "gated" else kind)


@pytest.mark.parametrize("kind", ["bounded", "pre_fix", "IPA"])
def test_layers_run_forward_and_backward(kind: str) -> None:
    with META:
        made = layer(kind)
    for z, mask in ((on_meta(2, N, N, SIZES["c_z"]), torch.float32), (None, torch.bool)):
        s = on_meta(2, N, SIZES["c_s"]).requires_grad_()
        made.zero_grad()
        with NoCopies():
            made(s, z, gaussians(), on_meta(2, N, dtype=mask)).sum().backward()
            made.with_statistics(s, z, gaussians(), on_meta(2, N, dtype=mask))[0].sum().backward()
        assert all(p.grad is not None for p in made.parameters()) and s.grad is not None


@pytest.mark.parametrize("kind", ["bounded", "IPA"])
def test_layers_are_made_and_run_without_values(kind: str) -> None:
    """Under FakeTensorMode, as what estimates memory and work does; seen to fail where initial weights are drawn."""
    with FakeTensorMode():
        made = layer(kind)
        r = GaussianRigid(Frame(torch.empty(2, N, 3, 3), torch.empty(2, N, 3)), *torch.empty(2, 2, N, 3))
        s, z = torch.empty(2, N, SIZES["c_s"]), torch.empty(2, N, N, SIZES["c_z"])
        output = made(s, z, r, torch.empty(2, N, dtype=torch.bool))
        output.sum().backward()
    assert output.shape == s.shape and all(p.grad is not None for p in made.parameters())


def test_a_flow_time_is_no_copy_from_the_host_and_a_number_out_of_range_is_told_on_every_device() -> None:
    with META:
        made = layer("gated")
    given = (on_meta(2, N, SIZES["c_s"]), None, gaussians(), on_meta(2, N))
    for t in (0.5, on_meta(2)):
        with NoCopies():
            made(*given, t=t)
    for t in (1.5, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"t must be a number in \[0, 1\]"):
            made(*given, t=t)


VERBS: dict[str, Callable[[], Any]] = {
    "from_quaternion": lambda: rotation.from_quaternion(on_meta(N, 4)),
    "to_quaternion": lambda: rotation.to_quaternion(on_meta(N, 3, 3)),
    "exp": lambda: rotation.exp(on_meta(N, 3)),
    "log": lambda: rotation.log(on_meta(N, 3, 3)),
    "from_4x4": lambda: Frame.from_4x4(on_meta(N, 4, 4)),
    "to_4x4": lambda: gaussians().frame.to_4x4(),
    "from_7": lambda: Frame.from_7(on_meta(N, 7)),
    "to_7": lambda: gaussians().frame.to_7(),
    "identity": lambda: Frame.identity(N, device=META),
    "compose": lambda: gaussians().frame.compose(gaussians().frame),
}


def test_frames_and_rotations_run() -> None:
    for call in VERBS.values():
        with NoCopies():
            call()


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("score", [Score("student_t", 4.0, -8.0), Score("gaussian", 1.0, -math.inf)])
def test_what_is_around_the_fused_kernels_runs(score: Score, flash: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[str] = []
    monkeypatch.setattr(fused, "launch", lambda kernel, *args, **options: launched.append(kernel))
    b, h, p = 2, 3, 2
    rot, mask = on_meta(b, N, 3, 3), on_meta(b, N, dtype=torch.bool)
    geometry = Geometry(rot, mask, *(on_meta(b, h, p, N, 3) for _ in range(4)))
    features = tuple(on_meta(b, h, N, width) for width in (4, 4, 4, 6))
    with NoCopies():
        (q, k, v, points), _, geometry = neutral(features, on_meta(b, N, 3), geometry, look=True)
        engine, weight, z = fused.FusedEngine(geometry, score), on_meta(b, h), None if flash else on_meta(b, N, N, 8)
        x = Inputs(q, k, v, points, mask, weight, 50.0, None, z, None if flash else on_meta(h, 8))
        if flash:
            out = fused.flash_forward(x, geometry, score, statistics=True)
        else:
            out = attend(engine, x, statistics=True)
        grad = Outputs(*(torch.empty_like(y) for y in out))
        found = attend_backward(engine, x, out.lse, grad, want_geometry=True, want_bias=False, want_z=not flash)
    assert launched and found.q.shape == q.shape


READS: tuple[Callable[[Tensor], Any], ...] = (
    lambda x: x.sum().item(),
    lambda x: bool((x > 0).all()),
    lambda x: x.nonzero(),
    lambda x: x[x > 0],
)
COPIES: tuple[Callable[[Tensor], Any], ...] = (
    lambda x: torch.ones(3).to(META),
    lambda x: torch.as_tensor(0.5).to(META),
    lambda x: x.copy_(torch.ones(N)),
)


def test_a_read_or_a_copy_from_the_host_would_be_seen() -> None:
    for read in READS:
        with pytest.raises((RuntimeError, NotImplementedError)), NoCopies():
            read(on_meta(N))
    for copy in COPIES:
        with pytest.raises(AssertionError, match="a copy from cpu to meta"), NoCopies():
            copy(on_meta(N))
