"""Verbs of OpenFold's Rigid that public structure modules call, upon frames and Gaussians.

Found with OpenFold, se3_diffusion and FrameFlow run upon this package's classes: missing verbs, half precision refused
where Rigid promotes it, and results whose `.view` failed. The judge is NumPy in float64, from the formulas.
"""

import numpy as np
import pytest
import torch

from iga import Frame, GaussianRigid, rotation
from iga.frame import rigid_to_frame

pytestmark = pytest.mark.usefixtures("without_shape_checks")

EPS = 2.0**-23
HALVES = [torch.float16, torch.bfloat16]


def frames(*shape: int, seed: int = 0) -> Frame:
    generator = torch.Generator().manual_seed(seed)
    return Frame(rotation.random(*shape, generator=generator), torch.randn(*shape, 3, generator=generator))


def gaussians(*shape: int, seed: int = 0) -> GaussianRigid:
    x = torch.randn(2, *shape, 3, generator=torch.Generator().manual_seed(seed + 1))
    return GaussianRigid(frames(*shape, seed=seed), x[0], x[1])


KINDS = pytest.mark.parametrize("make", [frames, gaussians])


def parts(r: Frame | GaussianRigid) -> list[torch.Tensor]:
    own = [r.local_mean, r.log_scale] if isinstance(r, GaussianRigid) else []
    return [r.rot, r.trans, *own]


def matrices(quaternion: np.ndarray) -> np.ndarray:
    """R(q) of unit quaternions (w, x, y, z): the sandwich q (0, v) q* written out."""
    w, x, y, z = np.moveaxis(quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True), -1, 0)
    rows = [
        [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


@KINDS
def test_rigid_objects_are_joined_and_shaped_like_tensors(make) -> None:
    a, b = make(2, 5, seed=1), make(2, 5, seed=2)
    expected = {
        "cat": (type(a).cat([a, b], dim=-1), lambda x, y: torch.cat([x, y], dim=1)),
        "cat first": (type(a).cat([a, b], 0), lambda x, y: torch.cat([x, y], dim=0)),
        "stack": (type(a).stack([a, b]), lambda x, y: torch.stack([x, y])),
        "stack last": (type(a).stack([a, b], dim=-1), lambda x, y: torch.stack([x, y], dim=2)),
        "unsqueeze": (a.unsqueeze(-1), lambda x, y: x[:, :, None]),
        "unsqueeze first": (a.unsqueeze(0), lambda x, y: x[None]),
        "reshape": (a.reshape(10), lambda x, y: x.reshape(10, *x.shape[2:])),
        "reshape of a shape": (a.reshape((5, 2)), lambda x, y: x.reshape(5, 2, *x.shape[2:])),
        "expand": (a[0][None].expand(4, -1), lambda x, y: x[:1].expand(4, *x.shape[1:])),
        "sum over a dimension": (a.map_tensor_fn(lambda t: t.sum(dim=-1)), lambda x, y: x.sum(dim=1)),
    }
    for name, (result, same) in expected.items():
        for mine, x, y in zip(parts(result), parts(a), parts(b), strict=True):
            assert torch.equal(mine, same(x, y)), name
    assert type(a).cat([a, b], dim=-1).shape == (2, 10) and len(list(a)) == 2
    with pytest.raises(ValueError, match="ts must be a list of"):
        type(a).cat([a, torch.zeros(2, 5, 3)], dim=0)
    with pytest.raises(ValueError, match="empty"):
        type(a).stack([])


@KINDS
def test_a_mask_times_a_rigid_object_zeroes_what_is_masked(make) -> None:
    a, mask = make(2, 5), torch.tensor([1.0, 0, 1, 1, 0])
    for product in (a * mask, mask * a, a * mask.bool()):
        for mine, x in zip(parts(product), parts(a), strict=True):
            assert mine.dtype == torch.float32 and (mine[:, [1, 4]] == 0).all()
            assert torch.equal(mine[:, [0, 2, 3]], x[:, [0, 2, 3]])
    with pytest.raises(TypeError):
        a * 2.0


@KINDS
@pytest.mark.parametrize("masked", [False, True])
def test_an_update_is_algorithm_23(make, masked: bool) -> None:
    a = make(2, 5)
    update = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(3))
    mask = torch.tensor([1.0, 0, 1, 1, 0]).expand(2, 5)[..., None] if masked else None
    moved = a.compose_q_update_vec(update, mask) if masked else a.compose_q_update_vec(update)
    u = update.double().numpy() * (1.0 if mask is None else mask.numpy())
    turn = matrices(np.concatenate([np.ones((2, 5, 1)), u[..., :3]], axis=-1))
    rot, trans = a.rot.double().numpy(), a.trans.double().numpy()
    expected = np.einsum("...ij,...jk->...ik", rot, turn), trans + np.einsum("...ij,...j->...i", rot, u[..., 3:])
    # A product of 3 × 3 entries under 1, each entry of the update rounded under ten times; the shift is as long as u.
    size = 1 + np.abs(u[..., 3:]).sum(axis=-1, keepdims=True) + np.abs(trans)
    assert np.abs(moved.rot.double().numpy() - expected[0]).max() <= 32 * EPS
    assert (np.abs(moved.trans.double().numpy() - expected[1]) <= 8 * EPS * size).all()
    if isinstance(a, GaussianRigid):
        assert torch.equal(moved.local_mean, a.local_mean) and torch.equal(moved.log_scale, a.log_scale)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
def test_an_update_of_any_size_is_a_rotation_with_a_finite_gradient(size: float) -> None:
    vector = torch.tensor([[size, -size, 0.5 * size, 0, 0, 0]], requires_grad=True)
    moved = frames(1).compose_q_update_vec(vector)
    rot = moved.rot.double()
    assert (rot.mT @ rot - torch.eye(3)).abs().max() <= 32 * EPS
    moved.rot.sum().backward()
    assert vector.grad is not None and vector.grad.isfinite().all()


@KINDS
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_meets_float32_geometry_and_becomes_float32(make, dtype: torch.dtype) -> None:
    a, x = make(5), torch.randn(5, 3, generator=torch.Generator().manual_seed(7)).to(dtype)
    for name in ("apply", "invert_apply"):
        assert getattr(a, name)(x).dtype == torch.float32
        assert torch.equal(getattr(a, name)(x), getattr(a, name)(x.float())), name
        assert torch.equal(getattr(a.get_rots(), name)(x), getattr(a.get_rots(), name)(x.float())), name
    short = [p.to(dtype) for p in parts(a)]
    made = type(a)._made(*short)
    assert all(torch.equal(p, q.float()) and p.dtype == torch.float32 for p, q in zip(parts(made), short, strict=True))
    identity = type(a).identity((2, 3), dtype, None, True, fmt="quat")
    assert identity.dtype == torch.float32 and identity.shape == (2, 3) and identity.requires_grad
    update = torch.zeros(5, 6, dtype=dtype)
    assert a.compose_q_update_vec(update).dtype == torch.float32
    seven = type(a).from_tensor_7(a.to_tensor_7().to(dtype))
    assert seven.dtype == type(a).from_tensor_4x4(a.to_tensor_4x4().to(dtype)).dtype == torch.float32


def test_a_float64_frame_lifts_half_precision_to_float64() -> None:
    frame = frames(4).double()
    assert Frame(frame.rot, frame.trans.bfloat16()).dtype == torch.float64
    assert frame.apply(torch.zeros(4, 3, dtype=torch.float16)).dtype == torch.float64


@KINDS
def test_results_are_contiguous_so_that_view_works(make) -> None:
    a, x = make(4, 6), torch.randn(6, 4, 3).transpose(0, 1)
    turned = a[0][:, None].expand(-1, 3)
    results = {
        "invert": a.invert().rot,
        "invert, trans": a.invert().trans,
        "apply": a.apply(x),
        "invert_apply": a.invert_apply(x),
        "compose": a.compose(a).rot,
        "get_rot_mats": turned.get_rots().get_rot_mats(),
        "get_quats": turned.get_rots().get_quats(),
        "get_trans": turned.get_trans(),
        "rots.invert": a.get_rots().invert().rot,
        "rots.apply": a.get_rots().apply(x),
        "update": a.compose_q_update_vec(torch.zeros(4, 6, 6)).rot,
        "identity": type(a).identity(4, 6).rot,
        "to_tensor_7": turned.to_tensor_7(),
        "to_tensor_4x4": turned.to_tensor_4x4(),
        "from_tensor_4x4": type(a).from_tensor_4x4(a.to_tensor_4x4()).rot,
        "from_tensor_4x4, trans": type(a).from_tensor_4x4(a.to_tensor_4x4()).trans,
        "from_tensor_7": type(a).from_tensor_7(a.to_tensor_7()).trans,
        "scale_translation": a.scale_translation(0.1).trans,
    }
    assert {name for name, x in results.items() if not x.is_contiguous()} == set()


@KINDS
def test_gradients_stop_where_they_are_told_to(make) -> None:
    a = make(3)
    leaf = type(a)._made(*(x.clone().requires_grad_() for x in parts(a)))
    stopped = leaf.stop_rot_gradient()
    assert not stopped.rot.requires_grad and stopped.trans.requires_grad and stopped.requires_grad
    assert not leaf.detach().requires_grad and torch.equal(leaf.detach().rot, a.rot)


@KINDS
def test_parts_are_replaced_one_at_a_time(make) -> None:
    a = make(3)
    assert torch.equal(a.apply_trans_fn(lambda t: 10 * t).trans, 10 * a.trans)
    assert torch.equal(a.apply_rot_fn(lambda r: r.invert()).rot, a.rot.mT)
    assert torch.equal(a.to("cpu").rot, a.cpu().rot) and a.double().dtype == torch.float64
    frame = a.compose(frames(3, seed=9))
    assert torch.equal(rigid_to_frame(frame).rot, rotation.compose(a.rot, frames(3, seed=9).rot))


def test_rotations_speak_the_verbs_of_openfolds_rotation() -> None:
    rots, other = frames(4).get_rots(), frames(4, seed=5).get_rots()
    product = np.einsum("...ij,...jk->...ik", rots.rot.double().numpy(), other.rot.double().numpy())
    for composed in (rots.compose_r(other), rots.compose_q(other)):
        assert np.abs(composed.get_rot_mats().double().numpy() - product).max() <= 8 * EPS
    assert np.abs(matrices(rots.get_quats().double().numpy()) - rots.rot.double().numpy()).max() <= 32 * EPS
    assert (rots.get_rotvec().norm(dim=-1) <= np.pi * (1 + 4 * EPS)).all()
    assert torch.equal(rots.unsqueeze(-1).rot, rots.rot[:, None]) and rots.shape == (4,)
    assert torch.equal(type(rots).cat([rots, other], dim=-1).rot, torch.cat([rots.rot, other.rot]))
    assert torch.equal(rots[1:3].get_cur_rot(), rots.rot[1:3]) and rots.device.type == "cpu"
    assert (rots * torch.zeros(4)).rot.count_nonzero() == 0 and not rots.detach().requires_grad
    assert torch.equal(rots.map_tensor_fn(lambda t: 2 * t).rot, 2 * rots.rot)
    # Rigid(rots, trans) of OpenFold's code
    assert torch.equal(Frame(rots, torch.zeros(4, 3)).rot, rots.rot)  # type: ignore[arg-type]


def test_a_dtype_too_short_for_geometry_is_not_what_a_rigid_object_is_moved_to() -> None:
    for make in (frames, gaussians):
        with pytest.raises(ValueError, match=r"dtype must be float32 or float64, got torch.bfloat16.*\.to\(device\)"):
            make(3).to(torch.bfloat16)
