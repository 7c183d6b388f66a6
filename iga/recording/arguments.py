"""Arguments of a call as JSON beside tensors by name, and back; nothing is pickled, and no class is looked up by name.

    null, true, 7, "x"                 as they are
    {"float": "nan"}                   a Python float, in repr's words
    {"tensor": "args.0"}               a tensor of this name
    {"list": […]}, {"tuple": […]}, {"dict": [[key, value], …]}
    {"dtype": "float32"}, {"device": "cuda:0"}
    {"object": "package.module.Class", "fields": {…}}     an object and its attributes; of a named tuple, its fields
    {"left_out": "package.module.Class"}                  what cannot be kept: a module, a function, a sparse tensor

An object is made again of a class that the reader hands in: those of the folder's words are only compared with it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from iga._arguments import is_dense
from iga._typing import Tensor

__all__ = ["decoded", "encoded", "left_out"]

_DEEPEST = 50  # nested objects: of one that holds itself there is no end


def encoded(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON; its tensors go into `tensors`, by names that begin with `name`, on the host and detached."""
    return _encoded(value, name, tensors, _DEEPEST)


def _encoded(value: Any, name: str, tensors: dict[str, Tensor], depth: int) -> Any:
    def part(key: Any, one: Any) -> Any:
        return _encoded(one, f"{name}.{key}", tensors, depth - 1)

    if value is None or isinstance(value, bool | int | str) and type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return {"float": repr(value)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, Tensor) and _plain(value):
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if depth > 0 and not isinstance(value, Tensor | nn.Module | type) and not callable(value):
        if isinstance(value, tuple) and (fields := getattr(value, "_fields", None)):
            return {"object": _class(value), "fields": {key: part(key, getattr(value, key)) for key in fields}}
        for kind in (list, tuple):
            if type(value) is kind:
                return {kind.__name__: [part(number, one) for number, one in enumerate(value)]}
        if isinstance(value, dict):
            return {"dict": [[part("key", key), part(key, one)] for key, one in value.items()]}
        if hasattr(value, "__dict__"):
            return {"object": _class(value), "fields": {key: part(key, one) for key, one in vars(value).items()}}
    return {"left_out": _class(value)}


def decoded(tree: Any, tensors: Mapping[str, Tensor], classes: Mapping[str, type], device: torch.device) -> Any:
    """The value of such a tree, its tensors on `device`.

    classes   the classes that objects may have, by their name without the module
    Raises ValueError, one line, for a tree that is none, for what was left out, and for a class that is not there.
    """

    def inner(one: Any) -> Any:
        return decoded(one, tensors, classes, device)

    match tree:
        case None | bool() | int() | str():
            return tree
        case {"float": str(text)}:
            return float(text)
        case {"dtype": str(text)} if isinstance(found := getattr(torch, text, None), torch.dtype):
            return found
        case {"device": str()}:
            return device
        case {"tensor": str(name)}:
            if name not in tensors:
                raise ValueError(f"there is no tensor {name!r}")
            return tensors[name].to(device)
        case {"list": list(parts)}:
            return [inner(one) for one in parts]
        case {"tuple": list(parts)}:
            return tuple(inner(one) for one in parts)
        case {"dict": list(pairs)}:
            return {inner(key): inner(one) for key, one in pairs}
        case {"object": str(name), "fields": dict(fields)}:
            return _object(name, {key: inner(one) for key, one in fields.items()}, classes)
        case {"left_out": str(name)}:
            raise ValueError(f"an argument was a {name}, which could not be kept")
    raise ValueError("the arguments are damaged")


def left_out(tree: Any) -> list[str]:
    """The classes of what a tree could not keep."""
    if isinstance(tree, dict):
        return [tree["left_out"]] if "left_out" in tree else [x for one in tree.values() for x in left_out(one)]
    return [x for one in tree for x in left_out(one)] if isinstance(tree, list) else []


def _object(name: str, fields: dict[str, Any], classes: Mapping[str, type]) -> Any:
    kind = classes.get(name.rpartition(".")[2])
    if kind is None:
        raise ValueError(f"an argument was a {name}: the file of --target has to import that class")
    if issubclass(kind, tuple) and hasattr(kind, "_make"):
        return kind(**fields)
    made = object.__new__(kind)
    vars(made).update(fields)
    return made


def _plain(x: Tensor) -> bool:
    """Whether it can be kept: dense, and of no class that means more than its numbers."""
    return is_dense(x) and type(x) in (Tensor, nn.Parameter, nn.Buffer) and not x.is_quantized


def _class(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
