"""The share of small faults in the core modules that the tests notice: mutmut, run on a copy, and a table of it.

    pip install -c constraints.txt -e ".[dev,mutation]"
    python tools/mutation.py --children 2                     # hours; exit 1 under 90 %
    python tools/mutation.py --module iga.rotation --show     # one module, and what survived there

mutmut (3.8) plants one fault at a time: an operator, a number, an argument, a default, a condition. [tool.mutmut] in
pyproject.toml says what is mutated (the text of exceptions is not), mutation_plugin.py which tests judge it. The copy
is a temporary folder, or `--folder`, with which an interrupted run goes on.
A mutant is killed if a test is on record that failed, or if mutmut's time limit ran out; anything else, a crash of
pytest itself included, counts against the tests.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

from mutation_plugin import MODULES

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("iga", "tests", "benches", "tools", "docs", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml")
RESULTS = ROOT / "benches" / "results" / "mutation.json"
KILLED = ("killed", "timeout")
FAILURES = "failures.jsonl"


@dataclass(frozen=True)
class Mutant:
    """One planted fault: mutmut's name, what became of it, and the lines that it changes ("-" before, "+" after)."""

    name: str
    status: str
    change: tuple[str, ...]

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0]


def copy_to(folder: Path, afresh: tuple[str, ...] = ()) -> None:
    """The tree that mutmut works in; what is there already stays, so that a run can go on, but for `afresh`."""
    for name in COPIED:
        source = ROOT / name
        if (folder / name).exists() and name not in afresh:
            continue
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy2(source, folder / name)


def environment_of(folder: Path) -> dict[str, str]:
    """One thread, the short profile, and the plugin; the mutants come first on the path from the working directory."""
    return dict(os.environ) | {
        "OMP_NUM_THREADS": "1",
        "IGA_HYPOTHESIS_PROFILE": "mutation",
        "PYTHONPATH": str(folder / "tools"),
        "PYTHONHASHSEED": "0",
        "IGA_MUTATION_LOG": str(folder / FAILURES),
    }


def run_mutmut(folder: Path, children: int, patterns: list[str]) -> None:
    start = "from mutmut.__main__ import cli; cli()"
    command = [sys.executable, "-c", start, "run", "--max-children", str(children), *patterns]
    with (folder / "mutmut.log").open("w") as log:
        done = subprocess.run(
            command, cwd=folder, env=environment_of(folder), stdout=log, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode != 0:
        output = (folder / "mutmut.log").read_text().replace("\r", "\n")
        raise SystemExit(f"mutmut ended with {done.returncode}:\n{output[-2000:]}")


def check_null_mutants(folder: Path, modules: list[str]) -> None:
    """A mutant that changes nothing must survive, module by module, or "killed" would mean nothing."""
    settings = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["mutmut"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--rootdir=.", *settings["pytest_add_cli_args"]]
    command += settings["pytest_add_cli_args_test_selection"]
    for module in modules or MODULES:
        environment = environment_of(folder) | {"MUTANT_UNDER_TEST": f"{module}.x_nothing__mutmut_0"}
        done = subprocess.run(
            command, cwd=folder / "mutants", env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(f"the tests of {module} fail without a fault in it:\n{done.stdout[-2000:]}")


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """mutmut finds its files from the working directory."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def read_mutants(folder: Path, modules: list[str]) -> list[Mutant]:
    """Every mutant that was tried, in the order of the source."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code
    from mutmut.utils.file_utils import walk_mutatable_files

    found, killers = [], failed_tests(folder)
    with inside(folder):
        for path in sorted(walk_mutatable_files()):
            data = SourceFileMutationData(path=path)
            data.load()
            for name, code in data.exit_code_by_key.items():
                module = name.rpartition(".")[0]
                if modules and not any(module == m or module.startswith(f"{m}.") for m in modules):
                    continue
                status = str(status_by_exit_code[code])
                if status == "killed" and name not in killers:
                    status = "killed by no test"
                diff = () if status in KILLED else changed_lines(get_diff_for_mutant(name, path=path))
                found.append(Mutant(name, status, diff))
    return found


def failed_tests(folder: Path) -> dict[str, str]:
    """The test that failed, by mutant."""
    path = folder / FAILURES
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {entry["mutant"]: entry["test"] for entry in map(json.loads, lines)}


def changed_lines(diff: str) -> tuple[str, ...]:
    lines = (line for line in diff.splitlines() if line[:1] in "+-" and not line.startswith(("---", "+++")))
    return tuple(line[0] + " " + line[1:].strip() for line in lines if line[1:].strip())


def table(mutants: list[Mutant]) -> list[dict[str, object]]:
    """A row a module, and one for all of them."""
    groups = {module: [m for m in mutants if m.module == module] for module in dict.fromkeys(m.module for m in mutants)}
    rows = []
    for module, group in (*groups.items(), ("all", mutants)):
        counts = Counter(m.status for m in group)
        killed = sum(counts[status] for status in KILLED)
        rows.append(
            {
                "module": module,
                "mutants": len(group),
                "killed": counts["killed"],
                "timeout": counts["timeout"],
                "survived": len(group) - killed,
                "share": round(killed / len(group), 4) if group else 0.0,
            }
        )
    return rows


def printed(rows: list[dict[str, object]]) -> str:
    lines = ["| module | mutants | killed | timeout | survived | share |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        cells = [f"{100 * x:.1f} %" if isinstance(x, float) else str(x) for x in row.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def report(rows: list[dict[str, object]], mutants: list[Mutant]) -> dict[str, object]:
    packages = ("mutmut", "torch", "hypothesis", "pytest", "jaxtyping", "beartype")
    return {
        "schema": 1,
        "date": date.today().isoformat(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "modules": rows,
        "survivors": [
            {"name": m.name, "status": m.status, "change": list(m.change)} for m in mutants if m.status not in KILLED
        ],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Mutation score of the core modules; exit 1 under the share asked for")
    parser.add_argument("--children", type=int, default=1, help="mutants tried at a time (default 1)")
    parser.add_argument("--module", action="append", default=[], help="only this module or package; may be repeated")
    parser.add_argument("--at-least", type=float, default=0.9, help="share that must be killed (default 0.9)")
    parser.add_argument("--folder", type=Path, help="work there and keep it, instead of in a temporary folder")
    parser.add_argument("--json", type=Path, help=f"default, for a whole run: {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--read-only", action="store_true", help="judge what an earlier run left in --folder")
    parser.add_argument("--again", action="store_true", help="with new tests, what survived an earlier run in --folder")
    parser.add_argument("--show", action="store_true", help="print what each survivor changes")
    options = parser.parse_args(arguments)
    if (options.read_only or options.again) and options.folder is None:
        parser.error("--read-only and --again need the --folder of the earlier run")
    with tempfile.TemporaryDirectory(prefix="iga-mutation-") as temporary:
        folder = options.folder.resolve() if options.folder else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not options.read_only:
            patterns = [f"{module}.*" for module in options.module]
            if options.again:
                patterns = [m.name for m in read_mutants(folder, options.module) if m.status not in KILLED]
                if not patterns:
                    parser.error("nothing survived in --folder")
            copy_to(folder, afresh=("tests", "tools") if options.again else ())
            run_mutmut(folder, options.children, patterns)
            check_null_mutants(folder, options.module)
        mutants = read_mutants(folder, options.module)
    rows = table(mutants)
    print(printed(rows))
    if options.show:
        for mutant in mutants:
            if mutant.status not in KILLED:
                print(f"\n{mutant.name}: {mutant.status}", *mutant.change, sep="\n    ")
    target = options.json or (None if options.module else RESULTS)
    if target is not None:
        target.write_text(json.dumps(report(rows, mutants), indent=1, ensure_ascii=False) + "\n")
    share = float(str(rows[-1]["share"]))
    return 0 if share >= options.at_least else 1


if __name__ == "__main__":
    raise SystemExit(main())
