"""Shared parts of the experiment's tests: small batches, evaluations on two samples, and runs without processes."""

from collections.abc import Iterator

import pytest

from helpers.flow import in_float64, small_batch
from iga.experiment import compare as comparison
from iga.experiment.run import evaluate
from iga.experiment.sweep import run as sweeping
from iga.experiment.task.chains import Batch


@pytest.fixture(autouse=True, scope="module")
def few_samples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluate, "SAMPLES", 2)
        yield


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of a comparison go on in this process, one after another; curves, which take longer, are not drawn."""

    def missing() -> None:
        raise ValueError("no matplotlib")

    monkeypatch.setattr(
        comparison, "_beside", lambda plan, folder, jobs, *rest: comparison._here(plan, folder, *rest[:2])
    )
    for module in (comparison, sweeping):
        monkeypatch.setattr(module, "check_matplotlib", missing)


@pytest.fixture(scope="session")
def batch() -> Batch:
    return small_batch()


@pytest.fixture(scope="session")
def exact() -> Batch:
    return in_float64(small_batch())
