"""Frames: how they are made, indexed, converted and read from other rigid objects."""

import jaxtyping
import pytest
import torch

from helpers.geometry import each_dtype
from helpers.ipa import openfold_rigid
from iga import rotation
from iga.frame import Frame, rigid_to_frame
from iga.gaussian import GaussianRigid
from iga.testing.strategies import filler


def test_from_7_normalises_the_quaternion():
    vector = torch.tensor([0.0, 0.0, 0.0, -7.0, 1.0, 2.0, 3.0])
    assert (Frame.from_7(vector).rot == torch.diag(torch.tensor([-1.0, -1.0, 1.0]))).all()
    with pytest.raises(ValueError, match="quaternion must be finite and not zero"):
        Frame.from_7(torch.zeros(7))


def test_a_matrix_for_row_vectors_is_refused_with_the_remedy():
    matrix = frames(3).to_4x4()
    with pytest.raises(ValueError, match=r"last row \(0, 0, 0, 1\).*transposed first"):
        Frame.from_4x4(matrix.mT)


def test_unknown_convention_and_unit_are_refused():
    atoms = filler(0, 3, 4, 3).unbind(0)
    with pytest.raises(ValueError, match="convention must be .*, got 'af2'"):
        Frame.from_backbone(*atoms, convention="af2")
    for call in (lambda: Frame.from_backbone(*atoms, unit="pm"), lambda: Frame.identity(2).to_7(unit="pm")):
        with pytest.raises(ValueError, match='unit must be "nm" or "angstrom", got \'pm\''):
            call()


@each_dtype
def test_identity_and_random_have_the_shape_dtype_and_extent_asked_for(dtype):
    identity = Frame.identity(2, 3, dtype=dtype)
    assert identity.shape == (2, 3) and identity.dtype == dtype and identity.device.type == "cpu"
    x = filler(0, 2, 3, 3).to(dtype)
    assert (identity.apply(x) == x).all()
    generator = torch.Generator().manual_seed(1)
    frame = Frame.random(500, generator=generator, extent_nm=8.0, dtype=dtype)
    assert frame.shape == (500,) and frame.dtype == dtype
    assert (frame.trans.abs() <= 4.0).all()
    # All of 1500 coordinates in the inner nine tenths: 0.9^1500.
    assert (frame.trans.abs() > 3.6).any()


def frames(*shape: int, dtype: torch.dtype = torch.float32) -> Frame:
    return Frame.random(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def gaussians(*shape: int, dtype: torch.dtype = torch.float32) -> GaussianRigid:
    return GaussianRigid(frames(*shape, dtype=dtype), *filler(0, 2, *shape, 3).to(dtype).unbind(0))


def parts(r: Frame | GaussianRigid) -> list[torch.Tensor]:
    return [r.rot, r.trans] if isinstance(r, Frame) else [r.rot, r.trans, r.local_mean, r.log_scale, r.mean, r.sigma]


each_kind = pytest.mark.parametrize("made", [frames, gaussians])


@each_kind
@pytest.mark.parametrize(
    "index",
    [0, slice(1, None), (slice(None), 2), (..., None), None, [1, 0], (..., 0), torch.tensor([[True, False, True]] * 2)],
    ids=str,
)
def test_an_index_addresses_the_leading_dimensions_of_all_parts_alike(made, index):
    r, rows = made(2, 3), torch.arange(6).reshape(2, 3)[index]
    assert r[index].shape == rows.shape
    for picked, whole in zip(parts(r[index]), parts(r), strict=True):
        assert torch.equal(picked, whole.flatten(0, 1)[rows])
    with pytest.raises(IndexError):
        r[0, 0, 0]


@each_kind
def test_conversion_keeps_values_and_refuses_half_precision(made):
    r = made(2, 3)
    for double in (r.to(torch.float64), r.to(dtype=torch.float64)):
        assert double.dtype == torch.float64 and double.device == r.device
        for a, b in zip(parts(double)[:4], parts(r)[:4], strict=True):
            assert a.dtype == torch.float64 and torch.equal(a, b.double())
    assert torch.equal(r.to("cpu").rot, r.rot)
    for half in (torch.float16, torch.bfloat16):
        with pytest.raises(ValueError, match=r"must be float32 or float64.*\.float\(\)"):
            r.to(half)


@each_dtype
def test_gaussians_speak_the_verbs_of_their_frames(dtype):
    g, x = gaussians(5, dtype=dtype), filler(9, 5, 3).to(dtype)
    assert g.get_rots().get_rot_mats() is g.frame.rot and g.get_trans() is g.frame.trans
    for verb in ("apply", "invert_apply"):
        assert torch.equal(getattr(g, verb)(x), getattr(g.frame, verb)(x))
    for verb in ("to_tensor_7", "to_tensor_4x4"):
        assert torch.equal(getattr(g, verb)(), getattr(g.frame, verb)())


@each_dtype
def test_rigid_to_frame_reads_frames_gaussians_and_openfold_objects(dtype):
    frame = frames(4, dtype=dtype)
    assert rigid_to_frame(frame) is frame
    zeros = torch.zeros(4, 3, dtype=dtype)
    assert rigid_to_frame(GaussianRigid(frame, zeros, zeros)) is frame
    read = rigid_to_frame(openfold_rigid(frame.rot, frame.trans))
    assert read.rot is frame.rot and read.trans is frame.trans
    # and Frame speaks the same verbs
    back = rigid_to_frame(openfold_rigid(frame.get_rots().get_rot_mats(), frame.get_trans()))
    assert back.rot is frame.rot and back.trans is frame.trans
    assert (frame.get_rots().get_quats() == frame.to_tensor_7()[..., :4]).all()


def test_rigid_to_frame_refuses_anything_else_with_the_remedy():
    with pytest.raises(TypeError, match=r"got Tensor; build one with Frame\(rot, trans\)"):
        rigid_to_frame(torch.eye(4))


def test_frames_that_do_not_fit_together_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    eye = torch.eye(3).expand(4, 3, 3)
    with pytest.raises(ValueError, match=r"same leading dimensions, got \[4, 3, 3\] and \[5, 3\]"):
        Frame(eye, torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"must have one shape .*got \[4, 3\], \[4, 3\] and \[1, 3\]"):
        Frame.from_backbone(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(1, 3))


def test_frames_compare_by_identity_because_tensors_do_not_compare_to_one_truth():
    frame = Frame.identity(2)
    other = Frame(frame.rot, frame.trans)
    assert frame == frame and frame != other and len({frame, other}) == 2


def test_the_device_asked_for_is_the_device_of_every_part():
    frame = Frame.identity(4, device="meta")
    assert frame.rot.device.type == frame.trans.device.type == frame.device.type == "meta"
    assert frame.to("meta").trans.device.type == "meta" and Frame.identity(4).device.type == "cpu"
    g = GaussianRigid(Frame.identity(4), torch.zeros(4, 3), torch.zeros(4, 3)).to("meta")
    assert g.device.type == g.local_mean.device.type == g.log_scale.device.type == "meta"


def test_a_random_frame_is_drawn_from_its_generator_alone_within_four_nanometres():
    def draw(seed: int) -> Frame:
        torch.manual_seed(seed)  # what the process would draw from otherwise
        return Frame.random(2000, generator=torch.Generator().manual_seed(1))

    first, again = draw(0), draw(2)
    assert torch.equal(first.rot, again.rot) and torch.equal(first.trans, again.trans)
    # Of 6000 coordinates uniform in ±2 nm, all within nine tenths of that: 0.9^6000.
    assert (first.trans.abs() <= 2.0).all() and first.trans.max() > 1.8 and first.trans.min() < -1.8
    assert Frame.random(dtype=torch.float64).trans.shape == (3,)


def test_random_draws_go_to_the_device_asked_for_or_the_generators_not_to_the_default_one():
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        drawn = [rotation.random(3, device="cpu"), rotation.random(3, generator=generator)]
        frames = [Frame.random(3, device="cpu"), Frame.random(3, generator=generator)]
    assert {x.device.type for x in drawn + [y for f in frames for y in (f.rot, f.trans)]} == {"cpu"}
