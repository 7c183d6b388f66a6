"""Changes to pytest under mutmut: short draws that are not shrunk, and a module's own tests only.

Loaded by `-p mutation_plugin`, from `tools/mutation.py`. A mutant of a module is judged by the files that state its
laws (`JUDGES`), so that a survivor means that they miss it, not that something far away happens to notice. Which test
failed goes into the file $IGA_MUTATION_LOG.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import hypothesis
import pytest
from hypothesis import Phase

# Twenty draws find what a mutant breaks; shrinking a failure that nobody reads costs most of the time.
hypothesis.settings.register_profile(
    "mutation",
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=False,
    suppress_health_check=(),
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate),
)

# Modules, and the files under tests/ that state their laws, nearest first: the folder of the package, then the laws and
# findings that are about it. The only list of its kind: [tool.mutmut] names what is mutated, and all tests.
JUDGES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("iga.rotation", "iga.frame", "iga._backbone", "iga.gaussian", "iga.overlap"): (
        "unit/geometry/test_*.py",
        "property/test_laws_of_rotations.py",
        "property/test_laws_of_frames.py",
        "property/test_laws_of_backbones.py",
        "property/test_laws_of_gaussians.py",
        "property/test_laws_of_overlaps.py",
        "regression/test_gradients_at_identity_and_pi.py",
        "regression/test_degenerate_backbones.py",
        "regression/test_overlap_findings.py",
        "regression/test_precision_refused.py",
        "regression/test_rigid_verbs.py",
        "regression/test_units.py",
    ),
    ("iga.bounds",): ("unit/bounds/test_*.py", "property/test_laws_of_bounds.py"),
    ("iga.attention", "iga.functional", "iga._layers", "iga._attention_layer"): (
        "unit/layers/test_attention*.py",
        "unit/layers/test_layers.py",
        "unit/layers/test_masks.py",
        "unit/layers/test_presets.py",
        "property/test_laws_of_attention.py",
        "property/test_logits_are_bounded.py",
        "regression/test_layer_findings.py",
        "regression/test_bad_tensors.py",
        "regression/test_arguments_by_name.py",
        "regression/test_openfold_calls.py",
    ),
    ("iga.experiment.task",): tuple(
        f"experiment/test_{name}.py" for name in ("chains", "batches", "flow", "losses", "baselines", "sampling")
    ),
    ("iga._statistics",): ("unit/bench/test_statistics.py",),
    ("iga.experiment.results",): tuple(f"experiment/test_{name}.py" for name in ("verdicts", "tables", "report")),
}
MODULES = tuple(module for modules in JUDGES for module in modules)
CHOSEN = pytest.StashKey[set[str]]()


def own_tests(mutant: str) -> tuple[str, ...]:
    """The files that judge a mutant, nearest first; empty where it is no mutant's name."""
    globs = next((of for modules, of in JUDGES.items() if mutant.startswith(tuple(f"{m}." for m in modules))), ())
    return files_of(globs)


def files_of(globs: Iterable[str]) -> tuple[str, ...]:
    """From the working directory, which is mutmut's copy of the tree."""
    tests = Path("tests")
    return tuple(dict.fromkeys(str(path) for glob in globs for path in sorted(tests.glob(glob))))


def without_parameters(node: str) -> str:
    return node.partition("[")[0]


def pytest_configure(config: pytest.Config) -> None:
    """Whole files instead of single tests, and instead of all tests those that judge a module.

    Some parameters' ids differ in the second pytest of a process (pytest escapes what is not ASCII again where ids come
    from a function). A test that is not found would end pytest before any test has run, and mutmut would take that for
    a mutant that was killed.
    """
    chosen = {without_parameters(arg) for arg in config.args if "::" in arg}
    config.stash[CHOSEN] = chosen
    files = own_tests(os.environ.get("MUTANT_UNDER_TEST", ""))
    if chosen:
        paths = {node.partition("::")[0] for node in chosen}
        config.args = sorted(path for path in paths if not files or path in files)
    elif config.args == ["tests"]:
        config.args = list(files or files_of(glob for globs in JUDGES.values() for glob in globs))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a mutant's own files, nearest first, the tests that reach the mutated function."""
    files, chosen = own_tests(os.environ.get("MUTANT_UNDER_TEST", "")), config.stash[CHOSEN]

    def file(item: pytest.Item) -> str:
        return item.nodeid.partition("::")[0]

    def wanted(item: pytest.Item) -> bool:
        return (not files or file(item) in files) and (not chosen or without_parameters(item.nodeid) in chosen)

    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    items[:] = [item for item in items if wanted(item)]
    if files:
        items.sort(key=lambda item: files.index(file(item)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """The proof of a kill: which test failed. An exit code alone could be anything."""
    log, mutant = os.environ.get("IGA_MUTATION_LOG"), os.environ.get("MUTANT_UNDER_TEST", "")
    if report.failed and log and own_tests(mutant):
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps({"mutant": mutant, "test": report.nodeid}) + "\n")
