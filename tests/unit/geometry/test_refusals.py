"""Every public boundary of the geometry refuses what it must, by the argument's name, and only that.

Each function is called three times an argument: as it should be, with a dtype that is too short, and with a shape that
does not fit. The checks of jaxtyping are off here, so that what is examined is what users get.
"""

from collections.abc import Callable
from functools import partial

import jaxtyping
import pytest
import torch

from iga import rotation
from iga._backbone import check_trans_unit, check_unit
from iga.frame import Frame
from iga.gaussian import GaussianRigid, floored_sigma

EYE = torch.eye(3).expand(4, 3, 3)
ROWS = torch.arange(12.0).reshape(4, 3)
FRAME = Frame(EYE, ROWS)
GAUSSIAN = GaussianRigid(FRAME, ROWS, -ROWS)
ATOMS = {"n": torch.tensor([0.0, 0.14, 0.0]), "ca": torch.zeros(3), "c": torch.tensor([0.15, 0.0, 0.0])}
CHAIN = {name: atom + 0.38 * torch.arange(4.0)[:, None] for name, atom in ATOMS.items()}
QUATERNIONS = torch.tensor([1.0, 0, 0, 0]).expand(4, 4)
SEVEN = torch.cat([QUATERNIONS, ROWS], dim=-1)


def corners(**atoms: torch.Tensor) -> Frame:
    """`from_3_points` under the names of its message, which are those of the atoms."""
    return Frame.from_3_points(atoms["n"], atoms["ca"], atoms["c"])


# function, its good arguments, and the trailing dimensions of those that it checks
Boundary = tuple[Callable, dict[str, torch.Tensor], dict[str, tuple[int, ...]]]
VECTORS = {"n": (3,), "ca": (3,), "c": (3,)}
BOUNDARIES: dict[str, Boundary] = {
    "exp": (rotation.exp, {"rotvec": ROWS}, {"rotvec": (3,)}),
    "log": (rotation.log, {"rot": EYE}, {"rot": (3, 3)}),
    "to_quaternion": (rotation.to_quaternion, {"rot": EYE}, {"rot": (3, 3)}),
    "from_quaternion": (rotation.from_quaternion, {"quaternion": QUATERNIONS}, {"quaternion": (4,)}),
    "geodesic_distance": (rotation.geodesic_distance, {"a": EYE, "b": EYE}, {"a": (3, 3), "b": (3, 3)}),
    "gram_schmidt": (
        rotation.gram_schmidt,
        {"x_axis": ROWS, "xy_plane": ROWS.flip(0)},
        {"x_axis": (3,), "xy_plane": (3,)},
    ),
    "Frame": (Frame, {"rot": EYE, "trans": ROWS}, {"rot": (3, 3), "trans": (3,)}),
    "Frame.apply": (FRAME.apply, {"x": ROWS}, {"x": (3,)}),
    "Frame.invert_apply": (FRAME.invert_apply, {"x": ROWS}, {"x": (3,)}),
    "Frame.from_4x4": (Frame.from_4x4, {"matrix": FRAME.to_4x4()}, {"matrix": (4, 4)}),
    "Frame.from_7": (Frame.from_7, {"vector": SEVEN}, {"vector": (7,)}),
    "Frame.from_backbone": (Frame.from_backbone, CHAIN, VECTORS),
    "Frame.from_3_points": (corners, CHAIN, VECTORS),
    "check_unit": (check_unit, CHAIN, VECTORS),
    "check_trans_unit": (check_trans_unit, {"trans": ROWS}, {"trans": (3,)}),
    "GaussianRigid": (
        partial(GaussianRigid, FRAME),
        {"local_mean": ROWS, "log_scale": ROWS},
        {"local_mean": (3,), "log_scale": (3,)},
    ),
    "GaussianRigid.perturbed": (GAUSSIAN.perturbed, {"u": ROWS, "d": ROWS}, {"u": (3,), "d": (3,)}),
}

CASES = [(name, argument) for name, (_, _, checked) in BOUNDARIES.items() for argument in checked]
# Rigid objects promote half precision, as OpenFold's Rigid does.
PROMOTED = {"Frame", "Frame.apply", "Frame.invert_apply", "Frame.from_4x4", "Frame.from_7", "GaussianRigid"}


@pytest.fixture(autouse=True)
def no_annotations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize("name", BOUNDARIES)
def test_good_arguments_are_taken(name):
    function, good, _ = BOUNDARIES[name]
    function(**good)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_short_dtype_is_promoted_by_rigid_objects_and_else_refused_by_the_arguments_name(name, argument, dtype):
    function, good, _ = BOUNDARIES[name]
    bad = good | {argument: good[argument].to(dtype)}
    if name in PROMOTED and dtype.is_floating_point:
        assert function(**bad).dtype == torch.float32
        return
    with pytest.raises(ValueError, match=rf"^{argument} must be float32 or float64, got {dtype}: .*\.float\(\)"):
        function(**bad)


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_shape_that_does_not_fit_is_refused_with_the_one_that_would(name, argument):
    function, good, checked = BOUNDARIES[name]
    trailing = checked[argument]
    wanted = ", ".join(map(str, trailing))
    value = good[argument]
    # the last dimension, the one before it where it counts, too few dimensions, none at all
    wrong = [value[..., :-1], value[(0,) * (value.ndim - len(trailing) + 1)], torch.tensor(1.0)]
    if len(trailing) == 2:
        wrong.append(value[..., :-1, :])
    for x in wrong:
        shape = ", ".join(map(str, x.shape))
        with pytest.raises(ValueError, match=rf"^{argument} must be \[\.\.\., {wanted}\], got \[{shape}\]; put space"):
            function(**(good | {argument: x}))


@pytest.mark.parametrize("argument", ["local_mean", "log_scale"])
def test_a_gaussians_parts_have_one_dtype_and_one_vector_a_frame(argument):
    good = {"local_mean": ROWS, "log_scale": ROWS}
    with pytest.raises(ValueError, match=rf"^{argument} must have the dtype and device of frame, torch.float32 on cpu"):
        GaussianRigid(FRAME, **(good | {argument: ROWS.double()}))
    with pytest.raises(ValueError, match=rf"^{argument} must be \[4, 3\], one vector per frame, got \[3, 3\]"):
        GaussianRigid(FRAME, **(good | {argument: ROWS[:3]}))


@pytest.mark.parametrize("argument", ["u", "d"])
def test_a_perturbation_has_the_gaussians_dtype_and_residues(argument):
    good = {"u": torch.zeros(4, 2, 3), "d": torch.zeros(4, 2, 3)}
    with pytest.raises(
        ValueError, match=rf"^{argument} must have the dtype and device of the Gaussians, torch.float32"
    ):
        GAUSSIAN.perturbed(**(good | {argument: good[argument].double()}))
    for wrong in (torch.zeros(3, 2, 3), torch.zeros(3)):
        shape = ", ".join(map(str, wrong.shape))
        with pytest.raises(ValueError, match=rf"^{argument} must be \[4, \*points, 3\], got \[{shape}\]"):
            GAUSSIAN.perturbed(**(good | {argument: wrong}))


def test_perturbations_have_every_dimension_of_the_gaussians_and_one_shape():
    """A shape [3] begins with the residues' [3] and ends with space's 3, and is neither."""
    with pytest.raises(ValueError, match=r"^u must be \[3, \*points, 3\], got \[3\]"):
        GAUSSIAN[:3].perturbed(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match=r"^u must be \[2, 4, \*points, 3\], got \[4, 2, 3\]"):
        GAUSSIAN[None].expand(2, 4).perturbed(torch.zeros(4, 2, 3), torch.zeros(4, 2, 3))
    with pytest.raises(ValueError, match=r"^u and d must have one shape, got \[4, 3\] and \[4, 1, 3\]"):
        GAUSSIAN.perturbed(torch.zeros(4, 3), torch.zeros(4, 1, 3))


def test_two_devices_are_refused_by_name():
    meta = torch.zeros(4, 3, device="meta")
    with pytest.raises(ValueError, match="^trans must have the dtype and device of rot, torch.float32 on cpu, got"):
        Frame(EYE, meta)
    with pytest.raises(ValueError, match="^x must .* of y, torch.float32 on cpu, got torch.float32 on meta"):
        rotation.check_alike("x", meta, "y", ROWS)
    rotation.check_alike("x", ROWS, "y", EYE)


@pytest.mark.parametrize("owner", [FRAME, GAUSSIAN], ids=["Frame", "GaussianRigid"])
def test_a_scale_is_refused_by_name(owner):
    for c in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="^c must be a finite number > 0"):
            owner.scaled(c)


def test_a_rigid_object_needs_both_verbs():
    class Half:
        def get_trans(self) -> torch.Tensor:
            return ROWS

    from iga.frame import rigid_to_frame

    with pytest.raises(TypeError, match=r"^r must be a Frame.*got Half; build one with Frame\(rot, trans\)"):
        rigid_to_frame(Half())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("floor", ["hard", "smooth"])
def test_a_floor_is_taken_from_the_root_of_the_smallest_normal_number_to_that_of_the_largest(dtype, floor):
    info, log_sigma = torch.finfo(dtype), torch.zeros(3, dtype=dtype)
    least, most = info.tiny**0.5, info.max**0.5
    for good in (least, 1.0, most / 2):
        assert floored_sigma(log_sigma, sigma_min=good, floor=floor).isfinite().all()
    for bad in (least * (1 - 2**-50), most, 0.0, float("nan")):
        with pytest.raises(ValueError, match="^sigma_min must be a positive length in nm whose square fits in torch.f"):
            floored_sigma(log_sigma, sigma_min=bad, floor=floor)
    for bad in (0.03, 0.02, most, float("inf")):
        with pytest.raises(ValueError, match="^sigma_max must be a length in nm above sigma_min = 0.03, or None"):
            floored_sigma(log_sigma, sigma_min=0.03, sigma_max=bad, floor=floor)
    with pytest.raises(ValueError, match='^floor must be "hard" or "smooth", got \'soft\''):
        floored_sigma(log_sigma, sigma_min=0.03, floor="soft")
