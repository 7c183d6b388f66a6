"""The counts that the budgets are made of are those of the sources, and of the theory; any change of a source shows."""

import ast
import re
from pathlib import Path

import pytest

import iga
from iga.bounds import IMPLEMENTATIONS
from iga.testing.judges import roundings
from iga.testing.judges.roundings import counted, main, table

PACKAGE = Path(iga.__file__).parent
FORWARD, MATH, OVERLAP = "kernels/cpu/_forward.py", "kernels/triton/_math.py", "overlap.py"
# the functions of each source that are evaluated; the others (the textbook form, checks) are not the closed form
EVALUATED = {
    "reference": {OVERLAP: ("closed_form", "relative_rotation", "_difference", "_into", "student_t_score")},
    "cpu": {
        FORWARD: (
            *("_relative", "_determinant", "_numerator", "_square", "_point", "_student_apart", "_gaussian_apart"),
            *("_start", "_student_join", "_student_together", "_gaussian_join", "_gaussian_together"),
        ),
        "kernels/cpu/_pack.py": ("_pack_keys",),
    },
    "fused": {MATH: ("relative", "overlap", "_square", "score"), "kernels/packing.py": ("key_fields",)},
}
OTHER = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


def source(name):
    return (PACKAGE / name).read_text(encoding="utf-8")


def test_the_table_of_the_budgets_is_what_the_sources_say(capsys):
    assert {name: counted(name) for name in IMPLEMENTATIONS} == IMPLEMENTATIONS
    assert main() == 0 and capsys.readouterr().out == table(IMPLEMENTATIONS) + "\n"


def test_the_table_of_the_theory_is_that_of_the_budgets():
    text = (Path(__file__).parents[3] / "docs/theory.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d[\d |]*) \|", text, re.MULTILINE))
    counts = {
        kind: " | ".join(str(getattr(r, kind)) for r in IMPLEMENTATIONS.values()) for kind in vars(counted("cpu"))
    }
    assert {kind: row for kind, row in rows.items() if kind in counts} == counts


INDICES = {"first", "lanes", "n", "at"}


def arithmetic(tree, functions):
    """Every sum, difference, product and quotient of numbers in these functions; none of an index or an address."""
    found = []

    def visit(node):
        if isinstance(node, ast.Subscript):
            return
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("tl.load", "range", "min"):
            return
        of_index = isinstance(node, ast.BinOp) and INDICES & {x.id for x in ast.walk(node) if isinstance(x, ast.Name)}
        if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OTHER and not of_index:
            found.append(node)
        for child in ast.iter_child_nodes(node):
            visit(child)

    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name in functions:
            visit(node)
    return found


def seen(implementation, name, text):
    """Whether counting finds other roundings, or another formula, in the edited text."""
    try:
        return counted(implementation, {name: text}) != IMPLEMENTATIONS[implementation]
    except (ValueError, TypeError, IndexError, ZeroDivisionError):
        return True


@pytest.mark.parametrize(
    ("implementation", "name"), [(i, name) for i, sources in EVALUATED.items() for name in sources]
)
def test_one_operation_that_is_another_is_seen(implementation, name):
    tree = ast.parse(source(name))
    tried, missed = arithmetic(tree, EVALUATED[implementation][name]), []
    for node in tried:
        right = node.op
        node.op = OTHER[type(right)]()
        if not seen(implementation, name, ast.unparse(tree)):
            missed.append(f"line {node.lineno}: {ast.unparse(node)}")
        node.op = right
    assert len(tried) > 3 and missed == []


@pytest.mark.parametrize(
    ("implementation", "name", "old", "new"),
    [
        # the same numbers, but a sum spread over its factor, or one division for a product by an inverse
        ("reference", OVERLAP, "(w_i[k] * v_j[l] + v", "w_i[k] * v_j[l] + (q_l[k].square() * v"),
        ("cpu", FORWARD, "w2 * (q20 * x0 + q21 * x1 + q22 * x2)", "w2 * q20 * x0 + w2 * (q21 * x1 + q22 * x2)"),
        ("cpu", FORWARD, "x0 * _square(g02,", "(x0 * w0 / w0) * _square(g02,"),
        ("cpu", FORWARD, "half * (num / det + (", "half * (num * (1.0 / det) + ("),
        ("fused", MATH, "return tl.log2(x)", "return tl.log2(x * 2.0)"),
        ("fused", MATH, "rcp.approx.ftz.f32", "rsqrt.approx.ftz.f32"),
        ("fused", MATH, "w0 * (g0 * g0)", "w0 * (g0 * g0) * LANES"),
    ],
)  # fmt: skip
def test_one_rounding_more_is_seen(implementation, name, old, new):
    text = source(name)
    assert old in text and seen(implementation, name, text.replace(old, new, 1))


def test_a_table_that_is_not_the_sources_ends_one(monkeypatch, capsys):
    wrong = {**IMPLEMENTATIONS, "cpu": IMPLEMENTATIONS["reference"]}
    monkeypatch.setattr(roundings, "IMPLEMENTATIONS", wrong)
    assert main() == 1
    assert "cpu: cross is 3, and 2 in iga.bounds.IMPLEMENTATIONS" in capsys.readouterr().out


def test_a_formula_that_is_another_ends_one(monkeypatch, capsys):
    monkeypatch.setattr(
        roundings, "_functions", lambda text: real(text.replace("t0 * t0 + t1 * t1", "t0 * t0 - t1 * t1"))
    )
    assert main() == 1
    assert "num is not the sum of the closed form" in capsys.readouterr().out


real = roundings._functions
