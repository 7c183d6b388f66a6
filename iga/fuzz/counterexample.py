"""A counterexample as a folder that stands alone: its inputs, and a script that shows what is wrong and what is right.

`reproduce.py` holds the numbers, `iga.fuzz.standalone` and the source of the check that broke: it needs torch and the
function, nothing else. `example.txt` is the pair as a line for a test with Hypothesis, `picture.svg` what it looks
like; of a batch there is neither.
"""

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from iga._files import write_text
from iga._typing import Tensor
from iga.fuzz import standalone
from iga.fuzz.bundle import PACKAGE, bundle
from iga.fuzz.layer_counterexample import write_layer_counterexample
from iga.fuzz.pair_cases import DRAWN, EXACT, OWN
from iga.fuzz.stream import Candidate, Judgement
from iga.report.pair_picture import draw
from iga.testing.cases_file import write_case, written
from iga.testing.checks import checks_of
from iga.testing.overlap.subject import ARGUMENTS

__all__ = ["drawn_by", "example", "script", "write_counterexample"]

GRADIENTS = ("gradient_values", "gradient_finiteness", "second_derivatives")
# What the script itself calls of the judge, beside the check.
ROOTS = (
    ("iga.fuzz.objectives", "measure"),
    ("iga.testing.judges.overlap", "condition"),
    ("iga.testing.judges.overlap", "overlap_reference"),
    ("iga.testing.overlap.budgets", "gradient_budgets"),
    ("iga.testing.overlap.budgets", "value_budgets"),
    ("iga.testing.overlap.pairs", "GivenPairs"),
    ("iga.testing.overlap.subject", "OverlapSubject"),
    ("iga.testing.state.watch", "watching"),
    ("iga.testing.tally", "Tally"),
    ("iga.testing.targets", "Claims"),
)
_HEAD = '''"""{check}: {where}

What {target} does with these numbers, judged by the check of this name, and beside exact arithmetic; both stand below.
It needs torch and the function; python reproduce.py [PLACE], where PLACE is the function's, if it has moved:
file.py:name or package:name. Ends 1 while it is wrong, 0 once it is right, 2 if it cannot be loaded.
"""

'''
_TAIL = """

if __name__ == "__main__":
    sys.exit(main(json.loads(CASE), JUDGE, sys.argv[1:]))
"""


def write_counterexample(folder: Path, candidate: Candidate, verdict: Judgement, facts: Mapping[str, Any]) -> list[str]:
    """`case.json`, `reproduce.py`, `example.txt` and `picture.svg` in `folder`, which is made; notes on what could not.

    facts  target (a place), seed, and of the target sigma_range (nm), dtypes, unsupported and inference_only. Raises
           ValueError for more numbers than a case holds, OSError where a file can't be written.
    """
    if candidate.call.kind == "layer":
        write_layer_counterexample(folder, candidate, verdict, facts)
        return []
    numbers = {"check": candidate.check, "value": verdict.value, "limit": verdict.limit, "unit": verdict.unit}
    # of inputs that the check drew itself, the seed that it drew them with
    seed = drawn_by(candidate, int(facts["seed"]))
    words = {"target": facts["target"], "where": verdict.where, "note": verdict.note, "seed": seed}
    write_case(folder / "case.json", replace(candidate.call, layer={}), numbers | words)
    write_text(folder / "reproduce.py", script(candidate, facts))
    given = candidate.call.inputs
    if set(given) != set(ARGUMENTS) or given["q_mean"].shape != (3,):
        return []
    write_text(folder / "example.txt", example(given))
    numbers = {name: given[name].double().flatten().tolist() for name in ARGUMENTS}
    if not all(math.isfinite(x) for row in numbers.values() for x in row):
        return ["no picture: its numbers are not all finite"]
    try:
        draw(numbers, f"{candidate.check}: {candidate.where}", folder / "picture.svg")
    except ValueError as error:
        return [f"no picture: {error}"]
    return []


def example(given: Mapping[str, Tensor]) -> str:
    """One pair as the lines that go above a test of `iga.testing.strategies.gaussian_pairs`, every number exactly."""
    rows = [f"        {name}={_numbers(given[name].double().tolist())}," for name in ARGUMENTS]
    lines = ["from hypothesis import example", "from iga.testing.strategies import ExactPair", "", "@example("]
    return "\n".join([*lines, "    ExactPair(", *rows, "    )", ")"]) + "\n"


def _numbers(of: Any) -> str:
    """Nested tuples, as text that reads back to the bit."""
    if isinstance(of, list):
        return f"({', '.join(_numbers(one) for one in of)})"
    return repr(of) if math.isfinite(of) else f'float("{of}")'


def drawn_by(candidate: Candidate, otherwise: int) -> int:
    """The seed with which a check drew a candidate's inputs itself; `otherwise`, if they were given to it."""
    return int(candidate.call.layer.get(DRAWN, otherwise))


def script(candidate: Candidate, facts: Mapping[str, Any]) -> str:
    """The text of reproduce.py."""
    given = candidate.call.inputs
    own = DRAWN in candidate.call.layer
    dtypes = list(facts["dtypes"]) if own else [str(given["q_mean"].dtype).removeprefix("torch.")]
    measure = checks_of("overlap")[candidate.check].measure
    assert measure is not None
    case = {
        "check": candidate.check,
        "module": PACKAGE + measure.__module__.removeprefix("iga"),
        "target": str(facts["target"]),
        "where": candidate.where,
        "inputs": None if own else {name: written(given[name]) for name in ARGUMENTS},
        "seed": drawn_by(candidate, 0),
        "count": OWN,
        "exact": EXACT,
        "sigma_range": list(facts["sigma_range"]),
        "dtypes": dtypes,
        "claims": {"unsupported": list(facts["unsupported"]), "inference_only": facts["inference_only"]},
        "gradients": candidate.check in GRADIENTS and not facts["inference_only"],
    }
    words = {"check": candidate.check, "where": candidate.where, "target": str(facts["target"])}
    head = _HEAD.format(**{name: text.replace("\\", "/").replace('"', "'") for name, text in words.items()})
    source = inspect.getsource(standalone)
    body = source[source.index("import importlib\n") :]
    judge = bundle([*ROOTS, (measure.__module__, candidate.check)])
    parts = "\n".join(f"{standalone.MODULE}{name}\n{text}" for name, text in judge.items())
    blocks = {"CASE": json.dumps(case, ensure_ascii=False, allow_nan=False), "JUDGE": parts}
    texts = "\n\n".join(f"{name} = {_literal(text)}" for name, text in blocks.items())
    return f"{head}import json\n{body.rstrip()}\n\n\n{texts}\n{_TAIL}"


def _literal(text: str) -> str:
    """The text as Python, as readable as can be."""
    plain = "'''" not in text and not text.endswith("\\")
    return f"r'''\n{text}\n'''" if plain else repr(text)
