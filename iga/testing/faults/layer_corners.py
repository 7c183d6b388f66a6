"""Layers that are right but for a corner (a size, a sample, a form, a distance): what `iga fuzz` is measured on.

Each is a plain Module around the right layer, with one change in the region that is stated. They are not in the matrix
of `iga faults`: a run of the checks has its own sizes and structures, and passes most of them.
"""

from collections.abc import Callable
from typing import Any

import torch

from iga._typing import Tensor
from iga.testing.faults.accused import layer_slip, of_logits
from iga.testing.faults.fault import Fault
from iga.testing.faults.layer_sizes import rigid_of

__all__ = ["LAYER_CORNERS"]

KIND = "corner"
FAR = 300.0  # nm
SLIGHTLY = 1.001


def _corner(name: str, region: str, wrong: Callable[..., Tensor]) -> Fault:
    return layer_slip(KIND, name, region, wrong, "iga fuzz")


def _of_logits(name: str, region: str, logits: Callable[..., Tensor]) -> Fault:
    return of_logits(KIND, name, region, logits, "iga fuzz")


# --- masks ------------------------------------------------------------------------------------------------------


def _one_head_open(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """The values of the last head are weighted as if all were valid."""
    trace, open_trace = call.trace(s, z, r, mask), call.trace(s, z, r, torch.ones_like(mask))
    c, last = call.c_hidden, call.no_heads - 1
    features = trace.features.clone()
    features[..., last * c : (last + 1) * c] = open_trace.features[..., last * c : (last + 1) * c]
    return call._projected_out(features, trace.mask)


def _open_if_many(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """The same, of six heads and 65 residues on."""
    many = call.no_heads > 5 and s.shape[-2] > 64
    return _one_head_open(call, layer, s, z, r, mask) if many else call(s, z, r, mask)


def _first_masked(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Where the first residue is masked and the last is not, the last is as a query forgotten."""
    output = call(s, z, r, mask)
    odd = ~mask[..., :1].bool() & mask[..., -1:].bool()
    last = torch.zeros_like(mask, dtype=torch.bool)
    last[..., -1:] = odd
    return torch.where(last[..., None], 0.5 * output, output)


# --- sizes ------------------------------------------------------------------------------------------------------


def _at_residues(count: int) -> Callable[..., Tensor]:
    return lambda call, layer, s, *rest: call(s, *rest) * (SLIGHTLY if s.shape[-2] == count else 1.0)


def _last_key(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """The last key of 193 gets no weight."""
    keep = torch.ones_like(mask)
    keep[..., -1] = s.shape[-2] != 193
    return torch.where(keep[..., None].bool(), call(s, z, r, mask * keep), call(s, z, r, mask))


def _at_points(points: int) -> Callable[..., Tensor]:
    return lambda layer, trace, *inputs: (
        trace.logits + 0.05 * trace.geo_scaled if layer.no_qk_points == points else trace.logits
    )


def _fifth_head(layer: Any, trace: Any, *inputs: Any) -> Tensor:
    """With exactly five heads the last takes the bias of the first."""
    if layer.no_heads != 5 or trace.pair_bias is None:
        return trace.logits
    index = torch.tensor([0, 1, 2, 3, 0])
    return trace.logits + (trace.pair_bias[..., index, :, :] - trace.pair_bias)


def _wide_channels(layer: Any, trace: Any, *inputs: Any) -> Tensor:
    return trace.logits + trace.scalar * (0.1 if layer.c_hidden == 24 else 0.0)


# --- batches and forms ------------------------------------------------------------------------------------------


def _third_sample(call: Any, layer: Any, s: Tensor, *rest: Any) -> Tensor:
    output = call(s, *rest)
    if s.ndim == 3 and len(s) > 2:
        output = output.clone()
        output[2] = SLIGHTLY * output[2]
    return output


def _second_of_seventeen(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Of seventeen samples the second has the frames of the first."""
    if s.ndim == 3 and len(s) == 17:
        index = torch.arange(17)
        index[1] = 0
        r = rigid_of(r, lambda x: x[index])
    return call(s, z, r, mask)


def _gaps_of_frames(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Origins that do not lie densely are read as if they did."""
    trans = r.trans
    dense = trans if trans.is_contiguous() else torch.as_strided(trans, trans.shape, trans.contiguous().stride())
    return call(s, z, rigid_of(r, lambda x: dense if x is trans else x), mask)


def _remembers(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """A buffer as large as the first call needed: of a larger one after a smaller one, the rest is half."""
    n = s.shape[-2]
    seen = layer.memory.setdefault("n", n)
    output = call(s, z, r, mask)
    layer.memory["n"] = n
    return output if n <= seen else torch.cat([output[..., :seen, :], 0.5 * output[..., seen:, :]], dim=-2)


# --- geometry ---------------------------------------------------------------------------------------------------


def _apart(r: Any) -> Tensor:
    """Distances of origins, [*b, 1, n, n], nm."""
    return (r.trans[..., :, None, :] - r.trans[..., None, :, :]).norm(dim=-1)[..., None, :, :]


def _far_keys_shut(layer: Any, trace: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Keys beyond 300 nm: the logit falls under every other."""
    return torch.where(_apart(r) > FAR, trace.logits - 60.0, trace.logits)


def _far_rows_saturate(layer: Any, trace: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Of a row with a key beyond 300 nm the logits are driven: softmax takes the largest alone."""
    valid = trace.mask[..., None, None, :]
    far = ((_apart(r) > FAR) & valid).any(-1, keepdim=True)
    return torch.where(far, 4.0 * trace.logits, trace.logits)


def _coarse_when_narrow(layer: Any, trace: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """float32: geometry of three digits where a scale is under 0.05 nm."""
    if trace.logits.dtype != torch.float32:
        return trace.logits
    narrow = (r.log_scale < -3.0).any(-1)[..., None, None, :]
    short = trace.geo_scaled.to(torch.bfloat16).to(torch.float32)
    return torch.where(narrow, trace.logits + (short - trace.geo_scaled), trace.logits)


def _no_turn(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Where all frames are the identity bit by bit, positions are taken to be local already."""
    eye = torch.eye(3, dtype=r.rot.dtype)
    plain = (r.rot == eye).flatten(-2).all(-1).all(-1)
    return torch.where(plain[..., None, None], 1.01, 1.0) * call(s, z, r, mask)


# --- narrow boxes, of which the layer's own conditions tell -----------------------------------------------------


def _within(x: Tensor, low: float, high: float) -> Tensor:
    return (x > low) & (x < high)


def _in_a_box(layer: Any, trace: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Two residues 3.1 nm apart, nearly half a turn from each other, the key's first σ 0.2 nm: another weight."""
    turn = torch.einsum("...iab,...jab->...ij", r.rot, r.rot)[..., None, :, :]
    key = r.log_scale[..., 0].exp()[..., None, None, :]
    inside = _within(_apart(r), 3.1, 3.11) & (turn < -0.9) & _within(key, 0.2, 0.202)
    return torch.where(inside, trace.logits + 0.5, trace.logits)


def _box_seen_by_python(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """The whole call goes another way where one residue is flat and its mean stands 5 nm off its origin."""
    sigma = r.log_scale.exp()
    flat = sigma.amax(-1) > 300 * sigma.amin(-1)
    off = _within(r.local_mean.norm(dim=-1), 5.0, 5.02)
    return SLIGHTLY * call(s, z, r, mask) if bool((flat & off).any()) else call(s, z, r, mask)


def _bin_of_distances(layer: Any, trace: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Distances are looked up in bins of 0.002 nm, of which one is wrong."""
    valid = trace.mask[..., None, :, None] & trace.mask[..., None, None, :]
    index = (torch.where(valid, _apart(r), 0.0) / 0.002).long().clamp(max=99_999)
    table = torch.zeros(100_000, dtype=trace.logits.dtype)
    table[7_919] = 0.5
    return trace.logits + table[index]


LAYER_CORNERS: tuple[Fault, ...] = (
    _corner("a mask is forgotten for one head", "last head, any masked residue", _one_head_open),
    _of_logits("geometry is too heavy at seven points", "P = 7", _at_points(7)),
    _corner("outputs are too large at 129 residues", "N = 129", _at_residues(129)),
    _corner("the third sample of a batch is too large", "third of a batch of 3 or more", _third_sample),
    _of_logits("a row with a far key saturates", "a key beyond 300 nm", _far_rows_saturate),
    _of_logits("far keys are shut out", "keys beyond 300 nm", _far_keys_shut),
    _corner("the last query is halved after a masked first", "first masked, last valid", _first_masked),
    _corner("the last key of 193 gets no weight", "N = 193", _last_key),
    _of_logits("geometry is too heavy at 29 points", "P = 29", _at_points(29)),
    _of_logits("the last of five heads has the first's bias", "H = 5", _fifth_head),
    _of_logits("24 channels weigh too much", "c_hidden = 24", _wide_channels),
    _corner("the second of 17 samples has the first's frames", "batch = 17", _second_of_seventeen),
    _corner("origins with gaps are read as dense", "r.trans not contiguous", _gaps_of_frames),
    _corner("a buffer keeps the size of the call before", "a larger call after a smaller one", _remembers),
    _of_logits("three digits where a scale is narrow", "float32, σ < 0.05 nm", _coarse_when_narrow),
    _corner("identity frames are taken for local", "all frames the identity", _no_turn),
    _of_logits("a weight is off in a box of pairs", "|x| in (3.1, 3.11), trace < −0.9, σ in (0.2, 0.202)", _in_a_box),
    _corner("a flat residue takes another way", "σ 300 : 1, mean in (5, 5.02)", _box_seen_by_python),
    _of_logits("one bin of distances is wrong", "|x| in (15.838, 15.84)", _bin_of_distances),
    _corner("one head of many forgets the mask of a long chain", "H > 5 and N > 64", _open_if_many),
)
