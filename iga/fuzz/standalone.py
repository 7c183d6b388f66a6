"""A counterexample of an overlap function's, judged with torch alone: by the check that broke, and in fractions.

This file is copied whole into every counterexample. The check's own source stands below it, in modules under `judge`
(`iga.fuzz.bundle`): it runs on the case's inputs, and says where the function breaks, what it says there and what is
right. Beside that, the numbers of the pair are taken as the exact binary numbers that they are: Σ = R_i diag(σ_i²) R_iᵀ
+ R_j diag(σ_j²) R_jᵀ, its cofactors and its determinant are fractions, and one logarithm is taken to 60 digits.

The function runs in a process of its own. Only a verdict that it wrote at its very end counts as one: a function that
ends its process, with whatever code, is wrong.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch

NAMES = ("q_rot", "q_mean", "q_sigma", "k_rot", "k_mean", "k_sigma")
CHILD = "--judged-in-this-process"
ENDS = {"right": 0, "wrong": 1, "not loaded": 2}  # verdict → exit code
SHOWN = 1000  # pairs of a batch whose exact numbers are computed: its first and its last
MODULE = "# === "  # before the name of a module in the text of the judge
Matrix = list[list[Fraction]]


def tensor(of: dict[str, Any]) -> torch.Tensor:
    """The tensor that was written as {dtype, shape, values}, each value by float.hex."""
    values = [float.fromhex(x) for x in of["values"]]
    return torch.tensor(values, dtype=torch.float64).reshape(of["shape"]).to(getattr(torch, of["dtype"]))


def load(place: str, beside: Path) -> Any:
    """What stands at "file.py:name" (from here, or beside this script) or "package.module:name"."""
    where, _, name = place.rpartition(":")
    sys.path[:0] = [str(Path.cwd()), str(beside)]
    if where.endswith(".py"):
        file = next((f for f in (Path(where), beside / where, beside / Path(where).name) if f.is_file()), None)
        if file is None:
            script = Path(sys.argv[0]).name
            raise ValueError(f"{where} is not there: give the function's place, {script} path/to/file.py:{name}")
        sys.path.insert(0, str(file.resolve().parent))  # so that a file may import its neighbours
        spec = importlib.util.spec_from_file_location("accused", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["accused"] = module
        _run(lambda: spec.loader.exec_module(module))  # pyright: ignore[reportOptionalMemberAccess]
    else:
        module = _run(lambda: importlib.import_module(where))
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return getattr(found, "function", found)  # a target that states its claims holds the function


def _run(module: Callable[[], Any]) -> Any:
    """Run a module. Where iga is not installed, its decorator of claims is one that leaves a function as it is."""
    try:
        return module()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "iga":
            raise
    package: Any = ModuleType("iga")
    package.testing = testing = cast(Any, ModuleType("iga.testing"))
    package.__path__, testing.target = [], lambda **claims: lambda function: function
    sys.modules |= {"iga": package, "iga.testing": testing}
    return module()


# --- the check that broke ---------------------------------------------------------------------------------------


class Judge(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Modules from a text in which each follows a line with its name; the packages that they are in are empty."""

    def __init__(self, text: str) -> None:
        parts = [part.partition("\n") for part in ("\n" + text).split("\n" + MODULE)[1:]]
        self.sources = {name.strip(): source for name, _, source in parts}
        self.packages = {name.rsplit(".", k)[0] for name in self.sources for k in range(1, name.count(".") + 1)}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname not in self.sources and fullname not in self.packages:
            return None
        package = fullname in self.packages
        return importlib.machinery.ModuleSpec(fullname, self, origin="reproduce.py", is_package=package)

    def create_module(self, spec: Any) -> None:
        return None

    def get_source(self, fullname: str) -> str:
        return self.sources.get(fullname, "")

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        exec(compile(self.get_source(name), f"<{name}>", "exec"), module.__dict__)


def by_check(function: Any, case: dict[str, Any], judge: str) -> tuple[bool, Any]:
    """Print what the check finds; (whether it is broken, the inputs of the call that broke it, by name, if any)."""
    sys.meta_path.insert(0, Judge(judge))
    part: Any = importlib.import_module
    subjects, pairs = part("judge.testing.overlap.subject"), part("judge.testing.overlap.pairs")
    measure, watch = part("judge.fuzz.objectives").measure, part("judge.testing.state.watch")
    part("judge.testing.judges.overlap").overlap_digits = by_fractions
    claims = part("judge.testing.targets").Claims(**case["claims"])
    dtypes, low_high = tuple(getattr(torch, name) for name in case["dtypes"]), tuple(case["sigma_range"])
    subject = subjects.OverlapSubject("the function", function, low_high, dtypes, claims=claims)
    check = getattr(part(case["module"]), case["check"])
    # nothing is left out as ill-conditioned here: what is a counterexample is not
    if case["inputs"] is None:
        source = pairs.PairSource([], low_high, case["count"], None, case["exact"], "fast")
    else:
        given = batch(case)
        copies = lambda dtype: tuple(x.clone() for x in given)  # noqa: E731
        count = len(given[0])
        source = pairs.GivenPairs([], low_high, count, None, case["exact"], "fast", given=copies, seed=case["seed"])
    tally = part("judge.testing.tally").Tally(check.name, check.unit)
    with watch.watching(watch.Watch()):
        measure(check, subject, source, case["seed"], tally)
    found = tally.finding()
    print(f"{check.name}: {found.verdict}")
    if found.verdict != "broken":
        return False, None
    print(f"  {found.worst_example}")
    if (one := tally.said) is not None:
        where = "" if one.where == found.worst_example else f"{one.where}: "
        print(f"  {where}it says {_text(one.accused)}, right is {_text(one.right)}")
    if math.isfinite(found.worst) or math.isfinite(found.budget):
        print(f"  {found.worst:.4g} {found.unit}, allowed {found.budget:.4g}")
    print(f"  {found.note}")
    return True, None if tally.call is None else tally.call.inputs


def batch(case: dict[str, Any]) -> list[torch.Tensor]:
    """The case's pairs [n, …]."""
    given = [tensor(case["inputs"][name]) for name in NAMES]
    return [x[None] for x in given] if given[1].ndim == 1 else given


# --- exact numbers ----------------------------------------------------------------------------------------------


def by_fractions(*pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(dist_sq [n], log_det [n]) of pairs [n, …], each rounded once to float64."""
    rows = [exact(numbers) for numbers in _rows(list(pair))]
    both = torch.tensor([[float(row[0]), float(row[1])] for row in rows], dtype=torch.float64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _rows(pairs: list[torch.Tensor]) -> list[Any]:
    return list(zip(*([tuple(row) for row in x.double().flatten(1).tolist()] for x in pairs), strict=True))


@cache
def exact(pair: tuple[tuple[float, ...], ...]) -> tuple[Fraction, Decimal, dict[str, list[Fraction]]]:
    """(dist_sq, log_det, derivatives of both by means, log scales and turns) of one pair of lists of numbers."""
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = ([Fraction(x) for x in part] for part in pair)
    given = ((q_rot, q_sigma), (k_rot, k_sigma))
    ends = [([rot[3 * a : 3 * a + 3] for a in range(3)], sigma) for rot, sigma in given]
    total = [
        [_sum(r[a][k] * r[b][k] * s[k] ** 2 for r, s in ends for k in range(3)) for b in range(3)] for a in range(3)
    ]
    adjugate = [[_cofactor(total, a, b) for b in range(3)] for a in range(3)]
    det = _sum(total[0][b] * adjugate[0][b] for b in range(3))
    inverse = [[adjugate[a][b] / det for b in range(3)] for a in range(3)]
    delta = [x - y for x, y in zip(q_mean, k_mean, strict=True)]
    y = [_sum(inverse[a][b] * delta[b] for b in range(3)) for a in range(3)]
    dist_sq = _sum(delta[a] * y[a] for a in range(3))
    with localcontext() as context:
        context.prec = 60
        log_det = Decimal(det.numerator).ln() - Decimal(det.denominator).ln()
    slopes: dict[str, list[Fraction]] = {"dist_sq by mean": [2 * x for x in y] + [-2 * x for x in y]}
    slopes["log_det by mean"] = [Fraction(0)] * 6
    for name in ("dist_sq", "log_det"):
        scales, turns = [], []
        for rot, sigma in ends:
            # the derivative by Σ, as a form: −y yᵀ of dist_sq, Σ⁻¹ of log_det; in the end's own frame
            form = [[-y[a] * y[b] if name == "dist_sq" else inverse[a][b] for b in range(3)] for a in range(3)]
            own = _times(_transposed(rot), _times(form, rot))
            scales += [2 * sigma[k] ** 2 * own[k][k] for k in range(3)]
            # R → R exp([ω]×): twice the skew part of 2 own diag(σ²)
            m = [[2 * own[a][b] * sigma[b] ** 2 for b in range(3)] for a in range(3)]
            turns += [m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]]
        slopes[f"{name} by log sigma"], slopes[f"{name} by rotation"] = scales, turns
    return dist_sq, log_det, slopes


def _sum(values: Any) -> Fraction:
    return sum(values, Fraction(0))


def _cofactor(m: Matrix, a: int, b: int) -> Fraction:
    i, j, k, n = (a + 1) % 3, (a + 2) % 3, (b + 1) % 3, (b + 2) % 3
    return m[i][k] * m[j][n] - m[i][n] * m[j][k]


def _transposed(m: Matrix) -> Matrix:
    return [list(column) for column in zip(*m, strict=True)]


def _times(a: Matrix, b: Matrix) -> Matrix:
    return [[_sum(a[i][k] * b[k][j] for k in range(3)) for j in range(3)] for i in range(3)]


def said(function: Any, pairs: list[torch.Tensor], gradients: bool) -> dict[str, torch.Tensor]:
    """What the function says of pairs [n, …]: values [n], and with `gradients` its derivatives [n, 6]."""
    leaves = [x.clone().requires_grad_(gradients) for x in pairs]
    with torch.set_grad_enabled(gradients):
        dist_sq, log_det = function(*leaves)
    found = {"dist_sq": dist_sq.detach().double(), "log_det": log_det.detach().double()}
    for name, value in (("dist_sq", dist_sq), ("log_det", log_det)) if gradients else ():
        grads: Any = [None] * 6
        if value.requires_grad:
            grads = torch.autograd.grad(value.sum(), leaves, retain_graph=True, allow_unused=True)
        q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = (
            (torch.zeros_like(x) if g is None else g).double() for g, x in zip(grads, leaves, strict=True)
        )
        found[f"{name} by mean"] = torch.cat([q_mean, k_mean], dim=-1)
        by_sigma = [g * leaves[place].detach().double() for g, place in ((q_sigma, 2), (k_sigma, 5))]
        found[f"{name} by log sigma"] = torch.cat(by_sigma, dim=-1)
        turns = []
        for g, place in ((q_rot, 0), (k_rot, 3)):
            m = leaves[place].detach().double().mT @ g
            turns.append(torch.stack([m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]], -1))
        found[f"{name} by rotation"] = torch.cat(turns, dim=-1)
    return found


def compare(function: Any, pairs: list[torch.Tensor], gradients: bool) -> bool:
    """Print what the function says of pairs [n, …], called plainly, beside the exact numbers; whether it is wrong by
    more than the budgets of the checks."""
    count = len(pairs[0])
    print(f"called plainly, with {count} pair{'s' if count > 1 else ''}, beside exact arithmetic:")
    if count == 1:
        for name, x in zip(NAMES, pairs, strict=True):
            print(f"  {name:8s} {x.double().flatten().tolist()}")
    try:
        found = said(function, pairs, gradients)
    except Exception as error:  # the function may raise anything
        print(f"  it raised {type(error).__name__}: {error}   <- wrong")
        return True
    places = list(range(count)) if count <= SHOWN else [*range(SHOWN // 2), *range(count - SHOWN // 2, count)]
    if len(places) < count:
        print(f"  of which the first and the last {SHOWN // 2} are shown")
    chosen = [x[places] for x in pairs]
    right, limits = [exact(numbers) for numbers in _rows(chosen)], allowed(chosen)
    return any([_row(name, values[places], right, limits[name], places) for name, values in found.items()])


def allowed(pairs: list[torch.Tensor]) -> dict[str, list[float]]:
    """What each value may be off by, from the budgets of the checks; infinite where nothing is claimed."""
    oracle = importlib.import_module("judge.testing.judges.overlap")
    budgets = importlib.import_module("judge.testing.overlap.budgets")
    double, dtype = [x.double() for x in pairs], pairs[0].dtype
    dist_sq, log_det = oracle.overlap_reference(*double)
    kappa = oracle.condition(double[2], double[5])
    smallest = torch.minimum(double[2].amin(-1), double[5].amin(-1))
    found = budgets.value_budgets(dist_sq, log_det, kappa, dtype)
    found |= budgets.gradient_budgets(dist_sq, kappa, smallest, dtype)
    return {name: x.nan_to_num(nan=math.inf).tolist() for name, x in found.items()}


def _row(name: str, values: torch.Tensor, right: list[Any], allowed: list[float], places: list[int]) -> bool:
    """One line of the worst pair; whether it is wrong."""
    place = {"dist_sq": 0, "log_det": 1}.get(name)
    worst, line, wrong = -1.0, "", False
    for k, (row, limit) in enumerate(zip(right, allowed, strict=True)):
        expected = [row[place]] if place is not None else row[2][name]
        got = values[k].flatten().tolist()
        off = _distance(got, expected)
        bad = not (off <= limit and math.isfinite(off))
        share = math.inf if not math.isfinite(off) else off / limit if limit else (math.inf if off else 0.0)
        if share > worst or not line:
            worst, of = share, f" of pair {places[k]}" if len(places) > 1 else ""
            words = f"it says {_text(got)}, right is {_text([float(e) for e in expected])}"
            line = f"  {name}{of}: {words}; off by {off:.3g}, allowed {limit:.3g}"
        wrong |= bad
    print(line + ("   <- wrong" if wrong else ""))
    return wrong


def _distance(got: list[float], expected: list[Any]) -> float:
    """The length of the difference; infinite where a number is not finite."""
    if not all(math.isfinite(x) for x in got):
        return math.inf
    return math.hypot(*(float(abs(Fraction(g) - Fraction(e))) for g, e in zip(got, expected, strict=True)))


def _text(values: list[float]) -> str:
    shown = ", ".join(f"{x:.9g}" for x in values)
    return shown if len(values) == 1 else f"({shown})"


# --- the two processes ------------------------------------------------------------------------------------------


def judged(case: dict[str, Any], judge: str, place: str) -> str:
    """The verdict on the function, after it was printed why."""
    torch.set_num_threads(1)
    try:
        function = load(place, Path(__file__).resolve().parent)
    except Exception as error:  # its file may raise anything
        print(f"{place} cannot be loaded: {error}", file=sys.stderr)
        return "not loaded"
    wrong, inputs = by_check(function, case, judge)
    if case["inputs"] is not None:
        pairs = batch(case)
        if inputs is not None and len(pairs[0]) == 1 and inputs["q_mean"].numel() == 3:  # as the check changed it
            pairs = [inputs[name].reshape(x.shape) for name, x in zip(NAMES, pairs, strict=True)]
        wrong |= compare(function, pairs, case["gradients"])
    print("WRONG" if wrong else "right")
    return "wrong" if wrong else "right"


def main(case: dict[str, Any], judge: str, arguments: list[str]) -> int:
    """1 while the function is wrong on the case, 0 once it is right, 2 if it cannot be loaded."""
    if arguments[:1] == [CHILD]:
        _, place, file = arguments
        verdict = judged(case, judge, place)
        sys.stdout.flush()
        Path(file).write_text(verdict, encoding="utf-8")
        return ENDS[verdict]
    place = arguments[0] if arguments else case["target"]
    print(f"{place}, {case['check']}: {case['where']}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "verdict")
        ended = subprocess.run([sys.executable, __file__, CHILD, place, str(file)], check=False).returncode
        verdict = file.read_text(encoding="utf-8") if file.exists() else ""
    if verdict not in ENDS:
        print(f"WRONG: it ended its process, with exit code {ended}, before all was judged")
        return 1
    return ENDS[verdict]
