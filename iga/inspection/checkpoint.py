"""Parameters of a layer from a checkpoint: safetensors, or a file of torch, of which the tensors alone are read.

A file of torch is a pickle; `weights_only` unpickles tensors and plain containers, and refuses whatever would run code.
The layer is found by its parameters' names, whatever stands before them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from iga._text import one_line
from iga._typing import Tensor

__all__ = ["read_checkpoint", "sizes_of", "state_of_layer"]

_TELLS = ("linear_q_scales.weight", "geo_scale")  # names that a layer of Gaussians has, and no other


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Every tensor of the file by its name, those of dictionaries inside under "outer.inner". ValueError, in one line,
    for a file that holds none, or more than tensors."""
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except SafetensorError as error:
        raise ValueError(f"{one_line(path)} is no whole safetensors file: {_first(error)}") from error
    except Exception as error:  # whatever torch says of a file that is none of its own
        raise ValueError(
            f"{one_line(path)} holds more than tensors, or is no file of torch.save; write the state_dict alone, or "
            f"safetensors ({_first(error)})"
        ) from error
    tensors = dict(_named(found, ""))
    if not tensors:
        raise ValueError(f"{one_line(path)} holds no tensor by name; a state_dict is expected")
    return tensors


def _named(part: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(part, torch.Tensor):
        yield prefix.removesuffix("."), part
    elif isinstance(part, Mapping):
        for name, one in part.items():
            if isinstance(name, str):
                yield from _named(one, f"{prefix}{name}.")


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return one_line(f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__)


def state_of_layer(tensors: Mapping[str, Tensor], name: str | None = None) -> tuple[str, dict[str, Tensor]]:
    """(name, parameters) of the layer of Gaussians that `name` names; None: of the only one, or ValueError that lists
    them."""
    ends = f".{_TELLS[0]}"
    layers = [full.removesuffix(ends) for full in tensors if f".{full}".endswith(ends)]
    layers = ["" if one == _TELLS[0] else one for one in layers]
    layers = [one for one in layers if f"{one}.{_TELLS[1]}".lstrip(".") in tensors]
    if not layers:
        raise ValueError(f"the checkpoint holds no layer of Gaussians: nothing in it is called …{'.'.join(_TELLS[:1])}")
    if name is None and len(layers) > 1:
        raise ValueError(f"the checkpoint holds {len(layers)} layers, choose with --layer: {', '.join(layers)}")
    chosen = layers[0] if name is None else name
    if chosen not in layers:
        raise ValueError(f"no layer {chosen!r} in the checkpoint; layers: {', '.join(layers)}")
    prefix = f"{chosen}." if chosen else ""
    return chosen, {full[len(prefix) :]: one for full, one in tensors.items() if full.startswith(prefix)}


def sizes_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The sizes that a layer with these parameters is built with. ValueError where they fit no layer."""
    try:
        heads = state["geo_scale"].shape[0]
        (hidden, c_s), c_z = state["linear_q.weight"].shape, 0
        if "linear_b.weight" in state:
            c_z = state["linear_b.weight"].shape[1]
        sizes = {"c_s": c_s, "c_z": c_z, "c_hidden": hidden // heads, "no_heads": heads}
        sizes |= {"no_qk_points": state["linear_q_scales.weight"].shape[0] // (3 * heads)}
        sizes |= {"no_v_points": state["linear_v_points.weight"].shape[0] // (3 * heads)}
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"the checkpoint's layer is not whole: {_first(error)}") from error
    more = {"is_multimer": "linear_q.bias" not in state}
    pair = state.get("down_z.weight")
    return sizes | more | {"pair_value_dim": None if pair is None else pair.shape[0]}
