"""Laws of InvariantPointAttention. Every parameter is randomised: the zero last projection would hide everything."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.ipa import InvariantPointAttention

U = 2.0**-24  # unit roundoff of float32
NAN = float("nan")
C_S, C_Z, C, H, P, PV = 6, 5, 4, 3, 4, 2
seeds = st.integers(0, 2**31 - 1)


def randomised(seed: int = 0, *, c_z: int = C_Z, dtype: torch.dtype = torch.float32) -> InvariantPointAttention:
    generator = torch.Generator().manual_seed(seed)
    layer = InvariantPointAttention(C_S, c_z, C, H, P, PV)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return layer.to(dtype)


def rotations(*shape: int, generator: torch.Generator) -> torch.Tensor:
    q, r = torch.linalg.qr(torch.randn(*shape, 3, 3, generator=generator, dtype=torch.float64))
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    return q * torch.linalg.det(q)[..., None, None]


def inputs(
    *shape: int, seed: int = 1, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, Frame, torch.Tensor]:
    """(s, z, frame, mask); positions are multiples of 2⁻⁹ nm under 8 nm, so that whole numbers add exactly."""
    generator = torch.Generator().manual_seed(seed)
    s = torch.randn(*shape, C_S, generator=generator).to(dtype)
    z = torch.randn(*shape, shape[-1], C_Z, generator=generator).to(dtype)
    trans = (torch.randn(*shape, 3, generator=generator).clamp(-4, 4) * 512).round() / 512
    frame = Frame(rotations(*shape, generator=generator).to(dtype), trans.to(dtype))
    return s, z, frame, torch.ones(*shape, dtype=torch.bool)


def assert_within(error: torch.Tensor, budget: torch.Tensor | float) -> None:
    assert torch.isfinite(error).all(), "not finite"
    assert (error.abs() <= budget).all(), f"worst {error.abs().max().item():.3e}, budget {budget}"


# ---------------------------------------------------------------------------------------------------------------------
# Algorithm 22 in float64, one number at a time. Weights in two layouts, each read by its own table of projections.


def monomer_tables(w: dict[str, np.ndarray], s: np.ndarray) -> SimpleNamespace:
    n, t = len(s), SimpleNamespace()
    t.q, t.k, t.v = (np.zeros((n, H, C)) for _ in range(3))
    t.qp, t.kp, t.vp = np.zeros((n, H, P, 3)), np.zeros((n, H, P, 3)), np.zeros((n, H, PV, 3))

    def row(name: str, index: int, i: int) -> float:
        return w[f"{name}.weight"][index] @ s[i] + w[f"{name}.bias"][index]

    for i in range(n):
        for h in range(H):
            for c in range(C):
                t.q[i, h, c] = row("linear_q", h * C + c, i)
                t.k[i, h, c] = row("linear_kv", h * 2 * C + c, i)
                t.v[i, h, c] = row("linear_kv", h * 2 * C + C + c, i)
            for a in range(3):
                for p in range(P):
                    t.qp[i, h, p, a] = row("linear_q_points", a * H * P + h * P + p, i)
                    t.kp[i, h, p, a] = row("linear_kv_points", a * H * (P + PV) + h * (P + PV) + p, i)
                for p in range(PV):
                    t.vp[i, h, p, a] = row("linear_kv_points", a * H * (P + PV) + h * (P + PV) + P + p, i)
    return t


def multimer_tables(w: dict[str, np.ndarray], s: np.ndarray) -> SimpleNamespace:
    n, t = len(s), SimpleNamespace()
    t.q, t.k, t.v = (np.zeros((n, H, C)) for _ in range(3))
    t.qp, t.kp, t.vp = np.zeros((n, H, P, 3)), np.zeros((n, H, P, 3)), np.zeros((n, H, PV, 3))
    for i in range(n):
        for h in range(H):
            for c in range(C):
                for table, name in ((t.q, "linear_q"), (t.k, "linear_k"), (t.v, "linear_v")):
                    table[i, h, c] = w[f"{name}.weight"][h * C + c] @ s[i]
            for table, name, count in ((t.qp, "q", P), (t.kp, "k", P), (t.vp, "v", PV)):
                for a in range(3):
                    for p in range(count):
                        index = h * 3 * count + a * count + p
                        key = f"linear_{name}_points.linear"
                        table[i, h, p, a] = w[f"{key}.weight"][index] @ s[i] + w[f"{key}.bias"][index]
    return t


def algorithm_22(tables, state: dict, s, z, frame: Frame, mask, *, c_z: int = C_Z, eps: float = 1e-8) -> torch.Tensor:
    """[n, c_s] in float64; masked residues are left out of the loops, and zero."""
    w = {name: value.double().numpy() for name, value in state.items()}
    s, rot, trans = s.double().numpy(), frame.rot.double().numpy(), frame.trans.double().numpy()
    z = None if z is None else z.double().numpy()
    valid = [i for i in range(len(s)) if mask[i]]
    t = tables(w, s)
    out = np.zeros((len(s), C_S))
    w_c, w_l = math.sqrt(2 / (9 * P)), math.sqrt(1 / 3)
    for i in valid:
        o, xyz, norms, pair = [], ([], [], []), [], []
        for h in range(H):
            gamma = math.log1p(math.exp(w["head_weights"][h]))
            logits = []
            for j in valid:
                squares = 0.0
                for p in range(P):
                    difference = (rot[i] @ t.qp[i, h, p] + trans[i]) - (rot[j] @ t.kp[j, h, p] + trans[j])
                    squares += difference @ difference
                bias = 0.0 if z is None else w["linear_b.weight"][h] @ z[i, j] + w["linear_b.bias"][h]
                scalar = t.q[i, h] @ t.k[j, h] / math.sqrt(C)
                logits.append(w_l * (scalar + bias - 0.5 * gamma * w_c * squares))
            a = np.exp(np.array(logits) - max(logits))
            a /= a.sum()
            o += list(sum(a[m] * t.v[j, h] for m, j in enumerate(valid)))
            for p in range(PV):
                point = sum(a[m] * (rot[j] @ t.vp[j, h, p] + trans[j]) for m, j in enumerate(valid))
                local = rot[i].T @ (point - trans[i])
                for axis in range(3):
                    xyz[axis].append(local[axis])
                norms.append(math.sqrt(local @ local + eps))
            pair += [0.0] * c_z if z is None else list(sum(a[m] * z[i, j] for m, j in enumerate(valid)))
        features = np.array([*o, *xyz[0], *xyz[1], *xyz[2], *norms, *pair])
        out[i] = w["linear_out.weight"] @ features + w["linear_out.bias"]
    return torch.from_numpy(out)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("valid", [[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1], [0, 0, 0, 1, 0, 0]])
def test_layer_is_algorithm_22(seed, valid):
    layer = randomised(seed, dtype=torch.float64)
    s, z, frame, _ = inputs(6, seed=seed + 10, dtype=torch.float64)
    mask = torch.tensor(valid)
    expected = algorithm_22(monomer_tables, layer.state_dict(), s, z, frame, mask)
    output = layer(s, z, frame, mask)
    assert output.dtype == torch.float64
    # float64 on both sides: logits of some hundreds carry 2⁻⁵³·10³·(their ~100 operations), outputs are of order 10
    assert_within(output - expected, 1e-9)
    assert (expected[mask.bool()].abs() > 1e-3).any(), "vacuous"


def test_without_pair_features_bias_and_values_are_zero():
    layer, plain = randomised(dtype=torch.float64), randomised(c_z=0, dtype=torch.float64)
    s, _, frame, mask = inputs(5, dtype=torch.float64)
    expected = algorithm_22(monomer_tables, layer.state_dict(), s, None, frame, mask)
    assert_within(layer(s, None, frame, mask) - expected, 1e-9)
    expected = algorithm_22(monomer_tables, plain.state_dict(), s, None, frame, mask, c_z=0)
    assert_within(plain(s, None, frame, mask) - expected, 1e-9)
    assert not any(name.startswith("linear_b") for name in plain.state_dict())


# ---------------------------------------------------------------------------------------------------------------------
# Parameters: names, shapes, initial values, and OpenFold's other spellings


def test_parameters_are_openfolds_by_name_and_shape():
    state = InvariantPointAttention(384, 128, 16, 12, 4, 8).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "linear_q.weight": (192, 384),
        "linear_q.bias": (192,),
        "linear_kv.weight": (384, 384),
        "linear_kv.bias": (384,),
        "linear_q_points.weight": (144, 384),
        "linear_q_points.bias": (144,),
        "linear_kv_points.weight": (432, 384),
        "linear_kv_points.bias": (432,),
        "linear_b.weight": (12, 128),
        "linear_b.bias": (12,),
        "head_weights": (12,),
        "linear_out.weight": (384, 12 * (128 + 16 + 8 * 4)),
        "linear_out.bias": (384,),
    }


def test_a_new_layer_has_unit_point_weights_zero_biases_and_a_zero_output():
    layer = InvariantPointAttention(C_S, C_Z, C, H, P, PV)
    assert_within(torch.nn.functional.softplus(layer.head_weights.detach()) - 1, 2 * U)
    assert all((value == 0).all() for name, value in layer.state_dict().items() if name.endswith("bias"))
    assert (layer.linear_out.weight == 0).all() and (layer(*inputs(4)) == 0).all()
    others = ("linear_q", "linear_kv", "linear_q_points", "linear_kv_points", "linear_b")
    assert all((getattr(layer, name).weight != 0).all() for name in others)


@pytest.mark.parametrize("prefix", ["", "structure_module.ipa."])
def test_point_projections_load_under_both_of_openfolds_spellings(prefix):
    source = randomised(3)
    state = {}
    for name, value in source.state_dict().items():
        wrapped = name.replace("_points.", "_points.linear.")
        state[prefix + wrapped] = value
    assert prefix + "linear_kv_points.linear.bias" in state
    names = list(state)
    target = InvariantPointAttention(C_S, C_Z, C, H, P, PV)
    model = target
    for part in reversed(prefix.split(".")[:-1]):
        model = torch.nn.ModuleDict({part: model})
    model.load_state_dict(state, strict=True)
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())
    assert list(state) == names, "the caller's dict was changed"


@pytest.mark.parametrize("prefix", ["", "structure_module.ipa."])
def test_multimer_weights_load_in_their_own_layout(prefix):
    generator = torch.Generator().manual_seed(5)
    sizes = {
        "linear_q.weight": (H * C, C_S),
        "linear_k.weight": (H * C, C_S),
        "linear_v.weight": (H * C, C_S),
        "linear_b.weight": (H, C_Z),
        "linear_b.bias": (H,),
        "head_weights": (H,),
        "linear_out.weight": (C_S, H * (C_Z + C + 4 * PV)),
        "linear_out.bias": (C_S,),
    }
    for name, count in (("q", P), ("k", P), ("v", PV)):
        sizes[f"linear_{name}_points.linear.weight"] = (H * 3 * count, C_S)
        sizes[f"linear_{name}_points.linear.bias"] = (H * 3 * count,)
    state = {name: 0.5 * torch.randn(size, generator=generator, dtype=torch.float64) for name, size in sizes.items()}
    layer = randomised(dtype=torch.float64)
    model = layer
    for part in reversed(prefix.split(".")[:-1]):
        model = torch.nn.ModuleDict({part: model})
    model.load_state_dict({prefix + name: value for name, value in state.items()}, strict=True)
    s, z, frame, mask = inputs(5, dtype=torch.float64)
    expected = algorithm_22(multimer_tables, state, s, z, frame, mask)
    assert_within(layer(s, z, frame, mask) - expected, 1e-9)


def test_strict_loading_still_refuses_what_does_not_belong():
    state = randomised().state_dict()
    with pytest.raises(RuntimeError, match="linear_g"):
        randomised().load_state_dict({**state, "linear_g.weight": torch.zeros(2)})
    del state["linear_b.bias"]
    with pytest.raises(RuntimeError, match="linear_b.bias"):
        randomised().load_state_dict(state)


@pytest.mark.parametrize(
    "position, name", list(enumerate(["c_s", "c_z", "c_hidden", "no_heads", "no_qk_points", "no_v_points"]))
)
def test_sizes_that_cannot_be_are_named(position, name):
    sizes = [C_S, C_Z, C, H, P, PV]
    sizes[position] = -1
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        InvariantPointAttention(*sizes)


@pytest.mark.parametrize("eps", [0.0, -1e-8, NAN, math.inf])
def test_eps_that_cannot_be_is_named(eps):
    with pytest.raises(ValueError, match="eps must be"):
        InvariantPointAttention(C_S, C_Z, C, H, P, PV, eps=eps)


def test_eps_stands_under_the_root_of_the_norms():
    s, z, frame, mask = inputs(4, dtype=torch.float64)
    layer = InvariantPointAttention(C_S, C_Z, C, H, P, PV, eps=0.25).double()
    layer.load_state_dict(randomised(dtype=torch.float64).state_dict())
    expected = algorithm_22(monomer_tables, layer.state_dict(), s, z, frame, mask, eps=0.25)
    assert_within(layer(s, z, frame, mask) - expected, 1e-9)


def test_arguments_that_do_not_fit_are_named():
    layer, (s, z, frame, mask) = randomised(), inputs(2, 4)
    with pytest.raises(ValueError, match="s must be"):
        layer(s[..., :-1], z, frame, mask)
    with pytest.raises(ValueError, match="z must be"):
        layer(s, z[..., :-1], frame, mask)
    with pytest.raises(ValueError, match="r must have one frame per residue"):
        layer(s, z, Frame(frame.rot[0], frame.trans[0]), mask)
    with pytest.raises(ValueError, match="mask must be"):
        layer(s, z, frame, mask[0])
    with pytest.raises(ValueError, match="pass z=None"):
        randomised(c_z=0)(s, z, frame, mask)


# ---------------------------------------------------------------------------------------------------------------------
# Invariance, with a budget from the rounding of every step


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


def test_output_depends_on_rotation_and_position_of_a_single_residue():
    layer, (s, z, frame, mask) = randomised(), inputs(6)
    base = layer(s, z, frame, mask)
    turned, shifted = frame.rot.clone(), frame.trans.clone()
    turned[2] = rotations(generator=torch.Generator().manual_seed(9)).float()
    shifted[2, 0] += 0.5
    for other in (Frame(turned, frame.trans), Frame(frame.rot, shifted)):
        assert ((layer(s, z, other, mask) - base).abs().amax(dim=-1) > 1e-3).all()


def test_permuting_the_residues_permutes_the_output():
    layer, (s, z, frame, mask) = randomised(dtype=torch.float64), inputs(6, dtype=torch.float64)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = layer(s[order], z[order][:, order], Frame(frame.rot[order], frame.trans[order]), mask)
    assert_within(permuted - layer(s, z, frame, mask)[order], 1e-11)


# ---------------------------------------------------------------------------------------------------------------------
# Masks


def leaves(s: torch.Tensor, z: torch.Tensor, frame: Frame) -> tuple[torch.Tensor, ...]:
    return tuple(x.clone().requires_grad_() for x in (s, z, frame.rot, frame.trans))


def run(layer: InvariantPointAttention, s, z, rot, trans, mask) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The output, and the gradients of the inputs and of every parameter."""
    output = layer(s, z, Frame(rot, trans), mask)
    weights = torch.linspace(-1, 2, output.numel()).reshape(output.shape)
    return output.detach(), list(torch.autograd.grad((output * weights).sum(), [s, z, rot, trans, *layer.parameters()]))


@pytest.mark.parametrize("poison", [NAN, math.inf, 1e30])
@pytest.mark.parametrize("as_float", [False, True])
def test_what_stands_behind_the_mask_leaves_no_trace(poison, as_float):
    layer, (s, z, frame, _) = randomised(), inputs(2, 6)
    mask = torch.tensor([[1, 1, 0, 1, 0, 1], [0, 1, 1, 0, 1, 1]], dtype=torch.bool)
    pairs = mask[..., :, None] & mask[..., None, :]
    poisoned = (
        torch.where(mask[..., None], s, poison),
        torch.where(pairs[..., None], z, poison),
        torch.where(mask[..., None, None], frame.rot, poison),
        torch.where(mask[..., None], frame.trans, poison),
    )
    given_mask = mask.float() if as_float else mask
    clean, clean_grads = run(layer, *leaves(s, z, frame), given_mask)
    output, grads = run(layer, *(x.requires_grad_() for x in poisoned), given_mask)
    assert torch.equal(output, clean)
    for a, b in zip(grads, clean_grads, strict=True):
        assert torch.isfinite(a).all() and torch.equal(a, b)
    assert (output[~mask] == 0).all() and (output[mask].abs().amax(dim=-1) > 0).all()
    for gradient, kept in zip(grads, (mask, pairs, mask, mask), strict=False):
        assert (gradient[~kept] == 0).all() and (gradient[kept] != 0).any()


def test_masked_residues_are_as_good_as_absent():
    layer, (s, z, frame, _) = randomised(dtype=torch.float64), inputs(6, dtype=torch.float64)
    mask = torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.bool)
    present = layer(s[mask], z[mask][:, mask], Frame(frame.rot[mask], frame.trans[mask]), mask[mask])
    assert_within(layer(s, z, frame, mask)[mask] - present, 1e-11)


def test_a_key_that_would_win_every_row_loses_to_the_mask():
    # The masked residue sits on top of the others' points with a pair bias that no additive mask of −10⁵ could beat.
    layer, (s, z, frame, mask) = randomised(), inputs(5)
    mask[2] = False
    z[:, 2] = 1e8
    tempting = layer(s, z, frame, mask)
    z[:, 2] = 0.0
    assert torch.equal(tempting, layer(s, z, frame, mask))


def test_a_sample_without_residues_is_zero_with_zero_gradients_beside_one_that_is_not():
    layer, (s, z, frame, mask) = randomised(), inputs(2, 5)
    mask[0] = False
    output, (gs, gz, grot, gtrans, *rest) = run(layer, *leaves(s, z, frame), mask)
    assert (output[0] == 0).all() and (output[1] != 0).any()
    for gradient in (gs, gz, grot, gtrans):
        assert (gradient[0] == 0).all() and (gradient[1] != 0).any() and torch.isfinite(gradient).all()
    assert all(torch.isfinite(gradient).all() for gradient in rest)


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 1), (2, 2, 3), (0,), (2, 0), (0, 4)])
def test_small_and_empty_shapes_work(shape):
    layer, (s, z, frame, mask) = randomised(), inputs(*shape)
    for pair in (z, None):
        output = layer(s, pair, frame, mask)
        assert output.shape == (*shape, C_S) and torch.isfinite(output).all()
        assert output.numel() == 0 or (output != 0).any()


def test_a_batch_is_its_samples():
    layer, (s, z, frame, mask) = randomised(dtype=torch.float64), inputs(2, 3, 5, dtype=torch.float64)
    mask[1, 2, 3:] = False
    batched = layer(s, z, frame, mask)
    for a in range(2):
        for b in range(3):
            sample = layer(s[a, b], z[a, b], Frame(frame.rot[a, b], frame.trans[a, b]), mask[a, b])
            assert_within(batched[a, b] - sample, 1e-11)


# ---------------------------------------------------------------------------------------------------------------------
# Precision: what autocast and TF32 may touch


class ShortProducts(TorchDispatchMode):
    """Every float32 matrix product sees operands of `bits` mantissa bits: 10 is what TF32 makes of them, 7 autocast."""

    products = (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm, torch.ops.aten.baddbmm, torch.ops.aten.mv)

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.dropped = 23 - bits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in self.products:
            args = tuple(self.cut(x) if isinstance(x, torch.Tensor) else x for x in args)
        return func(*args, **(kwargs or {}))

    def cut(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.float32:
            return x
        return (x.view(torch.int32) & -(1 << self.dropped)).view(torch.float32)


def geometry_alone(seed: int) -> tuple[InvariantPointAttention, Frame]:
    """A layer whose weights hang on the frames alone, with local points that bfloat16 and TF32 hold exactly.

    Points are biases, multiples of 1/32 under ½; scalar queries and pair bias are zero. All is small, so that logits
    are of order 1 and the budget stays well under the 10⁻³ nm by which ten bits of a coordinate of 1 nm are off.
    """
    layer = randomised(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in ("linear_q", "linear_kv", "linear_q_points", "linear_kv_points", "linear_b"):
            getattr(layer, name).weight.zero_()
            getattr(layer, name).bias.zero_()
        for name in ("linear_q_points", "linear_kv_points"):
            bias = getattr(layer, name).bias
            bias.copy_(torch.randint(-15, 16, bias.shape, generator=generator) / 32)
    trans = (0.5 * torch.randn(9, 3, generator=generator) * 512).round() / 512
    return layer, Frame(rotations(9, generator=generator).float(), trans)


def point_features(layer: InvariantPointAttention, frame: Frame) -> torch.Tensor:
    """What the last projection reads of the value points and their norms."""
    seen = []
    handle = layer.linear_out.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    n = frame.trans.shape[0]
    dtype = layer.head_weights.dtype
    with torch.no_grad():
        layer(torch.ones(n, C_S, dtype=dtype), None, frame, torch.ones(n))
    handle.remove()
    return seen[0][:, H * C : H * (C + 4 * PV)]


def geometry_error(layer: InvariantPointAttention, frame: Frame) -> float:
    """nm: how far float32 value points may be off, from the budget of the logits alone (see above)."""
    biases = torch.cat([layer.linear_q_points.bias, layer.linear_kv_points.bias]).detach()
    local = biases.abs().max().item() * math.sqrt(3)
    distance = (frame.trans[:, None] - frame.trans).norm(dim=-1).max().item()
    extent = distance + 2 * local
    gamma = torch.nn.functional.softplus(layer.head_weights).max().item() / math.sqrt(3 * 9 / 2 * P)
    error = 2 * U * (12 * local + 4 * (distance + local))
    logit = 0.5 * gamma * P * (2 * extent * error + (3 * P + 8) * U * extent**2)
    return extent * (math.expm1(2 * logit) + 17 * U)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bits", [10, 7])
def test_short_matrix_products_do_not_reach_the_geometry(seed, bits):
    layer, frame = geometry_alone(seed)
    with ShortProducts(bits):
        seen = point_features(layer, frame)
    exact = point_features(layer.double(), Frame(frame.rot.double(), frame.trans.double()))
    budget = geometry_error(layer, frame)
    assert budget < 1.2e-4, "a budget as wide as the error of ten bits proves nothing"
    assert_within(seen.double() - exact, budget)


@pytest.mark.parametrize("seed", range(5))
def test_value_points_are_as_exact_sixteen_thousand_nanometres_away(seed):
    layer, frame = geometry_alone(seed)
    far = Frame(frame.rot, frame.trans + 2.0**14)  # multiples of 2⁻⁹: exact
    assert torch.equal(far.trans - 2.0**14, frame.trans)
    error = point_features(layer, far) - point_features(layer, frame)
    assert_within(error, 2 * geometry_error(layer, frame))


@pytest.mark.parametrize("seed", range(5))
def test_bfloat16_autocast_does_not_reach_the_geometry(seed):
    layer, frame = geometry_alone(seed)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = point_features(layer, frame)
    exact = point_features(layer.double(), Frame(frame.rot.double(), frame.trans.double()))
    # the finished features are rounded to bfloat16 on their way into the last projection, and nothing before
    assert_within(seen.double() - exact, geometry_error(layer, frame) + exact.abs() * 2.0**-8)


def test_bfloat16_autocast_keeps_neighbours_apart_a_thousand_nanometres_away():
    layer, (s, z, frame, mask) = randomised(), inputs(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near, far = layer(s, z, frame, mask), layer(s, z, Frame(frame.rot, frame.trans + 1024.0), mask)
    # the same features but for float32 rounding, which may tip a rounding to bfloat16: one step of the largest feature
    with torch.no_grad():
        features = frame.trans.norm(dim=-1).max() * 2 + 2 * layer.linear_kv_points(s).abs().max()
        step = 2.0**-8 * layer.linear_out.weight.abs().sum(dim=-1) * features
    assert near.dtype == torch.bfloat16
    assert_within(far.float() - near.float(), 2 * step)


def test_float64_frames_are_not_rounded_to_the_dtype_of_s():
    layer, (s, z, frame, mask) = randomised(), inputs(6)
    nudge = frame.trans.double() + torch.linspace(0, 1e-3, 18, dtype=torch.float64).reshape(6, 3)
    wide = Frame(frame.rot.double(), nudge + 2.0**20)  # float32 would keep 1/16 nm of it
    assert_within(layer(s, z, wide, mask) - layer(s, z, Frame(frame.rot.double(), nudge), mask), 1e-4)
    assert layer(s, z, wide, mask).dtype == torch.float32


def test_float64_input_gives_float64_digits():
    layer, (s, z, frame, mask) = randomised(dtype=torch.float64), inputs(6, dtype=torch.float64)
    moved = Frame(frame.rot, frame.trans + 1024.0)
    assert_within(layer(s, z, moved, mask) - layer(s, z, frame, mask), 1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_frames_are_refused_with_the_remedy(dtype):
    s, z, frame, mask = inputs(4)
    with pytest.raises(ValueError, match=r"\.float\(\)"):
        randomised()(s, z, openfold_rigid(frame.rot.to(dtype), frame.trans.to(dtype)), mask)


# ---------------------------------------------------------------------------------------------------------------------
# Gradients, and other rigid objects


@pytest.mark.parametrize("with_pairs", [True, False])
def test_gradients_are_those_of_finite_differences(with_pairs):
    layer, (s, z, frame, mask) = randomised(dtype=torch.float64), inputs(4, dtype=torch.float64)
    mask[2] = False
    names = [name for name, _ in layer.named_parameters() if with_pairs or not name.startswith("linear_b")]
    values = dict(layer.named_parameters())

    def call(s, z, rot, trans, *parameters):
        arguments = (s, z if with_pairs else None, Frame(rot, trans), mask)
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), arguments)

    arguments = [*leaves(s, z, frame), *(values[name].detach().clone().requires_grad_() for name in names)]
    if not with_pairs:
        arguments[1] = z
    assert torch.autograd.gradcheck(call, arguments, fast_mode=True)


def test_gradients_are_finite_where_value_points_meet_the_origin():
    layer, (s, z, frame, mask) = randomised(), inputs(3)
    with torch.no_grad():
        layer.linear_kv_points.weight.zero_()
        layer.linear_kv_points.bias.zero_()
    together = Frame(frame.rot, torch.zeros_like(frame.trans))
    output, gradients = run(layer, *leaves(s, z, together), mask)
    assert torch.isfinite(output).all() and all(torch.isfinite(gradient).all() for gradient in gradients)


def openfold_rigid(rot: torch.Tensor, trans: torch.Tensor) -> SimpleNamespace:
    rotation = SimpleNamespace(get_rot_mats=lambda: rot)
    return SimpleNamespace(get_rots=lambda: rotation, get_trans=lambda: trans)


def test_any_rigid_object_will_do_and_nothing_else():
    layer, (s, z, frame, mask) = randomised(), inputs(5)
    expected = layer(s, z, frame, mask)
    assert torch.equal(layer(s, z, openfold_rigid(frame.rot, frame.trans), mask), expected)
    gaussian = GaussianRigid(frame, torch.ones_like(frame.trans), torch.zeros_like(frame.trans))
    assert torch.equal(layer(s, z, gaussian, mask), expected)
    with pytest.raises(TypeError, match="r must be"):
        layer(s, z, frame.trans, mask)
