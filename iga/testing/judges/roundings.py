"""The roundings of every implementation, counted in its source: `python -m iga.testing.judges.roundings`.

Each implementation's functions are parsed, freed of decorators and annotations, and evaluated on sums that count
(`judges.terms`) in place of floats; nothing of them is compiled or run on numbers. What comes out must be the closed
form, term by term, and its counts stand beside `iga.bounds.IMPLEMENTATIONS`, the table that the budgets of
docs/theory.md are made of. The command prints both, and ends 1 where they differ or a formula is another one.

Approximate functions are taken at their documented error, in units of u, half an ulp at 1: torch's log and log1p 1 ulp;
the polynomial of the CPU kernel 3u (a test tries every binade); PTX: rcp.approx 1 ulp, lg2.approx 2⁻²² relative or,
between ½ and 2, absolute, div.full 2 ulp, which is what Triton makes of a division; log2 of libdevice 1 ulp.
"""

import ast
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import iga
from iga.bounds.roundings import IMPLEMENTATIONS, Roundings
from iga.testing.judges.closed_form import AXES, expect_sums, knowing_the_closed_form, log, log1p, log2, scored
from iga.testing.judges.terms import Host, Machine, Terms

__all__ = ["SOURCES", "counted", "main", "table"]

SOURCES = (
    "overlap.py",
    "kernels/packing.py",
    "kernels/cpu/_forward.py",
    "kernels/cpu/_pack.py",
    "kernels/triton/_math.py",
)
ULP = 2  # in u
DIVISION_OF_TRITON = 2 * ULP
# The points that the CPU kernel takes together: iga.kernels.cpu.engine, TOGETHER.
TOGETHER = {"student": ("ab", "abc", "abcd"), "gaussian": ("ab",)}


def counted(implementation: str, sources: Mapping[str, str] | None = None) -> Roundings:
    """The counts of "reference", "cpu" or "fused" by the sources of the package, or by edited texts of some of them.

    Raises ValueError where an expression is not the closed form of docs/theory.md, section 5, or not a score of it.
    """
    texts = {name: (Path(iga.__file__).parent / name).read_text(encoding="utf-8") for name in SOURCES}
    functions = {name: _functions(text) for name, text in (texts | dict(sources or {})).items()}
    counts: dict[str, int] = {}
    for machine in {"reference": _reference, "cpu": _cpu, "fused": _fused}[implementation](functions):
        for kind, roundings in machine.counts.items():
            before = counts.get(kind, 0)
            counts[kind] = before + roundings if kind == "operations" else max(before, roundings)
    return Roundings(**counts)


def table(found: Mapping[str, Roundings]) -> str:
    """The counts as a Markdown table, an implementation a column."""
    lines = [f"| roundings | {' | '.join(found)} |", "| --- |" + " --- |" * len(found)]
    for kind in vars(next(iter(found.values()))):
        lines.append(f"| `{kind}` | " + " | ".join(str(getattr(counts, kind)) for counts in found.values()) + " |")
    return "\n".join(lines)


def main() -> int:
    """Print the counts; 1 if they are not those of the table."""
    try:
        found = {name: counted(name) for name in IMPLEMENTATIONS}
    except ValueError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    sys.stdout.write(table(found) + "\n")
    wrong = [
        f"{name}: {kind} is {value}, and {getattr(IMPLEMENTATIONS[name], kind)} in iga.bounds.IMPLEMENTATIONS"
        for name, counts in found.items()
        for kind, value in vars(counts).items()
        if value != getattr(IMPLEMENTATIONS[name], kind)
    ]
    sys.stdout.write("".join(line + "\n" for line in wrong))
    return 1 if wrong else 0


Functions = Mapping[str, dict[str, ast.FunctionDef]]


def _reference(functions: Functions) -> list[Machine]:
    machines = []
    for student in (True, False):
        machine = knowing_the_closed_form(Machine(log=functools.partial(log, relative=ULP)))
        nothing = dict.fromkeys(("check_geometry", "check_alike", "_check_pair"), lambda *_: None)
        given = {
            "torch": SimpleNamespace(log1p=functools.partial(log1p, relative=ULP)),
            "Tensor": Terms,
            "_matrix": lambda r: r,
        }
        code = _bound(functions["overlap.py"], **nothing, **given)
        of_query, of_key = (
            (_matrix(machine, side), *(_Array.of(machine, letter + side, AXES) for letter in "ms")) for side in "ij"
        )
        dist_sq, log_det = code.gaussian_overlap(*of_query, *of_key)
        dof = Host("dof", sums={3.0: ("power", 2.0)})
        score = code.student_t_score(dist_sq, log_det, dof=dof) if student else code.gaussian_score(dist_sq, log_det)
        machines.append(scored(machine, score, student))
    return machines


def _cpu(functions: Functions) -> list[Machine]:
    given = {"LANES": 1, "full_width": lambda: None, "_ln": functools.partial(log, relative=3)}
    code = _bound(functions["kernels/cpu/_pack.py"] | functions["kernels/cpu/_forward.py"], **given)
    machine = knowing_the_closed_form(Machine())
    mean, sigma = (_Array.of(machine, letter + "j", AXES).reshape(1, 1, 1, 1, 3) for letter in "ms")
    keys, q = np.empty((1, 1, 1, 1, 10), object), np.empty(18, object)
    code._pack_keys(mean, sigma, 1, 0, 0, keys)
    query = code._point(*(_Array.of(machine, letter + "i", AXES) for letter in "ms"))
    r, rot_j = (sum(_matrix(machine, side), []) for side in "ij")
    code._relative(r, rot_j, q, 1)
    num = code._numerator(r, query, q, rot_j, keys[0, 0, 0, 0], 0)
    expect_sums(num, code._determinant(query, q, keys[0, 0, 0, 0], 0))
    machines = [machine]
    for form, points in [(form, points) for form, counts in TOGETHER.items() for points in ("", *counts)]:
        machine, student = Machine(), form == "student"
        c = (0.5, 1.0, machine.leaf(("dof", -1), 1), machine.leaf("power", 1), -np.inf)
        score, at = [Terms(machine, {})], [Terms(machine, {})] * 3
        for p in points or ("",):
            at[0] = machine.leaf("det" + p)
            numerator = functools.partial(_given, machine.leaf("num" + p))
            code = _bound(functions["kernels/cpu/_forward.py"], **given, _numerator=numerator)
            if not points:
                code._numerators(*[None] * 5, 1, at)
                continue
            if p == "a":
                code._start(student, 1.0, at)
            getattr(code, f"_{form}_join")(*[None] * 5, *[c] * student, 1, at)
        getattr(code, f"_{form}_{'together' if points else 'apart'}")(c, 1, at, score)
        machines.append(scored(machine, score[0], student, points or ("",)))
    return machines


def _given(x: Terms, *_: Any) -> Terms:
    return x


def _fused(functions: Functions) -> list[Machine]:
    language = SimpleNamespace(
        load=lambda at: at.fields[at.offset],
        maximum=lambda x, floor: x,
        log2=functools.partial(log2, relative=ULP),
        inline_asm_elementwise=_instruction,
        float32=None,
    )
    arrays = SimpleNamespace(
        stack=lambda parts, dim: np.stack(parts, axis=dim).view(_Array),
        cat=lambda parts, dim: np.concatenate(parts, axis=dim).view(_Array),
    )
    code = _bound(functions["kernels/packing.py"] | functions["kernels/triton/_math.py"], tl=language, torch=arrays)
    machine = knowing_the_closed_form(Machine())
    mean, sigma = (_Array.of(machine, letter + "i", AXES) for letter in "ms")
    of_key = code.key_fields(*(_Array.of(machine, letter + "j", AXES) for letter in "ms"))
    query = _Pointer([*mean, *sigma, *code.key_fields(mean, sigma)[3:]])  # laid out as `pack_forward` does
    a, b = (sum(_matrix(machine, side), []) for side in "ij")
    expect_sums(*code.overlap(a, b, code.relative(a, b), query, _Pointer([*of_key[:6]]), 1))
    machines = [machine]
    for student, large, fast in ((True, False, True), (True, True, False), (False, False, True)):
        machine = Machine(division=DIVISION_OF_TRITON)
        ln2 = {"LN_2": machine.leaf("ln2", 1), "LOG2_E": machine.leaf(("ln2", -1), 1)}
        code = _bound(functions["kernels/triton/_math.py"], tl=language, **ln2)
        power = machine.leaf("power", 1).times(machine.leaf("ln2"), 0)
        given = (machine.leaf("num"), machine.leaf("det"), machine.leaf(("dof", -1), 1), power, -np.inf)
        machines.append(scored(machine, code.score(*given, student, large, True, fast), student))
    return machines


def _instruction(text: str, constraints: str, arguments: list[Terms], **_: Any) -> Terms:
    """An approximate instruction of PTX, with the error that its manual states."""
    (x,) = arguments
    name = text.split()[0]
    if name == "rcp.approx.ftz.f32":
        return x.inverse(ULP)
    if name == "lg2.approx.ftz.f32":
        return log2(x, relative=4, absolute=3)  # 2⁻²² of a binary logarithm is 2.8u of a natural one
    raise ValueError(f"no error is known of the instruction {name}")


class _Array(np.ndarray):
    """Numbers that count, with the spellings of torch."""

    @classmethod
    def of(cls, machine: Machine, letters: str, axes: range) -> "_Array":
        return np.array([machine.leaf(f"{letters}{a}") for a in axes], object).view(cls)

    def square(self) -> Any:
        return self * self

    def unbind(self, dim: int) -> tuple[Terms, ...]:
        return tuple(self)


class _Pointer:
    """An address in a list of fields, each one number long."""

    def __init__(self, fields: Sequence[Terms], offset: int = 0) -> None:
        self.fields, self.offset = fields, offset

    def __add__(self, step: int) -> "_Pointer":
        return _Pointer(self.fields, self.offset + step)


def _matrix(machine: Machine, side: str) -> list[list[Terms]]:
    return [[machine.leaf(f"R{side}{a}{k}") for k in AXES] for a in AXES]


@functools.lru_cache(maxsize=len(SOURCES))
def _functions(text: str) -> dict[str, ast.FunctionDef]:
    """The functions of a module's text, as they would be without decorators and annotations."""
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            node.decorator_list, node.returns = [], None
            for argument in ast.walk(node.args):
                if isinstance(argument, ast.arg):
                    argument.annotation = None
            found[node.name] = node
    return found


def _bound(functions: Mapping[str, ast.FunctionDef], **names: Any) -> SimpleNamespace:
    """These functions in a namespace of their own, in which `names` mean what is given."""
    module = ast.Module([*functions.values()], type_ignores=[])
    space: dict[str, Any] = {}
    exec(compile(module, "<functions that count>", "exec"), space)  # noqa: S102 - the package's own source
    space.update(names)
    return SimpleNamespace(**space)


if __name__ == "__main__":
    sys.exit(main())
