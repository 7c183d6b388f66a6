"""Inputs that broke a check, as a file: what was called, and every number exactly, in hexadecimal.

DIR/<check>/case.json holds the check, its value and limit, where the target is, versions, and the inputs: of an overlap
function the one pair where the check names one, else the batch; of a layer the residues with sizes, number of points
and the draw of its parameters, so that it can be built again. Nothing is executed to read it: numbers are text.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import torch

from iga._files import write_text
from iga._runtime import environment
from iga._typing import Tensor
from iga.report.schema import SCHEMA, flaw
from iga.testing.latest import Call

__all__ = ["CaseFile", "SavedCase", "SavedInput", "read_case", "read_input", "write_case", "written"]

MOST = 2_000_000  # numbers of a case
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    )
}


class SavedInput(TypedDict):
    """One tensor: floats as `float.hex` writes them, whole numbers and truth values as decimal numbers."""

    dtype: str
    shape: list[int]
    values: list[str]


class SavedLayer(TypedDict):
    """What builds a layer again: its sizes, and how its parameters were drawn (`iga.testing.layer.subject`)."""

    c_s: int
    c_z: int
    c_hidden: int
    no_heads: int
    no_qk_points: int
    no_v_points: int
    made: Literal["fresh", "random", "coherent"]
    seed: int
    gain: float


class CaseFile(TypedDict):
    """A case; `target` is a place as the command line names it, or a preset. value and limit in hexadecimal."""

    schema: Literal[1]
    document: Literal["case"]
    kind: Literal["overlap", "layer"]
    target: str
    check: str
    value: str
    limit: str
    unit: str
    where: str
    note: str
    seed: int
    dtype: str
    versions: dict[str, str]
    layer: SavedLayer | None
    inputs: dict[str, SavedInput]


@dataclass(frozen=True, eq=False)
class SavedCase:
    """A case that was read: the file's words, and its tensors by name."""

    words: CaseFile
    inputs: dict[str, Tensor]

    @property
    def of_test(self) -> bool:
        """Whether it is a failing example of a test: its check is the test's id, as pytest has it."""
        return "::" in self.words["check"]


def write_case(path: Path, call: Call, facts: dict[str, Any]) -> None:
    """The call's inputs and `facts` (target, check, value, limit, unit, where, note, seed) as the file `path`, whole.

    Folders are made. Raises ValueError for inputs of too many numbers, OSError where the file can't be written.
    """
    count = sum(x.numel() for x in call.inputs.values())
    if count > MOST:
        raise ValueError(f"{count} numbers, of which a case holds {MOST} at most")
    versions = {name: str(value) for name, value in environment(0).items() if name in ("iga", "python", "torch")}
    dtype = next((_name(x.dtype) for x in call.inputs.values() if x.dtype.is_floating_point), "float32")
    document = {
        "schema": SCHEMA,
        "document": "case",
        "kind": call.kind,
        **facts,
        "value": float(facts["value"]).hex(),
        "limit": float(facts["limit"]).hex(),
        "dtype": dtype,
        "versions": versions,
        "layer": call.layer or None,
        "inputs": {name: written(x) for name, x in call.inputs.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_case(path: Path) -> SavedCase:
    """The case in a file. Raises ValueError, in one line, where it holds none that is whole; OSError if unreadable."""
    try:
        found: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    wrong = flaw(found, CaseFile)
    if wrong is not None:
        raise ValueError(f"{path} is no whole case: {wrong}")
    words = cast(CaseFile, found)
    for name in ("value", "limit"):
        _number(words[name], "float64", f"{path} is no whole case: {name}")
    inputs = {name: read_input(one, f"{path} is no whole case: inputs.{name}") for name, one in words["inputs"].items()}
    return SavedCase(words, inputs)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def written(x: Tensor) -> SavedInput:
    """The tensor as text, each number exactly."""
    flat = x.detach().cpu().flatten()
    exact = flat.double().tolist() if x.dtype.is_floating_point else flat.to(torch.int64).tolist()
    values = [one.hex() if isinstance(one, float) else str(one) for one in exact]
    return {"dtype": _name(x.dtype), "shape": list(x.shape), "values": values}


def read_input(one: SavedInput, where: str) -> Tensor:
    """The tensor of such text; ValueError, which begins with `where`, for what is none."""
    dtype, shape, values = one["dtype"], one["shape"], one["values"]
    if dtype not in DTYPES:
        raise ValueError(f"{where}.dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if any(size < 0 for size in shape) or math.prod(shape) != len(values):
        raise ValueError(f"{where} has {len(values)} values for the shape {shape}")
    numbers = [_number(text, dtype, where) for text in values]
    kind = torch.float64 if DTYPES[dtype].is_floating_point else torch.int64
    exact = torch.tensor(numbers, dtype=kind)
    rounded = exact.to(DTYPES[dtype])
    if not bool(((rounded.to(kind) == exact) | (exact != exact)).all()):
        raise ValueError(f"{where} holds a number that {dtype} does not have")
    return rounded.reshape(shape)


def _number(text: str, dtype: str, where: str) -> float | int:
    try:
        if DTYPES[dtype].is_floating_point:
            return float.fromhex(text)
        number = int(text)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {text[:40]!r} is no number of {dtype}") from error
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{where}: {text[:40]!r} is no number of {dtype}")
    return number
