"""Tensors in a JSON document: shape, type and the bytes in base64. Reading one runs nothing and unpickles nothing."""

import base64
import binascii
from typing import Any

import torch

from iga._typing import Tensor

__all__ = ["packed", "unpacked"]

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "int64": torch.int64, "uint8": torch.uint8}


def packed(x: Tensor) -> dict[str, Any]:
    """A float32, float64, int64 or uint8 tensor as {dtype, shape, bytes}."""
    name = str(x.dtype).removeprefix("torch.")
    data = x.detach().contiguous().cpu().numpy().tobytes()
    return {"dtype": _known(name), "shape": list(x.shape), "bytes": base64.b64encode(data).decode("ascii")}


def unpacked(of: Any, shape: tuple[int | None, ...]) -> Tensor:
    """The tensor; None in `shape` is any length. Raises ValueError for what is no such thing."""
    try:
        data, lengths, dtype = base64.b64decode(of["bytes"], validate=True), list(of["shape"]), _DTYPES[of["dtype"]]
        fits = len(lengths) == len(shape) and all(b is None or a == b for a, b in zip(lengths, shape, strict=True))
        if not fits:
            raise ValueError(f"shape {lengths}")
        if not data:
            return torch.empty(lengths, dtype=dtype)
        return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype).reshape(lengths).clone()
    except (KeyError, TypeError, binascii.Error, RuntimeError) as error:
        raise ValueError(f"no tensor: {error}") from error


def _known(name: str) -> str:
    if name not in _DTYPES:
        raise ValueError(f"a {name} tensor is not kept")
    return name
