"""The slips of the catalogue as a benchmark: which approach catches which, `python benches/fault_benchmark.py`.

    python benches/fault_benchmark.py --json benches/results/fault_benchmark.json [--approaches allclose gradcheck …]
    python benches/fault_benchmark.py --json benches/results/fault_benchmark.json --page docs/faults.md

Each slip is planted into a right overlap or layer and handed to each approach, as is each right target (controls). The
file is written after every slip, and a run goes on where the file ends; `--again` starts anew. `--page` measures
nothing: it writes the tables of the page from the file.

What the approaches do:

    allclose   values and gradients of 100 pairs, or of two chains of 32 residues, float32, against float64; within 10⁻³
    gradcheck  torch.autograd.gradcheck, float64, its defaults, on five pairs, or four residues of a small layer
    opcheck    torch.library.opcheck, its defaults, on an operator made of the accused with its own backward
    fast, ci   iga.testing.verify.prepare(target, profile=…): does the run end 1? Checks that are expected to see the
               slip come first, and where one breaks the others are not run. ci is run on what fast lets pass
"""

import argparse
import itertools
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from iga import rotation
from iga._files import write_text
from iga._runtime import environment
from iga._typing import Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.structure.synthetic import synthetic_structures
from iga.testing.faults import SLIPS, Fault
from iga.testing.faults.accused import bare_layer
from iga.testing.faults.clean import CLEAN
from iga.testing.faults.subjects import clean_subject
from iga.testing.judges.overlap import overlap_reference
from iga.testing.layer.cases import make_case
from iga.testing.layer.subject import Subject
from iga.testing.overlap.subject import OverlapSubject
from iga.testing.targets import Target
from iga.testing.verify import prepare

APPROACHES = ("allclose", "gradcheck", "opcheck", "fast", "ci")
TOLERANCE = 1e-3
SMALL = {"c_s": 4, "c_z": 2, "c_hidden": 3, "no_heads": 2, "no_v_points": 3}
Function = Callable[..., tuple[Tensor, ...]]
_count = itertools.count()


# --- what is handed to an approach ------------------------------------------------------------------------------


def controls() -> list[tuple[str, str, Any]]:
    """(bench, name, subject) of right targets."""
    layer = clean_subject("layer")
    rest = [("layer", "bounded", layer), ("layer", "bounded in a plain Module", bare_layer(layer))]
    return [("overlap", name, subject) for name, subject in CLEAN.items() if name != "float64 reference"] + rest


def target_of(subject: Any) -> Target:
    """The subject as a user's target."""
    if isinstance(subject, OverlapSubject):
        return Target(subject.name, "overlap", subject.function, claims=subject.claims)
    config = subject.config

    def factory(**sizes: int) -> torch.nn.Module:
        return subject.layer(**sizes) if config is None else subject.layer(*sizes.values(), config=config)

    return Target(subject.name, "layer", factory, claims=subject.claims)


def layer_function(subject: Subject, layer: torch.nn.Module, mask: Tensor) -> Function:
    """The layer as a function of tensors: s, z, rot, trans, local mean, log scale → output."""

    def call(s: Tensor, z: Tensor, *rigid: Tensor) -> tuple[Tensor]:
        return (layer(s, z, GaussianRigid(Frame(*rigid[:2]), *rigid[2:]), mask),)

    return call


def pairs(count: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Ordinary pairs: σ from 0.1 to 1 nm, frames at random."""
    g = torch.Generator().manual_seed(0)
    ends = []
    for _ in range(2):
        sigma = 0.1 * 10 ** torch.rand(count, 3, generator=g, dtype=torch.float64)
        mean = torch.randn(count, 3, generator=g, dtype=torch.float64)
        ends += [rotation.random(count, generator=g, dtype=torch.float64), mean, sigma]
    return tuple(x.to(dtype) for x in ends)


def layer_inputs(subject: Subject, residues: int, batch: int, dtype: torch.dtype) -> tuple[tuple[Tensor, ...], Tensor]:
    """(tensors, mask) of a synthetic chain, all valid."""
    structure = synthetic_structures(1, seed=0)[0]
    cases = [make_case(structure, subject.profile, residues=residues, seed=seed) for seed in range(batch)]
    s, z = (torch.cat([getattr(case, name) for case in cases]).to(dtype) for name in ("s", "z"))
    rigids = [case.rigid for case in cases]
    rigid = (torch.cat([getattr(r, n) for r in rigids]).to(dtype) for n in ("rot", "trans", "local_mean", "log_scale"))
    return (s, z, *rigid), torch.ones(s.shape[:2], dtype=torch.bool)


def function_of(subject: Any, dtype: torch.dtype, *, small: bool) -> tuple[Function, tuple[Tensor, ...]]:
    """(function of tensors, its inputs): small for differences, else of the size that a test would take."""
    if isinstance(subject, OverlapSubject):
        return subject.function, pairs(5 if small else 100, dtype)
    if small:
        subject = replace(subject, profile=replace(subject.profile, **SMALL))
    inputs, mask = layer_inputs(subject, *((4, 1) if small else (32, 2)), dtype)
    return layer_function(subject, subject.random(2 if small else 4, 0).to(dtype), mask), inputs


def right_of(subject: Any, inputs: tuple[Tensor, ...]) -> Function:
    """The right values of the function, in float64."""
    if isinstance(subject, OverlapSubject):
        return overlap_reference
    right = clean_subject("layer") if subject.traced else bare_layer(clean_subject("layer"))
    mask = torch.ones(inputs[0].shape[:2], dtype=torch.bool)
    return layer_function(right, right.random(4, 0).double(), mask)


# --- approaches: what each finds, or nothing --------------------------------------------------------------------


def allclose(subject: Any, fault: Fault | None) -> str:
    function, inputs = function_of(subject, torch.float32, small=False)
    expected = _graded(right_of(subject, inputs), tuple(x.double() for x in inputs))
    for name, (found, right) in enumerate(zip(_graded(function, inputs), expected, strict=True)):
        if not torch.allclose(found.double(), right, rtol=TOLERANCE, atol=TOLERANCE * float(right.abs().amax())):
            return f"number {name} is off"
    return ""


def _graded(function: Function, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Answers under no_grad, as a test calls it, and the gradients of their sum."""
    with torch.no_grad():
        answers = [x.detach() for x in function(*inputs)]
    leaves = [x.clone().requires_grad_() for x in inputs]
    total = sum(x.sum() for x in function(*leaves))
    assert isinstance(total, Tensor)
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    # rotations: off SO(3) two right forms differ
    slopes = [
        torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True) if x.shape[-2:] != (3, 3)
    ]
    return answers + slopes


def gradcheck(subject: Any, fault: Fault | None) -> str:
    function, inputs = function_of(subject, torch.float64, small=True)
    # the rotations of a layer are moved by no test: off SO(3) its forms differ
    moved = [isinstance(subject, OverlapSubject) or x.shape[-2:] != (3, 3) for x in inputs]
    torch.autograd.gradcheck(function, [x.clone().requires_grad_(m) for x, m in zip(inputs, moved, strict=True)])
    return ""


def opcheck(subject: Any, fault: Fault | None) -> str:
    function, inputs = function_of(subject, torch.float32, small=True)
    shapes = [x.shape for x in function(*inputs)]
    operator = _operator(function, len(inputs), shapes)
    torch.library.opcheck(operator, tuple(x.clone().requires_grad_() for x in inputs))
    return ""


def _operator(function: Function, count: int, shapes: Sequence[torch.Size]) -> Any:
    """torch.library's operator of the function. Its backward, the function's own, is an operator, too; fakes know the
    shapes alone."""
    number = next(_count)

    def forward(*inputs: Tensor) -> Any:
        with torch.no_grad():
            return _one_or_all(function(*inputs))

    def slopes(*inputs: Tensor) -> Any:
        # an operator runs below autograd, for the thread that it is called in
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(differentiated, *inputs).result()

    def differentiated(*inputs: Tensor) -> Any:
        leaves = [x.detach().requires_grad_() for x in inputs[:count]]
        with torch.enable_grad():
            answers = function(*leaves)
        found = torch.autograd.grad(answers, leaves, inputs[count:], allow_unused=True)
        return tuple(torch.zeros_like(x) if g is None else g.contiguous() for x, g in zip(leaves, found, strict=True))

    back = torch.library.custom_op(
        f"iga_faults::back{number}", slopes, mutates_args=(), schema=_schema(count + len(shapes), count)
    )
    back.register_fake(lambda *inputs: tuple(torch.empty_like(x) for x in inputs[:count]))
    made = torch.library.custom_op(
        f"iga_faults::slip{number}", forward, mutates_args=(), schema=_schema(count, len(shapes))
    )
    made.register_fake(lambda *inputs: _one_or_all([inputs[0].new_empty(shape) for shape in shapes]))
    made.register_autograd(
        lambda ctx, *gradients: back(*ctx.saved_tensors, *gradients),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    )
    return made


def _schema(inputs: int, outputs: int) -> str:
    return f"({', '.join(f'Tensor x{k}' for k in range(inputs))}) -> ({', '.join(['Tensor'] * outputs)})"


def _one_or_all(answers: Sequence[Tensor]) -> Any:
    return tuple(answers) if len(answers) > 1 else answers[0]


def gate(profile: str) -> Callable[[Any, Fault | None], str]:
    """The suite of this package as a user runs it; the first check that breaks."""

    def run(subject: Any, fault: Fault | None) -> str:
        target = target_of(subject)
        whole = prepare(target, profile=profile)
        first = [check for check in whole.checks if fault is not None and check.name in fault.expected]
        rest = [check for check in whole.checks if check not in first]
        for checks in (first, rest):
            found = replace(whole, checks=checks).run().findings if checks else []
            broken = [one.name for one in found if one.verdict not in ("holds", "not supported")]
            if broken:
                return ", ".join(broken)
        return ""

    return run


RUN: dict[str, Callable[[Any, Fault | None], str]] = {
    "allclose": allclose,
    "gradcheck": gradcheck,
    "opcheck": opcheck,
    "fast": gate("fast"),
    "ci": gate("ci"),
}


def measure(bench: str, name: str, approaches: Sequence[str], known: dict[str, Any]) -> dict[str, Any]:
    """The findings of each approach on one slip, or of a right target; runs in a process of its own."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    fault = next((one for one in SLIPS[bench] if one.name == name), None)
    found = dict(known)
    for approach in approaches:
        if approach == "ci" and found.get("fast", {}).get("finds"):
            continue
        right = {(b, n): subject for b, n, subject in controls()}
        subject = right[bench, name] if fault is None else fault.planted(clean_subject(bench))
        started = time.process_time()
        try:
            finds = RUN[approach](subject, fault)
        except Exception as error:  # that it raises is how gradcheck and opcheck say it, and a slip may raise
            finds = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:120]
        found[approach] = {"finds": finds, "seconds": round(time.process_time() - started, 2)}
    return found


# --- the file, and the page -------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description="which approach catches which slip")
    parser.add_argument("--json", type=Path, required=True, help="written after every slip, and read first")
    parser.add_argument("--approaches", nargs="+", choices=APPROACHES, default=list(APPROACHES))
    parser.add_argument("--every", type=int, default=1, help="of the catalogue every k-th slip")
    parser.add_argument("--kinds", nargs="+", help="of these kinds only")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--again", action="store_true", help="measure what the file has, too")
    parser.add_argument("--page", type=Path, help="write the tables into this page instead of measuring")
    options = parser.parse_args()
    result = json.loads(options.json.read_text()) if options.json.exists() else {"schema": 1, "rows": []}
    if options.page:
        write_page(options.page, result)
        return
    rows = {(row["bench"], row["name"]): row for row in result["rows"]}
    for bench, name, _ in controls():
        rows.setdefault((bench, name), {"bench": bench, "name": name, "kind": "", "region": "", "found": {}})
    for bench, faults in SLIPS.items():
        for one in faults:
            facts = {"kind": one.kind, "region": one.region, "traced": one.traced, "expected": list(one.expected)}
            row = rows.setdefault((bench, one.name), {"bench": bench, "name": one.name, "found": {}})
            row |= facts
    chosen = list(rows)[:: options.every]
    if options.kinds:
        chosen = [key for key in chosen if rows[key]["kind"] in options.kinds]
    asked = []
    for key in chosen:
        known = rows[key]["found"]
        left = [a for a in options.approaches if options.again or a not in known]
        left = [a for a in left if a != "ci" or "fast" in left or not known.get("fast", {}).get("finds")]
        if left:
            asked.append((*key, left, known))
    # a slip may keep what it has seen, so a process judges few of them
    with get_context("spawn").Pool(options.workers, maxtasksperchild=8) as pool:
        for done, (key, found) in enumerate(pool.imap_unordered(_measured, asked), start=1):
            rows[key]["found"] = found
            result |= {"environment": environment(0), "calls": CALLS, "rows": list(rows.values())}
            write_text(options.json, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
            print(f"{done}/{len(asked)} {key}: {found}", flush=True)


def _measured(asked: tuple[str, str, list[str], dict[str, Any]]) -> tuple[tuple[str, str], dict[str, Any]]:
    return asked[:2], measure(*asked)


CALLS = {
    "allclose": "torch.allclose(float32, float64, rtol=1e-3, atol=1e-3 · largest), values and gradients, one size",
    "gradcheck": "torch.autograd.gradcheck(f, inputs), float64, five pairs or four residues",
    "opcheck": "torch.library.opcheck(operator, inputs), its default tests",
    "fast": 'iga.testing.verify.prepare(target, profile="fast").run()',
    "ci": 'iga.testing.verify.prepare(target, profile="ci").run(), where fast ended 0',
}


def caught(row: dict[str, Any], approach: str) -> bool | None:
    """True where the approach finds the slip; None if it was not run. ci has all checks of fast, and more of each."""
    found = row["found"]
    if approach == "ci" and found.get("fast", {}).get("finds"):
        return True
    return bool(found[approach]["finds"]) if approach in found else None


def write_page(page: Path, result: dict[str, Any]) -> None:
    """The tables between the page's markers."""
    text = page.read_text()
    for name, made in (("kinds", _kinds(result)), ("slips", _slips(result)), ("run", _run(result))):
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, rest = text.split(start, 1)
        text = before + start + made + end + rest.split(end, 1)[1]
    write_text(page, text)


def _slip_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in result["rows"] if row["kind"]]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _share(rows: list[dict[str, Any]], approach: str) -> str:
    """caught / run; "not run" where none was."""
    seen = [one for one in (caught(row, approach) for row in rows) if one is not None]
    return f"{sum(seen)} of {len(seen)}" if seen else "not run"


def _kinds(result: dict[str, Any]) -> str:
    rows, made = _slip_rows(result), []
    for bench in SLIPS:
        own = [row for row in rows if row["bench"] == bench]
        for kind in dict.fromkeys(row["kind"] for row in own):
            some = [row for row in own if row["kind"] == kind]
            made.append([bench, kind, str(len(some)), *(_share(some, approach) for approach in APPROACHES)])
        made.append([f"all: {bench}", "", str(len(own)), *(_share(own, approach) for approach in APPROACHES)])
    right = [row for row in result["rows"] if not row["kind"]]
    made.append(["right targets", "", str(len(right)), *(_share(right, approach) for approach in APPROACHES)])
    return _table(("bench", "kind", "slips", *APPROACHES), made)


def _slips(result: dict[str, Any]) -> str:
    marks = {True: "●", False: "", None: "–"}
    return "\n".join(
        f"### {bench}\n\n"
        + _table(
            ("slip", "region", "kind", *APPROACHES),
            [
                [
                    row["name"],
                    row["region"].replace("|", "\\|"),
                    row["kind"],
                    *(marks[caught(row, a)] for a in APPROACHES),
                ]
                for row in _slip_rows(result)
                if row["bench"] == bench
            ],
        )
        for bench in SLIPS
    )


def _run(result: dict[str, Any]) -> str:
    where = result["environment"]
    seconds = {a: sum(row["found"].get(a, {}).get("seconds", 0.0) for row in result["rows"]) for a in APPROACHES}
    spent = ", ".join(f"{approach} {value:.0f} s" for approach, value in seconds.items())
    calls = "".join(f"- *{name}*: `{call}`\n" for name, call in result["calls"].items())
    versions = ", ".join(f"{name} {where[name]}" for name in ("iga", "torch", "numpy", "python"))
    return f"{calls}\nRun on {where['date']} on a CPU ({where['platform']}, {versions}); processor time: {spent}.\n"


if __name__ == "__main__":
    main()
