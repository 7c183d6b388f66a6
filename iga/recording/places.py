"""The place of a call's worst number: sample, head, point, query and key, in words."""

import torch

from iga._typing import Tensor
from iga.diagnostics import SATURATION
from iga.recording.reading import GEOMETRY, Seen, fitting

__all__ = ["place_of"]

_NAMES = {
    5: ("sample", "head", "point", "query", "key"),
    4: ("sample", "head", "query", "key"),
}


def place_of(kind: str, seen: Seen) -> str:
    """Where the call is worst in what a kind of limit is about; "" where it shows nothing of it."""
    if kind == "log_det" and "log_det" in seen.tensors:
        return _extreme("log_det", seen, lowest=True)
    if kind == "geometry_logit" and "geometry_logit" in seen.tensors:
        return _extreme("geometry_logit", seen, lowest=False) + _point(seen)
    if kind in ("saturated", "entropy"):
        return _row(seen, by_weight=kind == "saturated")
    return _first_not_finite(seen) if kind == "non_finite" else ""


def _extreme(name: str, seen: Seen, *, lowest: bool) -> str:
    """Of all tensors of a tap: the least number, or the largest magnitude."""
    best: tuple[float, str] | None = None
    for x in seen.tensors[name]:
        x, mask = x.detach(), fitting(x, seen.pairs)
        size = (x if lowest else -x.abs()).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        if mask is not None:
            size = size.masked_fill(~mask, torch.inf)
        if not size.numel():
            continue
        at = int(size.argmin())
        rank = float(size.flatten()[at])
        if best is None or rank < best[0]:
            best = rank, f"{name} {float(x.flatten()[at]):.6g} at {_words(at, x)}"
    return "" if best is None else best[1]


def _point(seen: Seen) -> str:
    """Of the pair with the largest geometry logit, the point with the largest score; "" where scores are not shown."""
    logits, scores = seen.tensors["geometry_logit"], seen.tensors.get("score", [])
    if len(logits) != 1 or len(scores) != 1 or scores[0].shape[2] == 1:
        return ""
    x, mask = logits[0].detach().abs().nan_to_num(nan=0.0), fitting(logits[0], seen.pairs)
    at = int((x if mask is None else x.masked_fill(~mask, -1.0)).argmax())
    b, h, q, k = (int(one) for one in torch.unravel_index(torch.tensor(at), x.shape))
    some = scores[0].detach()[:, :, :, q, k].expand(x.shape[0], x.shape[1], -1)[b, h]
    point = int(some.abs().argmax())
    return f", most of it of point {point}, whose score is {float(some[point]):.6g}"


def _row(seen: Seen, *, by_weight: bool) -> str:
    """The row with the largest weight, or the least entropy, of those that need not have it."""
    best: tuple[float, str] | None = None
    for one in seen.rows:
        if not bool(one.others.any()):
            continue
        measure = -one.largest.double() if by_weight else one.entropy.double()
        measure = measure.nan_to_num(nan=torch.inf).masked_fill(~one.others, torch.inf)
        at = int(measure.argmin())
        lead, query = divmod(at, one.largest.shape[-1])
        if best is None or float(measure.flatten()[at]) < best[0]:
            share = float((one.largest[one.others] > SATURATION).double().mean())
            number = (
                f"weight {float(one.largest.flatten()[at]):.6g}, entropy {float(one.entropy.flatten()[at]):.4g} nat"
            )
            place = f"{_lead(lead, one.lead)}query {query}, key {int(one.key.flatten()[at])}"
            best = float(measure.flatten()[at]), f"{number} at {place}; {share:.1%} of rows saturated"
    return "" if best is None else best[1]


def _lead(index: int, lead: tuple[int, ...]) -> str:
    if not lead:
        return ""
    indices = [int(one) for one in torch.unravel_index(torch.tensor(index), lead)]
    if len(lead) == 2:
        return f"sample {indices[0]}, head {indices[1]}, "
    return f"attention {', '.join(map(str, indices))} of {' × '.join(map(str, lead))}, "


def _first_not_finite(seen: Seen) -> str:
    """In the order in which a layer computes."""
    for name in GEOMETRY:
        for x in seen.tensors.get(name, []):
            bad = x.isnan() | (x == torch.inf) if name == "logits" else ~x.isfinite()
            mask = fitting(x, seen.pairs) if name not in ("sigma", "mean", "values") else None
            bad = bad if mask is None else bad & mask
            if bool(bad.any()):
                at = int(bad.flatten().long().argmax())
                return f"{name} {float(x.flatten()[at]):.6g} at {_words(at, x)}"
    for one in seen.rows:
        if bool(one.bad.any()):
            return f"softmax, {_lead(int(one.bad.long().argmax()), one.lead)}a row with a logit or weight that is not"
    return "the output"


def _words(at: int, x: Tensor) -> str:
    indices = [int(one) for one in torch.unravel_index(torch.tensor(at), x.shape)]
    names = (
        _NAMES.get(x.ndim, ()) if x.shape[-1] != 3 or x.ndim == 4 else ("sample", "head", "point", "residue", "axis")
    )
    return ", ".join(
        f"{name} {index}"
        for name, index, size in zip(names, indices, x.shape, strict=True)
        if size > 1 or name != "point"
    )
