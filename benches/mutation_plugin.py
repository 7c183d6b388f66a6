"""What pytest does differently under mutmut: short draws that are not shrunk, and a module's own tests only.

Loaded by `-p mutation_plugin`, from `benches/mutation.py`. A mutant of a module is judged by the files that state its
laws (`OWN`), so that a survivor means that they miss it, not that something far away happens to notice.
"""

import os

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
    "iga._attention_ops": ("test_attention_ops", "test_attention", "test_attention_exact", "test_thresholds_exact"),
}


def own_tests(mutant: str) -> tuple[str, ...]:
    """The files that judge a mutant, nearest first; empty where it is no mutant's name."""
    return next((files for module, files in OWN.items() if mutant.startswith(f"{module}.")), ())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    files = own_tests(os.environ.get("MUTANT_UNDER_TEST", ""))
    if not files:
        return
    kept = [item for item in items if item.path.stem in files]
    config.hook.pytest_deselected(items=[item for item in items if item.path.stem not in files])
    items[:] = sorted(kept, key=lambda item: files.index(item.path.stem))
