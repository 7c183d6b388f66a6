"""A layer's counterexample as a folder: the call, every number exactly, and a script that asks the layer again.

`case.json` holds the sizes and the draw of the parameters, the residues in hexadecimal, and the whole numbers that the
features follow from (`iga.fuzz.layer_genome`); of a small call s and z stand there too, for those who read it, and have
to be the ones that are rebuilt. `reproduce.py` needs torch, iga and the layer.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from iga._files import write_text
from iga.fuzz.layer_genome import LayerGenome, call_of, case_of, genome_of
from iga.fuzz.layer_streams import layer_stream, prepared_for, stated
from iga.fuzz.standalone import exact
from iga.fuzz.stream import Candidate, Judgement
from iga.testing.cases_file import SavedCase, read_case, write_case
from iga.testing.latest import Call
from iga.testing.layer.subject import Observation
from iga.testing.targets import Unloadable

__all__ = ["genome_in", "main", "write_layer_counterexample"]

SHOWN = 20_000  # numbers of s and z up to which they are written beside what they follow from
_SCRIPT = '''"""{check}: {where}

What {target} says of this call, beside what it has to agree with: python reproduce.py [PLACE], where PLACE is the
layer's, if it has moved: file.py:name, package:name or a preset. Needs torch, iga and the layer.
Ends 1 while it is wrong, 0 once it is right.
"""

import sys
from pathlib import Path

from iga.fuzz.layer_counterexample import main

TARGET, OPTIONS = {target!r}, {options!r}

if __name__ == "__main__":
    sys.exit(main(Path(__file__).with_name("case.json"), *(sys.argv[1:] or [TARGET]), **OPTIONS))
'''


def write_layer_counterexample(
    folder: Path, candidate: Candidate, verdict: Judgement, facts: Mapping[str, Any]
) -> None:
    """`case.json` and `reproduce.py` in `folder`, which is made. facts: target, seed and, if asked, implementation.

    Raises ValueError for more numbers than a case holds, OSError where a file can't be written.
    """
    genome = genome_of(candidate.call)
    made = case_of(genome)
    call = call_of(genome)
    if made.s.numel() + made.z.numel() <= SHOWN:
        call = Call("layer", {"s": made.s, "z": made.z, **call.inputs}, call.layer)
    numbers = {"check": candidate.check, "value": verdict.value, "limit": verdict.limit, "unit": verdict.unit}
    words = {"target": facts["target"], "where": verdict.where, "note": verdict.note, "seed": facts["seed"]}
    write_case(folder / "case.json", call, numbers | words)
    where = verdict.where.replace("\\", "/").replace('"', "'")
    options = {"kind": None if ":" not in str(facts["target"]) else "layer"}
    if facts.get("implementation"):
        options["implementation"] = facts["implementation"]
    text = _SCRIPT.format(check=candidate.check, where=where, target=str(facts["target"]), options=options)
    write_text(folder / "reproduce.py", text)


def genome_in(found: SavedCase) -> LayerGenome:
    """The call of a case that was read. Raises ValueError, one line, for one that is not of a search, or whose features
    are not those that are rebuilt."""
    genome = genome_of(Call("layer", found.inputs, stated(found.words["layer"])))
    shown = {name: found.inputs[name] for name in ("s", "z") if name in found.inputs}
    if shown:
        made = case_of(genome)
        if any(not torch.equal(x, getattr(made, name)) for name, x in shown.items()):
            raise ValueError("its features are not those that its seeds give")
    return genome


def main(file: Path, target: str, *, kind: str | None, **options: Any) -> int:
    """Judge the case in `file` again, of `target`; print what was found. 1 while it is broken, 0 once it holds.

    A target's file is looked for from here, and beside the case.
    """
    try:
        found = read_case(file)
        genome = genome_in(found)
        plan = prepared_for(_placed(target, file.parent), {"kind": kind, "seed": 0, "only": None, **options})
        if plan.kind != "layer":
            raise ValueError(f"{target} is an {plan.kind}, and the case of a layer")
    except (ValueError, OSError, Unloadable) as error:
        print(f"it cannot be asked: {error}", file=sys.stderr)
        return 2
    name = found.words["check"]
    stream = layer_stream(plan, (0, 1), {})
    if name not in stream.checks:
        print(f"it cannot be asked: {target} is not judged by {name}", file=sys.stderr)
        return 2
    verdict = stream.judge(Candidate(name, call_of(genome), 0.0, "", "", ""))
    _show(genome)
    if name in stream.asked.of_traces:
        _show_pair(stream.asked.observed(stream.asked.scene(genome)), verdict.where)
    print(f"{name}: {verdict.where}" + (f"; {verdict.note}" if verdict.note else ""))
    print(f"value {verdict.value:.6g}, limit {verdict.limit:.6g} ({verdict.unit})")
    print("WRONG" if verdict.verdict == "broken" else "right")
    return int(verdict.verdict == "broken")


def _placed(target: str, beside: Path) -> str:
    place, colon, name = target.rpartition(":")
    if colon and place.endswith(".py") and not Path(place).is_file():
        near = next((folder / Path(place).name for folder in (beside, *beside.parents) if _is(folder, place)), None)
        if near is not None:
            return f"{os.fspath(near)}:{name}"
    return target


def _is(folder: Path, place: str) -> bool:
    return (folder / Path(place).name).is_file()


def _show_pair(seen: Observation, where: str) -> None:
    """The two Gaussians of the pair that `where` names, as the layer makes them, and what is exact of them."""
    named = dict(re.findall(r"(head|point|query|key) (\d+)", where))
    if len(named) < 4 or seen.seen is not None:  # no pair of points, or no trace of this package's
        return
    trace, rot = seen.trace, seen.trace.rigid.rot[0]
    head, point, query, key = (int(named[name]) for name in ("head", "point", "query", "key"))
    pair: list[list[float]] = []
    for points, n in ((trace.query, query), (trace.key, key)):
        parts = (rot[n], points.mean[0, head, point, n], points.sigma[0, head, point, n])
        pair += [x.detach().double().flatten().tolist() for x in parts]
    for end, at in (("query", 0), ("key", 3)):
        turn, mean, sigma = (" ".join(f"{x:.6g}" for x in part) for part in pair[at : at + 3])
        print(f"  the {end}'s Gaussian: mean ({mean}) nm, σ ({sigma}) nm along the columns of ({turn})")
    dist_sq, log_det, _ = exact(tuple(tuple(part) for part in pair))
    for words, right, says in (("dist_sq", dist_sq, trace.dist_sq), ("log_det", log_det, trace.log_det)):
        value = float(says.detach()[0, head, point, query, key])
        print(f"  {words}: it says {value:.6g}, right is {float(right):.6g}")


def _show(genome: LayerGenome) -> None:
    """The call in words, and its residues where they are few."""
    print(f"{genome.label}; {', '.join(f'{name} {size}' for name, size in genome.sizes.items())}")
    print(f"parameters: seed {genome.seed}, gain {genome.gain:g}; s times {genome.s_size:g}, z times {genome.z_size:g}")
    for sample in range(min(len(genome.samples), 4)):
        for n in range(min(genome.residues, 12)):
            parts = (genome.trans, genome.log_scale.exp(), genome.log_scale)
            place, scale, log = (" ".join(f"{x:.6g}" for x in part[sample, n].tolist()) for part in parts)
            words = "" if bool(genome.mask[sample, n]) else ", masked"
            print(f"  sample {sample}, residue {n}: at ({place}) nm, σ ({scale}) nm, ln σ ({log}){words}")
