"""The pairs in which a quantity of a call is worst, and the residues that stand in many of them."""

import math
from collections import Counter
from collections.abc import Sequence

from iga._typing import Float, Tensor
from iga.diagnostics import SATURATION
from iga.report.inspected import Extreme, Often, Saturated

__all__ = ["extremes", "rows_saturated"]

# quantity → (unit, whether the least is the worst); of the others the largest magnitude is
QUANTITIES = {
    "log_det": ("ln nm⁶", True),
    "dist_sq": ("1", False),
    "geometry_logit": ("nat", False),
    "logits": ("nat", False),
}
PAIRS, RESIDUES, ROWS = 8, 6, 12  # a table of what to look at first, not of all
SHARE = 0.01  # of pairs, the worst, in which residues are counted


def extremes(
    tensors: dict[str, Tensor], names: Sequence[str], distance: Float[Tensor, "n n"]
) -> tuple[list[Extreme], list[Often]]:
    """Of each quantity that is shown and varies, the worst pairs, each with its worst head and point."""
    pairs: list[Extreme] = []
    often: list[Often] = []
    for quantity, (unit, lowest) in QUANTITIES.items():
        if quantity not in tensors or (quantity == "logits" and "geometry_logit" in tensors):
            continue
        x = tensors[quantity].double()
        x = x[:, None] if x.ndim == 3 else x  # [h, p, q, k]
        bad = (-x if lowest else x.abs()).nan_to_num(nan=math.inf, posinf=math.inf)
        if quantity == "logits":  # −∞ excludes a key
            bad = bad.masked_fill(x.isneginf(), -math.inf)
        worst, place = bad.flatten(0, 1).max(dim=0)  # over heads and points, [q, k]
        if not bool((worst != worst[0, 0]).any()):
            continue
        order = worst.flatten().argsort(descending=True, stable=True)
        n, points = int(worst.shape[-1]), int(x.shape[1])
        for at in order[:PAIRS].tolist():
            q, k = divmod(int(at), n)
            head, point = divmod(int(place[q, k]), points)
            value = float(x[head, point, q, k])
            pairs.append(
                {
                    "quantity": quantity,
                    "unit": unit,
                    "value": value if math.isfinite(value) else None,
                    "head": head,
                    "point": point if tensors[quantity].ndim == 4 else -1,
                    "query": names[q],
                    "key": names[k],
                    "distance": round(float(distance[q, k]), 4),
                }
            )
        some = order[: max(PAIRS, round(SHARE * len(order)))]
        count: Counter[int] = Counter(i for at in some.tolist() for i in dict.fromkeys(divmod(int(at), n)))
        for i, times in count.most_common(RESIDUES):
            often.append({"quantity": quantity, "residue": names[i], "count": times, "of": len(some)})
    return pairs, often


def rows_saturated(
    weights: Float[Tensor, "h q k"], names: Sequence[str], distance: Float[Tensor, "n n"]
) -> list[Saturated]:
    """The rows of which one key holds more than `SATURATION`, the heaviest first."""
    largest, key = weights.double().max(dim=-1)
    heads, queries = (largest > SATURATION).nonzero(as_tuple=True)
    order = largest[heads, queries].argsort(descending=True, stable=True)[:ROWS]
    return [
        {
            "head": h,
            "query": names[q],
            "key": names[int(key[h, q])],
            "weight": float(largest[h, q]),
            "distance": round(float(distance[q, int(key[h, q])]), 4),
        }
        for h, q in zip(map(int, heads[order]), map(int, queries[order]), strict=True)
    ]
