"""What pytest does differently under mutmut: short draws that are not shrunk, and a module's own tests only.

Loaded by `-p mutation_plugin`, from `tools/mutation.py`. A mutant of a module is judged by the files that state its
laws (`OWN`), so that a survivor means that they miss it, not that something far away happens to notice. Which test
failed goes into the file $IGA_MUTATION_LOG.
"""

import json
import os
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

OWN: dict[str, tuple[str, ...]] = {
    "iga.rotation": (
        "test_rotation",
        "test_batches_exact",
        "test_refusals_exact",
        "test_thresholds_exact",
        "test_gradients_at_identity_and_pi",
    ),
    "iga.frame": ("test_frame", "test_backbone", "test_batches_exact", "test_refusals_exact", "test_units"),
    "iga._backbone": (
        "test_backbone",
        "test_frame",
        "test_units",
        "test_units_exact",
        "test_refusals_exact",
        "test_thresholds_exact",
        "test_degenerate_backbones",
    ),
    "iga.gaussian": ("test_gaussian", "test_batches_exact", "test_refusals_exact", "test_thresholds_exact"),
    "iga.overlap": (
        "test_overlap",
        "test_overlap_gradients",
        "test_overlap_scores",
        "test_overlap_findings",
        "test_batches_exact",
    ),
    "iga.bounds": (
        "test_bounds_exact",
        "test_bounds_formulas_exact",
        "test_bounds_gradients",
        "test_bounds_rounding",
        "test_bounds_summary",
        "test_bounds_table_exact",
    ),
    "iga.attention": ("test_attention", "test_attention_exact", "test_layer_findings", "test_silent_misreadings"),
    "iga.functional": ("test_attention", "test_attention_exact", "test_layer_findings", "test_presets"),
    "iga._layers": ("test_attention_ops", "test_attention", "test_attention_exact", "test_thresholds_exact"),
    "iga.experiment.task.chains": ("test_chains", "test_batches"),
    "iga.experiment.task.batches": ("test_batches",),
    "iga.experiment.task.flow": ("test_flow", "test_losses", "test_baselines"),
    "iga.experiment.task.sampling": ("test_sampling",),
    "iga.experiment.results.readings": ("test_verdicts", "test_report"),
    "iga.experiment.results.verdicts": ("test_verdicts", "test_report"),
    "iga.experiment.results.columns": ("test_report",),
    "iga.experiment.results.tables": ("test_report",),
}


CHOSEN = pytest.StashKey[set[str]]()


def own_tests(mutant: str) -> tuple[str, ...]:
    """The files that judge a mutant, nearest first; empty where it is no mutant's name."""
    return next((files for module, files in OWN.items() if mutant.startswith(f"{module}.")), ())


def without_parameters(node: str) -> str:
    return node.partition("[")[0]


def pytest_configure(config: pytest.Config) -> None:
    """Whole files instead of single tests: some parameters' ids differ in the second pytest of a process.

    (pytest escapes what is not ASCII again where ids come from a function.) A test that is not found would end pytest
    before any test has run, and mutmut would take that for a mutant that was killed.
    """
    chosen = {without_parameters(arg) for arg in config.args if "::" in arg}
    config.stash[CHOSEN] = chosen
    if chosen:
        files = own_tests(os.environ.get("MUTANT_UNDER_TEST", ""))
        paths = {node.partition("::")[0] for node in chosen}
        config.args = sorted(path for path in paths if not files or Path(path).stem in files)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a mutant's own files, nearest first, the tests that reach the mutated function."""
    files, chosen = own_tests(os.environ.get("MUTANT_UNDER_TEST", "")), config.stash[CHOSEN]

    def wanted(item: pytest.Item) -> bool:
        return (not files or item.path.stem in files) and (not chosen or without_parameters(item.nodeid) in chosen)

    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    items[:] = [item for item in items if wanted(item)]
    if files:
        items.sort(key=lambda item: files.index(item.path.stem))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """The proof of a kill: which test failed. An exit code alone could be anything."""
    log, mutant = os.environ.get("IGA_MUTATION_LOG"), os.environ.get("MUTANT_UNDER_TEST", "")
    if report.failed and log and own_tests(mutant):
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps({"mutant": mutant, "test": report.nodeid}) + "\n")
