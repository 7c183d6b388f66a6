"""`quaternion_sign`: q and −q are one rotation; to_quaternion hands out the one with w ≥ 0, without a seam.

Judged in float32 and float64 at generic rotations, near the identity, on both sides of w = 0 (rotations by π), where
components tie, and at the identity and π themselves, where gradients have to be finite. A value is a difference over
its budget; docs/theory.md, section 12, has the counts. The judge is `rotations`.
"""

import numpy as np

from iga.testing.check import check
from iga.testing.judges.rotations import AWKWARD, JUDGE, matrix, quaternion, turns
from iga.testing.library.frame_slopes import BASIS, CHAIN, along_turns, derivative
from iga.testing.library.frames import FrameLibrary
from iga.testing.library.laws import Comparison, judge_laws
from iga.testing.tally import Tally

__all__ = ["quaternion_sign"]

MATRIX = 40.0  # u: entries of R(q)
READ = 8.0  # u: direction of the quaternion of a rounded rotation
UNIT = 4.0  # u: its length
ROUND_TRIP = 43.0  # u: direction and length of the quaternion of R(q)


@check("frames", "of the budget")
def quaternion_sign(frames: FrameLibrary, seed: int, tally: Tally) -> None:
    """The laws below in float32 and float64, on draws from `seed`; each difference over its budget, at most 1."""
    judge_laws((_double_cover, _canonical, _seam, _slopes), frames, seed, tally)


def _drawn(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Unit axes and angles: generic, near 0 and near π, exactly π about awkward axes, and the identity."""
    drawn = turns(rng, generic=10, small=5, straight=10)
    axis = AWKWARD / np.linalg.norm(AWKWARD, axis=-1, keepdims=True)
    ends = np.concatenate([np.full(len(axis), np.pi), [0.0]])
    return np.concatenate([drawn.axis, axis, axis[:1]]), np.concatenate([drawn.angle, ends])


def _up_to_sign(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return np.minimum(abs(found - expected).max(axis=-1), abs(found + expected).max(axis=-1))


def _double_cover(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """R(q) = R(−q) to the last bit: products of two components lose the sign exactly. R(q) as the judge has it,
    whatever the length of q."""
    axis, angle = _drawn(rng)
    length = 10.0 ** rng.uniform(-3, 3, (len(axis), 1))
    q = compare.tensor(quaternion(axis, angle) * length)
    one = compare.number(frames.from_quaternion(q), (len(axis), 3, 3), "R(q)")
    other = compare.number(frames.from_quaternion(-q), (len(axis), 3, 3), "R(−q)")
    if one is None or other is None:
        return
    compare.judge(abs(one - other), np.zeros(one.shape), "R(q) − R(−q)", scale=1.0)
    # 2 u for the rounding of q, as an angle.
    compare.judge(abs(one - matrix(axis, angle)), compare.budget(MATRIX + 2, judge=2 * JUDGE), "R(q)", scale=1.0)


def _canonical(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """to_quaternion(R) is ±q, of length 1, with w ≥ 0; so it is after from_quaternion."""
    axis, angle = _drawn(rng)
    q = quaternion(axis, angle)
    count = len(q)
    sign = rng.choice([-1.0, 1.0], (count, 1))
    there = frames.from_quaternion(compare.tensor(sign * q))
    pairs = [("quaternion", compare.tensor(matrix(axis, angle)), READ + UNIT)]
    if compare.number(there, (count, 3, 3), "R(q)") is not None:
        pairs.append(("quaternion of R(q)", there, ROUND_TRIP))
    for what, rot, units in pairs:
        found = compare.number(frames.to_quaternion(rot), (count, 4), what)
        if found is None:
            continue
        compare.judge(_up_to_sign(found, q), compare.budget(units, judge=JUDGE), what, scale=1.0)
        length = abs(np.linalg.norm(found, axis=-1) - 1)
        compare.judge(length, compare.budget(UNIT, judge=4), f"length of the {what}", scale=1.0)
        # w ≥ 0 has no rounding.
        compare.judge(np.maximum(-found[:, 0], 0.0), np.zeros(count), f"w of the {what}")


def _seam(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """From w = h to w = −h neither R(q) nor ±q jumps: they move by what the angle 4h moves them."""
    axis = np.concatenate([turns(rng, generic=8).axis, AWKWARD / np.linalg.norm(AWKWARD, axis=-1, keepdims=True)])
    h = 10.0 ** -rng.uniform(1, 12, len(axis))
    sides = [quaternion(axis, np.pi - 2 * h), quaternion(axis, np.pi + 2 * h)]
    rots = [frames.from_quaternion(compare.tensor(side)) for side in sides]
    values = [compare.number(rot, (len(axis), 3, 3), "R(q) about w = 0") for rot in rots]
    if values[0] is None or values[1] is None:
        return
    expected = matrix(axis, np.pi + 2 * h) - matrix(axis, np.pi - 2 * h)
    limit = compare.budget(2 * MATRIX + 4, judge=4 * JUDGE)
    compare.judge(abs(values[1] - values[0] - expected), limit, "R(q) across w = 0", scale=1.0)
    found = [compare.number(frames.to_quaternion(rot), (len(axis), 4), "quaternion about w = 0") for rot in rots]
    if found[0] is None or found[1] is None:
        return
    step = np.minimum(*(np.linalg.norm(found[1] - s * found[0], axis=-1) for s in (1.0, -1.0)))
    excess = np.maximum(step - 2 * np.sin(h), 0.0)
    compare.judge(excess, compare.budget(4 * ROUND_TRIP, judge=4 * JUDGE), "±q across w = 0", scale=1.0)


def _slopes(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """dq = ½ q∘(0, dω) along R[dω]ₓ, at the identity and at π too; R(q) moves by R[dω]ₓ along that, and not along q."""
    axis, angle = _drawn(rng)
    count = len(axis)
    rot = compare.tensor(matrix(axis, angle))
    slope = derivative(frames.to_quaternion, rot, (4,), "to_quaternion", compare)
    value = compare.number(frames.to_quaternion(rot), (count, 4), "to_quaternion")
    if slope is not None and value is not None:
        found = along_turns(slope, rot.double().numpy())
        limit = compare.budget(CHAIN, judge=2 * JUDGE)
        compare.judge(abs(found - _half_turns(value)), limit, "gradient of to_quaternion", scale=0.5)
    q = compare.tensor(quaternion(axis, angle))
    slope = derivative(frames.from_quaternion, q, (3, 3), "from_quaternion", compare)
    if slope is None:
        return
    q64 = q.double().numpy()
    expected = np.moveaxis(matrix(axis, angle)[:, None] @ BASIS, 1, -1).reshape(count, 9, 3)
    found = np.einsum("noq,nqk->nok", slope, _half_turns(q64))
    limit = compare.budget(CHAIN, judge=2 * JUDGE)
    compare.judge(abs(found - expected), limit, "gradient of from_quaternion", scale=1.0)
    radial = abs(np.einsum("noq,nq->no", slope, q64))
    compare.judge(radial, compare.budget(CHAIN, judge=JUDGE), "gradient of from_quaternion along q", scale=1.0)


def _half_turns(q: np.ndarray) -> np.ndarray:
    """½ q∘(0, e_k) as columns: [n, 4] to [n, 4, 3]."""
    w, x, y, z = np.moveaxis(q, -1, 0)
    rows = [[-x, -y, -z], [w, -z, y], [z, w, -x], [-y, x, w]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2) / 2
