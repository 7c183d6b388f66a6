"""The run behind `iga inspect`: structures one after the other, and the document of what was found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from iga._runtime import Progress, check_room, environment, threads
from iga.inspection.layer import Layer, the_layer
from iga.inspection.protein import look
from iga.report.inspected import Inspect, Protein
from iga.report.schema import SCHEMA
from iga.structure import Structure, read_structures

__all__ = ["Found", "document_of", "inspected"]


@dataclass(frozen=True)
class Found:
    """`proteins`: each structure with what was found of it; `unreadable`: files that gave none, and why."""

    layer: Layer
    proteins: list[tuple[Structure, Protein]]
    unreadable: list[str]


def inspected(
    structures: Sequence[str | Path],
    *,
    preset: str = "bounded",
    target: str | None = None,
    checkpoint: Path | None = None,
    layer: str | None = None,
    points: Sequence[int] = (8,),
    residues: int = 192,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Found:
    """Each structure through the layer of a preset or a target, P the first of `points`.

    Raises ValueError, one line, for what cannot be read, loaded or called.
    """
    report = on_progress or (lambda what, done, total: None)
    of = the_layer(target, preset, points, seed, checkpoint, layer)
    # dense scores, with what the checks make of them: a dozen numbers of float64 a head, point and pair
    heads = of.subject.profile.no_heads
    check_room(f"{residues} residues, P = {max(of.points, 1)}", 100.0 * heads * of.points * residues**2)
    read, records = read_structures(list(structures))
    unreadable = [f"{one['path']}: {one['reason']}" for one in records if one["status"] == "unreadable"]
    made: list[tuple[Structure, Protein]] = []
    with torch.random.fork_rng(devices=[]), threads(1):
        for number, structure in enumerate(read):
            report("structures", number, len(read))
            made.append((structure, look(of, structure, residues, sorted({*points, of.points}), seed)))
        report("structures", len(read), len(read))
    return Found(of, made, unreadable)


def document_of(found: Found, command: str, seed: int, seconds: float) -> Inspect:
    """The document of `iga inspect`: exit code 1 where a number is over its bound, or none has one."""
    layer, proteins = found.layer, [protein for _, protein in found.proteins]
    found_all = [one for protein in proteins for one in protein["invariants"]]
    over = not found_all or any(one["verdict"] == "broken" for one in found_all)  # as where nothing is judged
    return {
        "schema": SCHEMA,
        "document": "inspect",
        "command": command,
        "target": layer.subject.name,
        "kind": "layer",
        "exit_code": int(over),
        "seconds": round(seconds, 3) if math.isfinite(seconds) else 0.0,
        "environment": environment(seed),
        "layer": layer.words,
        "points": layer.points,
        "sigma_min_nm": layer.contract.sigma_min,
        "sigma_max_nm": layer.contract.sigma_max,
        "taps": layer.subject.all_taps,
        "proteins": proteins,
        "unreadable": found.unreadable,
    }
