"""Laws of InvariantPointAttention under motions and permutations, with a budget from the rounding of every step."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.ipa import C_S, C_Z, PV, C, H, P, U, assert_within, inputs, randomised, rotations
from iga.frame import Frame
from iga.ipa import InvariantPointAttention

seeds = st.integers(0, 2**31 - 1)


def invariance_budget(
    layer: InvariantPointAttention, s, z, frame: Frame, distance: float = 0.0, *, turned: bool
) -> torch.Tensor:
    """[n, c_s]: how far two float32 runs may differ of which one was moved, to `distance` nm, and perhaps turned.

    First the positions, per run and component, then every step that reads them, in float64 and in absolute values:

        ε      u · distance (t rounded on input) + 7 u |x| (R rounded on input, a product, two sums, all of |R||x| ≤
               √3 |x|; if turned: R x is the same in both otherwise) + u · extent (t − c) + u (|x| + extent) (R x + t)
        Δ_ij   ½ w γ Σ_p (2 d ε' + ε'²), ε' = 4 ε the error of a difference d in both runs; and the 3P + 8 roundings
               of a logit in each
        w_ij   within the factor exp(Δ_ij + ln Σ_j w_ij exp Δ_ij), and n + 8 roundings in each run
        out    features by that, points by 2 ε too, n + 2 roundings of the sum over keys; then the last projection
               in absolute values, with its own roundings
    """
    layer, s, z = randomised_twin(layer), s.double(), z.double()
    rot, trans = frame.rot.double(), frame.trans.double()
    n = len(s)
    with torch.no_grad():
        local_q = layer.linear_q_points(s).unflatten(-1, (3, H, P)).permute(2, 0, 3, 1)  # [h, n, p, 3]
        local_kv = layer.linear_kv_points(s).unflatten(-1, (3, H, P + PV)).permute(2, 0, 3, 1)
        x, y = (torch.einsum("nab,hnpb->hnpa", rot, v) + trans[:, None] for v in (local_q, local_kv))
        extent = torch.cdist(trans, trans).max()
        local = torch.cat([local_q, local_kv], dim=2).norm(dim=-1).max()
        position = U * (distance + (7 * local if turned else 0.0) + local + 2 * extent)

        d = (x[:, :, None] - y[:, None, :, :P]).norm(dim=-1)  # [h, q, k, p]
        half = 0.5 * (torch.nn.functional.softplus(layer.head_weights) / math.sqrt(3 * 9 / 2 * P))[:, None, None]
        q = layer.linear_q(s).unflatten(-1, (H, C)).transpose(0, 1)
        k, v = layer.linear_kv(s).unflatten(-1, (H, 2 * C)).transpose(0, 1).split(C, dim=-1)
        scalar, pair = q @ k.mT / math.sqrt(3 * C), layer.linear_b(z).permute(2, 0, 1) / math.sqrt(3)
        point = half * d.square().sum(dim=-1)
        delta = half * (8 * d * position + 16 * position**2).sum(dim=-1)
        delta = delta + 2 * (3 * P + 8) * U * (scalar.abs() + pair.abs() + point)
        w = (scalar + pair - point).softmax(dim=-1)
        moved = w * ((delta + (w * delta.exp()).sum(dim=-1, keepdim=True).log()).expm1() + 2 * (n + 8) * U)
        moved = moved + 2 * (n + 2) * U * w

        reach = (y[:, None, :, P:] - trans[:, None, None]).norm(dim=-1)  # [h, q, k, pv]
        errors, sizes = [], []
        for weight, result in ((moved, errors), (w, sizes)):
            result.append((weight @ v.abs()).transpose(0, 1).flatten(1))
            points = torch.einsum("hqk,hqkp->qhp", weight, reach).flatten(1)
            result.extend([points + (2 * position if result is errors else 0.0)] * 4)
            result.append(torch.einsum("hqk,qkc->qhc", weight, z.abs()).flatten(1))
        matrix = layer.linear_out.weight.abs().T
        rounding = 2 * (len(matrix) + 4) * U
        total = torch.cat(sizes, dim=-1) @ matrix + layer.linear_out.bias.abs()
        return torch.cat(errors, dim=-1) @ matrix + rounding * total


def randomised_twin(layer: InvariantPointAttention) -> InvariantPointAttention:
    """The same layer in float64."""
    twin = InvariantPointAttention(C_S, C_Z, C, H, P, PV).double()
    twin.load_state_dict(layer.state_dict())
    return twin


@given(
    seeds,
    st.tuples(*[st.integers(-3, 3)] * 3).filter(any),
    st.floats(-math.pi, math.pi),
    st.sampled_from([0.0, 1.0, 30.0, 1000.0]),
)
def test_output_is_invariant_under_a_shared_rigid_motion(seed, axis, angle, distance):
    layer, (s, z, frame, mask) = randomised(seed), inputs(6, seed=seed)
    direction = torch.tensor(axis, dtype=torch.float64)
    direction = direction / direction.norm()
    x, y, w = (angle * direction).tolist()
    motion = torch.linalg.matrix_exp(torch.tensor([[0, -w, y], [w, 0, -x], [-y, x, 0]], dtype=torch.float64))
    offset = distance * direction
    moved = Frame((motion @ frame.rot.double()).float(), (frame.trans.double() @ motion.T + offset).float())
    error = layer(s, z, moved, mask) - layer(s, z, frame, mask)
    farthest = distance + frame.trans.norm(dim=-1).max().item()
    assert_within(error, invariance_budget(layer, s, z, frame, farthest, turned=True))


@given(seeds, st.integers(4, 14), st.tuples(*[st.integers(-1, 1)] * 3).filter(any))
def test_a_far_translation_costs_nothing_beyond_the_rounding_of_the_input(seed, exponent, direction):
    # multiples of 2⁻⁹ under 8, plus at most 2¹⁴: no rounding, so the budget is free of the distance
    layer, (s, z, frame, mask) = randomised(seed), inputs(6, seed=seed)
    offset = torch.tensor(direction) * 2.0**exponent
    moved = Frame(frame.rot, frame.trans + offset)
    assert torch.equal(moved.trans - offset, frame.trans)
    budget = invariance_budget(layer, s, z, frame, turned=False)
    assert_within(layer(s, z, moved, mask) - layer(s, z, frame, mask), budget)


@given(seeds, st.integers(0, 5))
def test_output_depends_on_rotation_and_position_of_every_single_residue(seed, residue):
    layer, (s, z, frame, mask) = randomised(seed), inputs(6, seed=seed)
    base = layer(s, z, frame, mask)
    turned, shifted = frame.rot.clone(), frame.trans.clone()
    turned[residue] = rotations(generator=torch.Generator().manual_seed(seed + 1)).float()
    shifted[residue, 0] += 0.5
    for other in (Frame(turned, frame.trans), Frame(frame.rot, shifted)):
        assert ((layer(s, z, other, mask) - base).abs().amax(dim=-1) > 1e-3).all()


@given(st.permutations(range(6)))
def test_permuting_the_residues_permutes_the_output(order):
    layer, (s, z, frame, mask) = randomised(dtype=torch.float64), inputs(6, dtype=torch.float64)
    order = torch.tensor(order)
    permuted = layer(s[order], z[order][:, order], Frame(frame.rot[order], frame.trans[order]), mask)
    assert_within(permuted - layer(s, z, frame, mask)[order], 1e-11)
