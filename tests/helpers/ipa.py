"""Randomised layers of invariant point attention, their inputs, and algorithm 22 in NumPy as judge.

Every parameter is randomised: the zero last projection of a new layer would hide everything.
"""

import math
from types import SimpleNamespace

import numpy as np
import torch

from iga.frame import Frame
from iga.ipa import InvariantPointAttention

U = 2.0**-24  # unit roundoff of float32
NAN = float("nan")
C_S, C_Z, C, H, P, PV = 6, 5, 4, 3, 4, 2


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


def openfold_rigid(rot: torch.Tensor, trans: torch.Tensor) -> SimpleNamespace:
    rotation = SimpleNamespace(get_rot_mats=lambda: rot)
    return SimpleNamespace(get_rots=lambda: rotation, get_trans=lambda: trans)


def leaves(s: torch.Tensor, z: torch.Tensor, frame: Frame) -> tuple[torch.Tensor, ...]:
    return tuple(x.clone().requires_grad_() for x in (s, z, frame.rot, frame.trans))


def run(layer: InvariantPointAttention, s, z, rot, trans, mask) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The output, and the gradients of the inputs and of every parameter."""
    output = layer(s, z, Frame(rot, trans), mask)
    weights = torch.linspace(-1, 2, output.numel()).reshape(output.shape)
    return output.detach(), list(torch.autograd.grad((output * weights).sum(), [s, z, rot, trans, *layer.parameters()]))


def assert_within(error: torch.Tensor, budget: torch.Tensor | float) -> None:
    assert torch.isfinite(error).all(), "not finite"
    assert (error.abs() <= budget).all(), f"worst {error.abs().max().item():.3e}, budget {budget}"


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


def algorithm_22(tables, state: dict, s, z, frame: Frame, mask, **options) -> torch.Tensor:
    """[n, c_s] in float64; masked residues are left out of the loops, and zero. Options as `by_loops` has them."""
    return by_loops(tables, state, s, z, frame, mask, **options)[0]


def by_loops(
    tables, state: dict, s, z, frame: Frame, mask, *, c_z: int = C_Z, eps: float = 1e-8, pair_values=None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The output, and the largest point term and weight of each row [h, n]. What is averaged over the keys is z, or
    `pair_values` in its place."""
    w = {name: value.double().numpy() for name, value in state.items()}
    s, rot, trans = s.double().numpy(), frame.rot.double().numpy(), frame.trans.double().numpy()
    z = None if z is None else z.double().numpy()
    pair_values = z if pair_values is None else pair_values.double().numpy()
    valid = [i for i in range(len(s)) if mask[i]]
    t = tables(w, s)
    out, (absmax, largest) = np.zeros((len(s), C_S)), np.zeros((2, H, len(s)))
    w_c, w_l = math.sqrt(2 / (9 * P)), math.sqrt(1 / 3)
    for i in valid:
        o, xyz, norms, pair = [], ([], [], []), [], []
        for h in range(H):
            gamma = math.log1p(math.exp(w["head_weights"][h]))
            logits, terms = [], []
            for j in valid:
                squares = 0.0
                for p in range(P):
                    difference = (rot[i] @ t.qp[i, h, p] + trans[i]) - (rot[j] @ t.kp[j, h, p] + trans[j])
                    squares += difference @ difference
                bias = 0.0 if z is None else w["linear_b.weight"][h] @ z[i, j] + w["linear_b.bias"][h]
                terms.append(w_l * 0.5 * gamma * w_c * squares)
                logits.append(w_l * (t.q[i, h] @ t.k[j, h] / math.sqrt(C) + bias) - terms[-1])
            a = np.exp(np.array(logits) - max(logits))
            a /= a.sum()
            absmax[h, i], largest[h, i] = max(terms), max(a)
            o += list(sum(a[m] * t.v[j, h] for m, j in enumerate(valid)))
            for p in range(PV):
                point = sum(a[m] * (rot[j] @ t.vp[j, h, p] + trans[j]) for m, j in enumerate(valid))
                local = rot[i].T @ (point - trans[i])
                for axis in range(3):
                    xyz[axis].append(local[axis])
                norms.append(math.sqrt(local @ local + eps))
            pair += [0.0] * c_z if z is None else list(sum(a[m] * pair_values[i, j] for m, j in enumerate(valid)))
        features = np.array([*o, *xyz[0], *xyz[1], *xyz[2], *norms, *pair])
        out[i] = w["linear_out.weight"] @ features + w["linear_out.bias"]
    return torch.from_numpy(out), torch.from_numpy(absmax), torch.from_numpy(largest)
