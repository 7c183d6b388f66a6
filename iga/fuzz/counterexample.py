"""A counterexample as a folder that stands alone: its inputs, and a script that shows what is wrong and what is right.

`reproduce.py` holds the numbers and `iga.fuzz.standalone`, whole: it needs torch and the function, nothing else. What
each value may be off by was computed when the script was written, from the budgets of the checks; the right values are
computed by the script, in fractions.
"""

import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from iga._files import write_text
from iga._typing import Tensor
from iga.fuzz import standalone
from iga.fuzz.pair_cases import DRAWN
from iga.fuzz.stream import Candidate, Judgement
from iga.search.pairs import Pairs
from iga.testing.cases_file import write_case, written
from iga.testing.judges import overlap as oracle
from iga.testing.overlap import budgets
from iga.testing.overlap.laws import variants
from iga.testing.overlap.subject import ARGUMENTS

__all__ = ["script", "write_counterexample"]

GRADIENTS = ("gradient_values", "gradient_finiteness")
LAWS = ("score_laws",)
_HEAD = '''"""{check}: {where}

What {target} says of these numbers, beside what is right, in exact arithmetic that stands below. It needs torch and the
function; python reproduce.py [PLACE], where PLACE is the function's, if it has moved: file.py:name or package:name.
Ends 1 while it is wrong, 0 once it is right.
"""

'''
_TAIL = """

if __name__ == "__main__":
    sys.exit(main(json.loads(CASE), sys.argv[1:]))
"""


def write_counterexample(folder: Path, candidate: Candidate, verdict: Judgement, facts: Mapping[str, Any]) -> None:
    """`case.json`, and of a function of pairs `reproduce.py`, in `folder`, which is made.

    facts  target (a place), seed, sigma_range (nm). Raises ValueError for more numbers than a case holds, OSError where
    a file can't be written.
    """
    numbers = {"check": candidate.check, "value": verdict.value, "limit": verdict.limit, "unit": verdict.unit}
    words = {"target": facts["target"], "where": verdict.where, "note": verdict.note, "seed": facts["seed"]}
    call = replace(candidate.call, layer={})
    write_case(folder / "case.json", call, numbers | words)
    text = script(candidate, str(facts["target"]), int(facts["seed"]), float(facts["sigma_range"][1]))
    if text:
        write_text(folder / "reproduce.py", text)


def script(candidate: Candidate, target: str, seed: int, sigma_max: float) -> str:
    """The text of reproduce.py; empty for inputs that a check drew itself, of which `iga verify` shows more."""
    if candidate.call.kind != "overlap" or DRAWN in candidate.call.layer:
        return ""
    given: Pairs = tuple(candidate.call.inputs[name] for name in ARGUMENTS)  # pyright: ignore[reportAssignmentType]
    gradients = candidate.check in GRADIENTS
    pairs = {"as found": given}
    if candidate.check == "coincident_means":
        pairs = {"with equal means": (*given[:4], given[1].clone(), given[5])}
    if candidate.check in LAWS and given[1].ndim == 1:
        batch: Pairs = tuple(x[None] for x in given)  # pyright: ignore[reportAssignmentType]
        moved = variants(batch, seed, sigma_max)
        for law, other in moved.items():
            pairs[law] = tuple(x[0] for x in other)  # pyright: ignore[reportArgumentType] - six of them
    case = {
        "check": candidate.check,
        "target": target,
        "where": candidate.where,
        "gradients": gradients,
        "autocast": candidate.check == "reduced_precision",
        "pairs": {label: {n: written(x) for n, x in zip(ARGUMENTS, one, strict=True)} for label, one in pairs.items()},
        "allowed": {label: _allowed(one, gradients) for label, one in pairs.items()},
    }
    head = _HEAD.format(check=candidate.check, where=candidate.where.replace('"', "'"), target=target)
    source = inspect.getsource(standalone)
    body = source[source.index("import importlib") :].replace("import importlib\n", "import importlib\n", 1)
    text = json.dumps(case, ensure_ascii=False, allow_nan=False)
    return f"{head}import json\n{body.rstrip()}\n\n\nCASE = r'''\n{text}\n'''\n{_TAIL}"


def _allowed(given: Pairs, gradients: bool) -> dict[str, list[float]]:
    """What each value of each pair may be off by; of what nothing is claimed, any finite number."""
    pairs = [x if given[1].ndim > 1 else x[None] for x in given]
    double = [x.double() for x in pairs]
    dist_sq, log_det = oracle.overlap_reference(*double)
    kappa = oracle.condition(double[2], double[5])
    found = dict(budgets.value_budgets(dist_sq, log_det, kappa, pairs[0].dtype))
    if gradients:
        smallest = torch.minimum(double[2].amin(-1), double[5].amin(-1))
        found |= budgets.gradient_budgets(dist_sq, kappa, smallest, pairs[0].dtype)
    return {name: _finite(x) for name, x in found.items()}


def _finite(x: Tensor) -> list[float]:
    return x.nan_to_num(nan=1e300, posinf=1e300).clamp(max=1e300).flatten().tolist()
