"""Derivatives along turns, the part of `frame_laws` that concerns gradients: exp, log and the geodesic distance.

A function of rotation matrices is differentiated along R[e_k]ₓ, k = 1, 2, 3, because only that is the same for every
formula: off the rotations each continues in its own way. Gradients are finite everywhere, at the identity and at π.
"""

import numpy as np
import torch

from iga._typing import Tensor
from iga.testing.judges.rotations import JUDGE, inverse_jacobian, jacobian, skew, turns
from iga.testing.library.frames import FrameLibrary
from iga.testing.library.laws import Comparison

__all__ = ["along_turns", "derivative", "slopes"]

CHAIN = 128.0  # u: at most 64 roundings one after the other, on terms of size at most 2
BASIS = skew(np.eye(3))  # [e_k]ₓ


def derivative(function, x: Tensor, shape: tuple[int, ...], where: str, compare: Comparison) -> np.ndarray | None:
    """∂function/∂x, [n, outputs, *x.shape[1:]] in float64, or None and a failure if there is none or it isn't finite.

    `function` maps x [n, …] to a tensor [n, *shape], example by example.
    """
    x = x.detach().clone().requires_grad_()
    found = function(x)
    if compare.number(found, (len(x), *shape), where) is None:
        return None
    if not found.requires_grad:
        compare.tally.fail(f"{where}, {compare.name}", f"{where}: passes no gradient")
        return None
    columns = []
    for column in found.reshape(len(x), -1).unbind(-1):
        (grad,) = torch.autograd.grad(column.sum(), x, retain_graph=True, allow_unused=True)
        columns.append(torch.zeros_like(x) if grad is None else grad)
    stacked = torch.stack(columns, dim=1)
    return compare.number(stacked, tuple(stacked.shape), f"gradient of {where}")


def along_turns(slope: np.ndarray, rot: np.ndarray) -> np.ndarray:
    """[n, outputs, 3]: derivatives by matrices [n, outputs, 3, 3] along R[e_k]ₓ, at R [n, 3, 3]."""
    return np.einsum("noij,nkij->nok", slope, rot[:, None] @ BASIS)


def slopes(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    """exp: dR = R[J dv]ₓ. log: dv = J⁻¹ dω along R[dω]ₓ. Distance: n·dω. Each within 128u (distance: the chord's
    digits, 16/θ, besides), and finite at the kinks."""
    drawn = turns(rng, generic=6, small=3, straight=3)
    exact = np.array([[0.0, 0.0, 0.0], [np.pi, 0.0, 0.0], [0.0, np.pi * 0.6, np.pi * 0.8]])
    v = compare.tensor(np.concatenate([exact, drawn.vector]))
    v64 = v.double().numpy()
    count = len(v64)
    rot = torch.linalg.matrix_exp(torch.from_numpy(skew(v64))).numpy()
    by_vector = derivative(frames.exp, v, (3, 3), "exp", compare)
    if by_vector is not None:
        # Column k: R [J e_k]ₓ.
        expected = rot[:, None] @ skew(np.swapaxes(jacobian(v64), -1, -2))
        expected = np.moveaxis(expected, 1, -1).reshape(count, 9, 3)
        compare.judge(abs(by_vector - expected), compare.budget(CHAIN, judge=4 * CHAIN), "gradient of exp", scale=1.0)
    matrices = compare.tensor(rot)
    by_matrix = derivative(frames.log, matrices, (3,), "log", compare)
    values = compare.number(frames.log(matrices), (count, 3), "log")
    if by_matrix is not None and values is not None:
        # At the found vector: at π either axis is right, each with its own side's slope.
        found = along_turns(by_matrix, matrices.double().numpy())
        limit = compare.budget(2 * CHAIN, judge=4 * JUDGE)
        compare.judge(abs(found - inverse_jacobian(values)), limit, "gradient of log", scale=1.0)
    _distance_slopes(frames, rng, compare)


def _distance_slopes(frames: FrameLibrary, rng: np.random.Generator, compare: Comparison) -> None:
    drawn, start = turns(rng, generic=8), turns(rng, generic=8).matrix
    a, b = compare.tensor(start), compare.tensor(start @ drawn.matrix)
    slope = derivative(lambda x: frames.geodesic_distance(a, x), b, (), "distance", compare)
    if slope is not None:
        found = along_turns(slope, b.double().numpy())[:, 0]
        limit = compare.budget(CHAIN + 16 / drawn.angle[:, None], judge=4 * JUDGE + 16 / drawn.angle[:, None])
        compare.judge(abs(found - drawn.axis), limit, "gradient of distance", scale=1.0)
    for what, there in (("0", a), ("π", a * compare.tensor(np.array([1.0, -1.0, -1.0])))):
        slope = derivative(lambda x: frames.geodesic_distance(a, x), there, (), f"distance {what}", compare)
        if slope is not None:
            # The kink's subgradients have length at most 1 along turns.
            length = np.linalg.norm(along_turns(slope, there.double().numpy())[:, 0], axis=-1)
            compare.judge(
                np.maximum(length - 1, 0.0), compare.budget(CHAIN, judge=JUDGE), f"gradient at distance {what}"
            )
