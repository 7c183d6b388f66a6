"""The part of a trace's logits that is no geometry, from the definition: `scalar` = q·k/√c_hidden, and the pair bias.

q and k are put together again in float64 from the layer's own parameters under the names that docs/presets.md's layer
has, `linear_q` of rows [h, c] and `linear_kv` of rows [h, 2c], keys first; the pair bias from `linear_b`. A layer that
names them otherwise is not judged here. With A = |W||x| + |b|, a projection of m terms errs by (m + 2) u A, a product
of c terms by (c + 2) u more, and its scale by 2u (docs/theory.md, 13.1).
"""

from torch import Tensor, nn

from iga import bounds
from iga.testing.layer.subject import Observation
from iga.testing.tally import Tally

__all__ = ["judge_content"]


def judge_content(seen: Observation, tally: Tally) -> None:
    """A trace's scalar logits and pair bias at valid pairs, each over its own budget."""
    trace, case, profile = seen.trace, seen.case, seen.subject.profile
    heads, channels, features = profile.no_heads, profile.c_hidden, profile.c_s
    u = bounds.unit_roundoff(case.s.dtype)
    valid = (case.mask[..., :, None] & case.mask[..., None, :])[..., None, :, :].expand(trace.scalar.shape)
    queries, both = (_linear(seen.layer, name) for name in ("linear_q", "linear_kv"))
    if _has_rows(queries, heads * channels, features) and _has_rows(both, 2 * heads * channels, features):
        (q, q_size), (kv, kv_size) = (_applied(x, case.s) for x in (queries, both))
        q, q_size = (x.unflatten(-1, (heads, channels)).transpose(-3, -2) for x in (q, q_size))
        k, k_size = (x.unflatten(-1, (heads, 2, channels))[..., 0, :].transpose(-3, -2) for x in (kv, kv_size))
        limit = (2 * features + channels + 8) * u * (q_size @ k_size.mT) * channels**-0.5
        error = (trace.scalar.detach().double() - (q @ k.mT) * channels**-0.5).abs()
        tally.add((error / limit.clamp(min=1e-300))[valid], 1.0, f"{seen.label}: scalar logit, of its budget")
    biases = _linear(seen.layer, "linear_b")
    if trace.pair_bias is not None and _has_rows(biases, heads, profile.c_z):
        bias, size = (x.movedim(-1, -3) for x in _applied(biases, case.z))
        error = (trace.pair_bias.detach().double() - bias).abs() / ((profile.c_z + 2) * u * size).clamp(min=1e-300)
        tally.add(error[valid], 1.0, f"{seen.label}: pair bias, of its budget")


def _linear(layer: nn.Module, name: str) -> tuple[Tensor | None, Tensor | None]:
    """(weight, bias) of the projection of that name."""
    parameters = dict(layer.named_parameters())
    return parameters.get(f"{name}.weight"), parameters.get(f"{name}.bias")


def _has_rows(linear: tuple[Tensor | None, Tensor | None], rows: int, columns: int) -> bool:
    weight, bias = linear
    return weight is not None and weight.shape == (rows, columns) and (bias is None or bias.shape == (rows,))


def _applied(linear: tuple[Tensor | None, Tensor | None], x: Tensor) -> tuple[Tensor, Tensor]:
    """(W x + b, |W||x| + |b|), float64."""
    weight, bias = linear
    assert weight is not None
    w, x = weight.detach().double(), x.detach().double()
    if bias is None:
        return x @ w.T, x.abs() @ w.abs().T
    b = bias.detach().double()
    return x @ w.T + b, x.abs() @ w.abs().T + b.abs()
