"""`frame_laws`: rotations and frames are what they say, in float32 and float64, each law within a derived budget.

Judged are the functions of a FrameLibrary, by default iga's own; the judge is `rotations` (NumPy, float64) and, for
the exponential, torch.linalg.matrix_exp in float64. A value is a difference over its budget, so every limit is 1.
Budgets are u of the dtype times roundings counted along the longest sum, u the unit roundoff; docs/theory.md, section
12, has the count behind each number. What concerns quaternions, their sign above all, is `quaternion_sign`'s.
"""

from dataclasses import dataclass

import numpy as np
import torch

from iga._typing import Tensor
from iga.frame import Frame
from iga.testing.check import check
from iga.testing.judges.rotations import JUDGE, Turns, matrix, quaternion, skew, turns
from iga.testing.library.frame_slopes import slopes
from iga.testing.library.frames import FRAMES, FrameLibrary
from iga.testing.library.laws import Comparison, judge_laws
from iga.testing.tally import Tally

__all__ = ["FRAMES", "FrameLibrary", "frame_laws"]

EXP, EXP_ANGLE = 50.0, 2.5  # u, and u per radian
MATRIX_EXP = 256.0  # u of float64: a Taylor sum of 26, doubled by each of three squarings, and 5.2 for each of those
LOG = 46.0  # u, times the angle below 1
LOG_OF_EXP = 180.0
DISTANCE, DISTANCE_ANGLE = 11.0, 18.0
QUATERNION = 40.0  # entries of the matrix of a quaternion
MOVED = 14.0  # u: a product of two rotations as given, to the nearest rotation
ORTHOGONAL, DETERMINANT = 70.0, 105.0  # entries that err by 20 u: 2√3 · 20 and √3 · 3 · 20
GRAM_SCHMIDT, GRAM_SCHMIDT_SINE = 33.0, 6.0  # u, and u over the sine
GRAM_SCHMIDT_ORTHOGONAL, GRAM_SCHMIDT_DETERMINANT = 24.0, 42.0


@check("frames", "of the budget")
def frame_laws(frames: FrameLibrary, seed: int, tally: Tally) -> None:
    """Every law below in float32 and float64, on draws from `seed`; each difference over its budget, at most 1."""
    laws = (_products, _actions, _group, _isometry, _exponential, _logarithm, _rotations, _distances, _gram_schmidt)
    judge_laws((*laws, _backbone, _seven, _haar, slopes), frames, seed, tally)


@dataclass(frozen=True)
class _Drawn:
    """Frames of `count` generic turns with origins in a box, as tensors of the dtype and as what these hold."""

    rot: np.ndarray
    trans: np.ndarray
    frame: Frame


def _drawn(rng: np.random.Generator, compare: Comparison, count: int, extent: float = 4.0) -> _Drawn:
    rot = compare.tensor(turns(rng, generic=count).matrix)
    trans = compare.tensor(rng.uniform(-extent, extent, (count, 3)))
    return _Drawn(rot.double().numpy(), trans.double().numpy(), Frame(rot, trans))


def _points(rng: np.random.Generator, compare: Comparison, count: int) -> tuple[Tensor, np.ndarray]:
    x = compare.tensor(rng.uniform(-2.0, 2.0, (count, 3)))
    return x, x.double().numpy()


def _mv(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (a @ x[..., None])[..., 0]


def _t(a: np.ndarray) -> np.ndarray:
    return np.swapaxes(a, -1, -2)


def _products(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """ab, Rx, Rᵀx: three products and two additions, 3u of Σ|a||b|."""
    a, b = _drawn(rng, compare, 12), _drawn(rng, compare, 12)
    x, x64 = _points(rng, compare, 12)
    size, sizes = abs(a.rot), abs(x64)
    compare.near(
        frames.multiply(a.frame.rot, b.frame.rot),
        a.rot @ b.rot,
        compare.budget(3, size @ abs(b.rot), judge=3),
        "multiply",
    )
    compare.near(frames.rotate(a.frame.rot, x), _mv(a.rot, x64), compare.budget(3, _mv(size, sizes), judge=3), "rotate")
    inverse = compare.budget(3, _mv(_t(size), sizes), judge=3)
    compare.near(frames.rotate_inverse(a.frame.rot, x), _mv(_t(a.rot), x64), inverse, "rotate_inverse")


def _actions(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """Rx + t: 4u(|R||x| + |t|). Rᵀ(x − t): 4u|R|ᵀ|x − t|, also 10³ nm from the origin. f∘g and f⁻¹ likewise."""
    f, g = _drawn(rng, compare, 12), _drawn(rng, compare, 12)
    x, x64 = _points(rng, compare, 12)
    size = abs(f.rot)
    moved = compare.budget(4, _mv(size, abs(x64)) + abs(f.trans), judge=4)
    compare.near(frames.apply(f.frame, x), _mv(f.rot, x64) + f.trans, moved, "apply")
    for extent in (4.0, 1000.0):
        far = _drawn(rng, compare, 12, extent)
        there = far.frame.trans + x
        apart = there.double().numpy() - far.trans
        limit = compare.budget(4, _mv(_t(abs(far.rot)), abs(apart)), judge=4)
        compare.near(
            frames.invert_apply(far.frame, there), _mv(_t(far.rot), apart), limit, f"invert_apply at {extent:g} nm"
        )
    both = frames.compose(f.frame, g.frame)
    limit = compare.budget(3, size @ abs(g.rot), judge=3) + compare.budget(MOVED, judge=0)
    compare.near(both.rot, f.rot @ g.rot, limit, "rotation of f∘g")
    limit = compare.budget(4, _mv(size, abs(g.trans)) + abs(f.trans), judge=4)
    compare.near(both.trans, _mv(f.rot, g.trans) + f.trans, limit, "origin of f∘g")
    inverse = frames.invert(f.frame)
    compare.near(inverse.rot, _t(f.rot), compare.budget(3, judge=3), "rotation of the inverse")
    limit = compare.budget(3, _mv(_t(size), abs(f.trans)), judge=3)
    compare.near(inverse.trans, -_mv(_t(f.rot), f.trans), limit, "origin of the inverse")


def _group(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """Identity, inverse, associativity, and f∘g applied as f after g; both sides' own budgets added up."""
    f, g, h = (_drawn(rng, compare, 12) for _ in range(3))
    x, x64 = _points(rng, compare, 12)
    one = frames.identity(12, dtype=compare.dtype)
    for what, found in (("e∘f", frames.compose(one, f.frame)), ("f∘e", frames.compose(f.frame, one))):
        compare.near(found.rot, f.rot, compare.budget(3, judge=0), f"rotation of {what}")
        compare.near(found.trans, f.trans, compare.budget(4, abs(f.trans), judge=0), f"origin of {what}")
    inverse = frames.invert(f.frame)
    round_trip = _mv(abs(f.rot) @ _t(abs(f.rot)), abs(f.trans)) + _mv(_t(abs(f.rot)), abs(f.trans)) + abs(f.trans)
    for what, found in (("f∘f⁻¹", frames.compose(f.frame, inverse)), ("f⁻¹∘f", frames.compose(inverse, f.frame))):
        unit = compare.budget(15 + MOVED, np.ones((12, 3, 3)), judge=3 * JUDGE)
        compare.near(found.rot, np.broadcast_to(np.eye(3), (12, 3, 3)), unit, f"rotation of {what}")
        limit = compare.budget(9, round_trip, judge=2 * JUDGE)
        compare.near(found.trans, np.zeros((12, 3)), limit, f"origin of {what}", scale=1.0)
    left = frames.compose(frames.compose(f.frame, g.frame), h.frame)
    right = frames.compose(f.frame, frames.compose(g.frame, h.frame))
    a, b, c = abs(f.rot), abs(g.rot), abs(h.rot)
    limit = compare.budget(12, a @ b @ c, judge=0) + compare.budget(4 * MOVED, judge=0)
    compare.near(left.rot, right.rot.double().numpy(), limit, "(f∘g)∘h, rotation")
    twice = compare.budget(16, judge=0)
    reach = _mv(a, abs(g.trans)) + abs(f.trans)
    size = _mv(a @ b, abs(h.trans)) + reach
    by_move = compare.budget(MOVED, np.linalg.norm(h.trans, axis=-1, keepdims=True), judge=0)
    compare.near(left.trans, right.trans.double().numpy(), twice * size + by_move, "(f∘g)∘h, origin")
    after = frames.apply(f.frame, frames.apply(g.frame, x))
    found = frames.apply(frames.compose(f.frame, g.frame), x)
    limit = twice * (_mv(a @ b, abs(x64)) + reach)
    limit = limit + compare.budget(MOVED, np.linalg.norm(x64, axis=-1, keepdims=True), judge=0)
    compare.near(found, after.double().numpy(), limit, "f∘g applied, f after g")
    back = frames.invert_apply(f.frame, frames.apply(f.frame, x))
    limit = compare.budget(10, _mv(_t(a), _mv(a, abs(x64)) + abs(f.trans)), judge=2 * JUDGE)
    compare.near(back, x64, limit, "invert_apply after apply")


def _isometry(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """Distances are kept, and so is the triple product of the basis: a motion, not a reflection."""
    f = _drawn(rng, compare, 12)
    (x, x64), (y, y64) = _points(rng, compare, 12), _points(rng, compare, 12)
    one, other = (compare.number(frames.apply(f.frame, p), (12, 3), "apply") for p in (x, y))
    if one is not None and other is not None:
        length, entry = np.linalg.norm(x64 - y64, axis=-1), _mv(abs(f.rot), abs(x64) + abs(y64)) + 2 * abs(f.trans)
        limit = compare.budget(4, np.linalg.norm(entry, axis=-1), judge=0) + compare.budget(2, 3 * length, judge=JUDGE)
        compare.judge(abs(np.linalg.norm(one - other, axis=-1) - length), limit, "distance kept by apply", scale=1.0)
    basis = torch.eye(3, dtype=compare.dtype).expand(12, 3, 3)
    corners = frames.apply(
        Frame(f.frame.rot[:, None].expand(12, 3, 3, 3), f.frame.trans[:, None].expand(12, 3, 3)), basis
    )
    corners = compare.number(corners, (12, 3, 3), "apply on the basis")
    if corners is not None:
        edges = corners - f.trans[:, None]
        entry = 4 * (1 + abs(f.trans).max(axis=-1)) + 1
        limit = compare.budget(3 * np.sqrt(3) * entry, judge=3 * JUDGE)
        compare.judge(abs(np.linalg.det(edges) - 1), limit, "triple product of the basis", scale=1.0)


def _exponential(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """exp against matrix_exp in float64, on the vectors as rounded; 0 included."""
    drawn = turns(rng, generic=12, small=8, straight=8)
    v = compare.tensor(np.concatenate([np.zeros((1, 3)), drawn.vector]))
    v64 = v.double().numpy()
    expected = torch.linalg.matrix_exp(torch.from_numpy(skew(v64))).numpy()
    limit = compare.budget(EXP + EXP_ANGLE * np.linalg.norm(v64, axis=-1), judge=MATRIX_EXP)[:, None, None]
    # A turn within the budget cannot be told from none.
    able = abs(expected - np.eye(3)).max(axis=(-1, -2), keepdims=True) > limit
    compare.near(frames.exp(v), expected, limit, "exp", able=able)


def _logarithm(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """log R = θn relative to θ where that is small, ±θn within its budget of π; log after exp; |log R| ≤ π."""
    drawn = turns(rng, generic=12, small=8, straight=8)
    _modulo_two_pi(frames.log(compare.tensor(drawn.matrix)), drawn, LOG, JUDGE, "log", compare)
    v = compare.tensor(drawn.vector)
    v64 = v.double().numpy()
    angle = np.linalg.norm(v64, axis=-1)
    there = compare.number(frames.exp(v), (28, 3, 3), "exp")
    if there is not None:
        back = frames.log(compare.tensor(there))
        _modulo_two_pi(back, Turns(v64 / angle[:, None], angle), LOG_OF_EXP, JUDGE, "log after exp", compare)


def _modulo_two_pi(found: Tensor, drawn: Turns, units: float, judge: float, where: str, compare: Comparison) -> None:
    value = compare.number(found, drawn.axis.shape, where)
    if value is None:
        return
    limit = compare.budget(units, np.minimum(drawn.angle, 1.0), judge=judge)
    error = abs(value - drawn.vector).max(axis=-1)
    # The same rotation; and where rounding may take the angle over π, the answer of the other side.
    other = abs(value - (drawn.angle - 2 * np.pi)[:, None] * drawn.axis).max(axis=-1)
    error = np.where(abs(np.pi - drawn.angle) <= limit, np.minimum(error, other), error)
    compare.judge(error, limit, where, scale=np.pi)
    length = np.linalg.norm(value, axis=-1)
    compare.judge(
        np.maximum(length - np.pi, 0.0), compare.budget(4, np.pi, judge=4), f"length of {where}", able=length > 3
    )


def _rotations(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """RᵀR = I and det R = +1 of whatever hands out rotations."""
    drawn = turns(rng, generic=8, small=4, straight=4)
    q = compare.tensor(rng.standard_normal((16, 4)) * 10.0 ** rng.uniform(-3, 3, (16, 1)))
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    near = _drawn(rng, compare, 16)
    for what, found in (
        ("exp", frames.exp(compare.tensor(drawn.vector))),
        ("from_quaternion", frames.from_quaternion(q)),
        ("random", frames.random(16, generator=generator, dtype=compare.dtype)),
        ("compose", frames.compose(near.frame, near.frame).rot),
    ):
        _is_rotation(found, 16, ORTHOGONAL, DETERMINANT, what, compare)


def _is_rotation(
    found: object, count: int, orthogonal: float, determinant: float, what: str, compare: Comparison
) -> None:
    value = compare.number(found, (count, 3, 3), what)
    if value is None:
        return
    gram = abs(_t(value) @ value - np.eye(3))
    compare.judge(gram, compare.budget(orthogonal, judge=JUDGE), f"orthogonality of {what}", scale=1.0)
    det = abs(np.linalg.det(value) - 1)
    compare.judge(det, compare.budget(determinant, judge=JUDGE), f"determinant of {what}", scale=1.0)


def _distances(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """The angle drawn between a and a·turn, absolute; between I and a small turn, relative; 0 from a to a."""
    drawn, start = turns(rng, generic=12, small=6, straight=6), turns(rng, generic=24)
    a, b = compare.tensor(start.matrix), compare.tensor(start.matrix @ drawn.matrix)
    limit = compare.budget(DISTANCE + DISTANCE_ANGLE * drawn.angle, judge=4 * JUDGE)
    # A turn within the budget cannot be told from none.
    compare.near(frames.geodesic_distance(a, b), drawn.angle, limit, "geodesic distance", able=drawn.angle > limit)
    compare.near(frames.geodesic_distance(a, a.clone()), np.zeros(24), np.zeros(24), "distance to itself", scale=1.0)
    small = turns(rng, small=12)
    one = torch.eye(3, dtype=compare.dtype)
    found = frames.geodesic_distance(one, compare.tensor(small.matrix))
    compare.near(found, small.angle, compare.budget(24, small.angle, judge=JUDGE), "small distance, relative")


def _gram_schmidt(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """Columns as the cross products give them, (33 + 6/sin)u; orthonormal to 24u however small the angle."""
    base, count = turns(rng, generic=20).matrix, 20
    widest = np.log10(4 * np.sqrt(2 * compare.u))  # twice over the sine that is refused
    sine = np.concatenate([rng.uniform(0.3, 1.0, 8), 10 ** rng.uniform(widest, -0.5, 12)])
    x = compare.tensor(base[:, :, 0] * 10.0 ** rng.uniform(-2, 2, (count, 1)))
    y = compare.tensor(base[:, :, 0] * np.sqrt(1 - sine**2)[:, None] + base[:, :, 1] * sine[:, None])
    x64, y64 = x.double().numpy(), y.double().numpy()
    normal = np.cross(x64, y64)
    actual = np.linalg.norm(normal, axis=-1) / np.linalg.norm(x64, axis=-1) / np.linalg.norm(y64, axis=-1)
    expected = _basis(x64, normal)
    rot, valid = frames.gram_schmidt(x, y)
    limit = compare.budget(GRAM_SCHMIDT + GRAM_SCHMIDT_SINE / actual, judge=JUDGE)[:, None, None]
    compare.near(rot, expected, limit + compare.budget(0, 4 / actual, judge=1)[:, None, None], "gram_schmidt")
    _is_rotation(rot, count, GRAM_SCHMIDT_ORTHOGONAL, GRAM_SCHMIDT_DETERMINANT, "gram_schmidt", compare)
    refused = np.zeros(count) if tuple(valid.shape) != (count,) else (~valid.bool()).double().numpy()
    compare.judge(refused, np.zeros(count), "gram_schmidt refuses a frame")


def _basis(x: np.ndarray, normal: np.ndarray) -> np.ndarray:
    e1, e3 = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (x, normal))
    return np.stack([e1, np.cross(e3, e1), e3], axis=-1)


def _backbone(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """Both conventions built from cross products, in both units: CA as origin, e3 along (C − CA) × (N − CA)."""
    count = 12
    pose, tau = turns(rng, generic=count).matrix, np.radians(rng.uniform(100, 120, count))
    ca = rng.uniform(-4.0, 4.0, (count, 1, 3))
    n = ca + 0.146 * _mv(pose, np.stack([np.cos(tau), np.sin(tau), 0 * tau], axis=-1))[:, None]
    c = ca + 0.153 * pose[:, None, :, 0]
    for unit, factor in (("nm", 1.0), ("angstrom", 10.0)):
        atoms = [compare.tensor(atom * factor) for atom in (n, ca, c)]
        n64, ca64, c64 = (atom.double().numpy() for atom in atoms)
        normal = np.cross(c64 - ca64, n64 - ca64)
        sine = np.linalg.norm(normal, axis=-1) / np.linalg.norm(c64 - ca64, axis=-1)
        limit = compare.budget(37 + 10 * np.linalg.norm(n64 - ca64, axis=-1) / sine, judge=3 * JUDGE)[..., None, None]
        for convention, e1 in (("alphafold", c64 - ca64), ("openfold", ca64 - n64)):
            found = frames.from_backbone(*atoms, convention=convention, unit=unit)
            where = f"from_backbone, {convention}, {unit}"
            compare.near(found.rot, _basis(e1, normal), limit, where)
            compare.near(found.trans, ca64 / factor, compare.budget(1, abs(ca64 / factor), judge=1), f"{where}, origin")


def _seven(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """from_7 of a quaternion of any length and a translation; and after to_7, the frame again."""
    f = _drawn(rng, compare, 12)
    again = compare.number(frames.to_7(f.frame), (12, 7), "to_7")
    drawn = turns(rng, generic=12)
    q = quaternion(drawn.axis, drawn.angle)
    length = 10.0 ** rng.uniform(-2, 2, (12, 1)) * rng.choice([-1.0, 1.0], (12, 1))
    vector = compare.tensor(np.concatenate([q * length, f.trans], axis=-1))
    found = frames.from_7(vector)
    # 2 u for the rounding of the quaternion, as an angle.
    compare.near(found.rot, matrix(drawn.axis, drawn.angle), compare.budget(QUATERNION + 2, judge=2 * JUDGE), "from_7")
    compare.near(found.trans, f.trans, compare.budget(1, abs(f.trans), judge=0), "from_7, origin")
    if again is not None:
        found = frames.from_7(compare.tensor(again))
        compare.near(found.rot, f.rot, compare.budget(QUATERNION + 15, judge=2 * JUDGE), "from_7 after to_7")
        compare.near(found.trans, f.trans, compare.budget(2, abs(f.trans), judge=0), "from_7 after to_7, origin")


def _haar(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """Entries of mean 0 and mean square 1/3, angles of mean π/2 + 2/π: each within six standard errors.

    An entry is uniform in [−1, 1] (variances 1/3, 4/45); the angle has the density (1 − cos θ)/π.
    """
    count = 1024
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    value = compare.number(frames.random(count, generator=generator, dtype=compare.dtype), (count, 3, 3), "random")
    if value is None:
        return
    bound = 6 / np.sqrt(count)
    angle = np.arccos(np.clip((np.trace(value, axis1=-2, axis2=-1) - 1) / 2, -1, 1))
    mean = np.pi / 2 + 2 / np.pi
    compare.judge(abs(value.mean(axis=0)), np.full((3, 3), bound * np.sqrt(1 / 3)), "mean of random", scale=1.0)
    square = abs((value**2).mean(axis=0) - 1 / 3)
    compare.judge(square, np.full((3, 3), bound * np.sqrt(4 / 45)), "mean square of random", scale=1 / 3)
    spread = bound * np.sqrt(np.pi**2 / 3 + 2 - mean**2)
    compare.judge(abs(angle.mean(keepdims=True) - mean), np.array([spread]), "mean angle of random", scale=1.0)
