"""The operator's arguments, compared once: every ValueError names the argument, what was expected and what came."""

from collections.abc import Sequence

from iga._arguments import FEATURE_DTYPES, GEOMETRY_DTYPES, check_dense, check_mask
from iga._typing import Tensor
from iga.frame import Frame

__all__ = ["check_arguments"]


def check_arguments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    value_points: Tensor,
    query: tuple[Tensor, Tensor],
    key: tuple[Tensor, Tensor],
    frame: Frame,
    mask: Tensor,
    geo_scale: Tensor,
    geo_bias: Tensor,
    gate: Tensor | None,
    bias: Tensor | None,
    z: Tensor | None,
    z_weight: Tensor | None,
) -> None:
    """Raises ValueError for a shape, dtype or device that does not fit `gaussian_attention`."""
    for name, pair in (("query", query), ("key", key)):
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(f"{name} must be a tuple (mean, sigma), each [*b, h, p, n, 3]; got {type(pair).__name__}")
    named = {"q": q, "k": k, "v": v, "value_points": value_points, "bias": bias, "z": z, "z_weight": z_weight}
    named |= {"geo_scale": geo_scale, "geo_bias": geo_bias, "gate": gate}
    gaussians = {"query's mean": query[0], "query's sigma": query[1], "key's mean": key[0], "key's sigma": key[1]}
    for name, tensor in named.items():
        if tensor is not None or name in ("q", "k", "v", "value_points", "geo_scale", "geo_bias"):
            check_dense(name, tensor, FEATURE_DTYPES)
    check_mask(mask)
    if not isinstance(frame, Frame):
        raise ValueError(f"frame must be an iga.Frame, got {type(frame).__name__}; pass iga.rigid_to_frame(frame)")
    if frame.dtype not in GEOMETRY_DTYPES:
        raise ValueError(
            f"frame must be float32 or float64, got {frame.dtype}; call .float(): geometry needs the digits"
        )
    for name, tensor in gaussians.items():
        if isinstance(tensor, Tensor) and tensor.dtype != frame.dtype:
            raise ValueError(
                f"{name} must have the dtype of frame, {frame.dtype}, got {tensor.dtype}; convert one of them"
            )
        check_dense(name, tensor, GEOMETRY_DTYPES)
    if q.ndim < 3:
        raise ValueError(f"q must be [*b, h, n, c], got {list(q.shape)}")
    if query[0].ndim < 4:
        raise ValueError(f"query's mean must be [*b, h, p, n, 3], got {list(query[0].shape)}")
    *lead, heads, n, channels = q.shape
    points = query[0].shape[-3]
    if points < 1 or heads < 1 or channels < 1:
        raise ValueError(
            f"q {list(q.shape)} and query's mean {list(query[0].shape)} need at least 1 head, channel, point"
        )

    of_points = (*lead, heads, points, n, 3)
    _shape("k", k, q.shape, "[*b, h, n, c], like q")
    _shape("v", v, (*lead, heads, n, None), "[*b, h, n, cv]")
    _shape("value_points", value_points, (*lead, heads, n, None, 3), "[*b, h, n, pv, 3]")
    for name, tensor in gaussians.items():
        _shape(name, tensor, of_points, "[*b, h, p, n, 3], with the p of query's mean")
    _shape("frame", frame.trans, (*lead, n, 3), "one frame per residue, [*b, n]")
    _shape("mask", mask, (*lead, n), "[*b, n]")
    _shape("geo_scale", geo_scale, (heads,), "[h]")
    _shape("geo_bias", geo_bias, (heads,), "[h]")
    if gate is not None:
        _shape("gate", gate, tuple(lead), "[*b]")
    if bias is not None:
        _shape("bias", bias, (*lead, heads, n, n), "[*b, h, n, n]")
    if z is not None:
        _shape("z", z, (*lead, n, n, None), "[*b, n, n, cz]")
        if z_weight is not None:
            _shape("z_weight", z_weight, (heads, z.shape[-1]), "[h, cz], with the cz of z")
    elif z_weight is not None:
        raise ValueError("z_weight was given without z: pass the pair features too, or neither")

    device = q.device
    for name, tensor in {**named, **gaussians, "mask": mask, "frame": frame.trans}.items():
        if tensor is not None and tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device} and q on {device}; move all tensors to one device")


def _shape(name: str, tensor: Tensor, expected: Sequence[int | None], words: str) -> None:
    """None matches any length."""
    fits = tensor.ndim == len(expected) and all(
        want is None or want == have for want, have in zip(expected, tensor.shape, strict=True)
    )
    if not fits:
        shown = ", ".join("any" if want is None else str(want) for want in expected)
        raise ValueError(f"{name} must be {words}: [{shown}]; got {list(tensor.shape)}")
