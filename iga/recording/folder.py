"""The folder of a call that crossed a limit: call.json says what it was, tensors.safetensors holds its numbers.

    args.…, kwargs.…      what the layer was given
    layer.…               its parameters and buffers, by their names
    rng.cpu, rng.cuda:0   the states of torch's generators before the call

It is whole or not there. Reading it runs no code of its own: JSON, and safetensors, whose digest stands in call.json.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from iga._files import write_folder
from iga._typing import Tensor
from iga.report.schema import flaw

__all__ = ["FILES", "Crossing", "Layer", "Record", "read", "write"]

FILES = ("call.json", "tensors.safetensors")
SCHEMA = 1


class Crossing(TypedDict):
    """A limit, and the value that crossed it; of non_finite the names of what was not finite."""

    kind: str
    limit: float
    value: float | str
    names: list[str]


class Layer(TypedDict):
    """number: as in the metrics ("l0"); name: in the model; build: of this package's layers, what makes one like it."""

    number: str
    name: str
    kind: str
    training: bool
    build: dict[str, object] | None


class Record(TypedDict):
    """What call.json holds. Numbers that are not finite are words: "nan", "inf", "-inf"."""

    schema: int
    step: int
    rank: int
    date: str
    versions: dict[str, str]
    device: str
    layer: Layer
    crossed: list[Crossing]
    metrics: dict[str, float | str]
    args: object
    kwargs: object
    changed_in_place: bool
    rng: dict[str, object]
    modes: dict[str, object]
    limits: dict[str, object]
    config: object
    digest: NotRequired[str]


def number(value: float) -> float | str:
    """A float for JSON."""
    return value if math.isfinite(value) else repr(value)


def write(path: Path, record: Record, tensors: dict[str, Tensor]) -> Path:
    """The folder, at `path` or beside it where that is taken; OSError where it can't be written."""
    from safetensors.torch import save

    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        shared = tensor.untyped_storage().data_ptr() in seen
        seen.add(tensor.untyped_storage().data_ptr())
        kept[name] = tensor.clone() if shared else tensor  # safetensors refuses two names of one memory
    data = save(kept)
    words = json.dumps({**record, "digest": hashlib.sha256(data).hexdigest()}, ensure_ascii=False, allow_nan=False)
    return write_folder(path, {"tensors.safetensors": data, "call.json": (words + "\n").encode("utf-8", "replace")})


def read(path: Path) -> tuple[Record, dict[str, Tensor]]:
    """What `write` wrote. Raises ValueError, one line, for a folder that is none, or is damaged; OSError as usual."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.is_dir():
        raise ValueError(f"{path} is no folder; expected one that iga.watch wrote")
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise ValueError(f"{path} is no folder that iga.watch wrote: there is no {missing[0]}")
    file = path / "call.json"
    try:
        found: Any = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"{file} is no record of a call, of schema {SCHEMA}")
    wrong = flaw(found, Record)
    if wrong is not None or not found["crossed"]:
        raise ValueError(f"{file} is damaged: {wrong or 'no limit was crossed'}")
    data = (path / "tensors.safetensors").read_bytes()
    if hashlib.sha256(data).hexdigest() != found.get("digest"):
        raise ValueError(f"{path / 'tensors.safetensors'} is damaged: it is not what call.json was written with")
    try:
        return found, load(data)  # pyright: ignore[reportReturnType]
    except SafetensorError as error:
        raise ValueError(f"{path / 'tensors.safetensors'} is damaged: {error}") from error
