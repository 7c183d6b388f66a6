"""`iga sweep` from request to report: cells that are the same bits again, interrupted and killed grids, the probe."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.command import called
from helpers.sweeps import left, make_sweep
from helpers.training import TINY, metrics
from iga.experiment import compare as comparison
from iga.experiment.model.arms import network_of
from iga.experiment.run import plan as plans
from iga.experiment.run.dataset import load_dataset
from iga.experiment.run.evaluate import Evaluation
from iga.experiment.sweep import probe
from iga.experiment.sweep.grid import SweepPlan
from iga.experiment.sweep.left import quantile
from iga.experiment.sweep.measures import as_good, clamped, growth, rates_of
from iga.experiment.sweep.readings import cells_of, losses_of
from iga.experiment.sweep.run import report, sweep
from iga.experiment.sweep.sections import blocks_of
from iga.report.document import as_markdown
from iga.report.schema import read

pytestmark = pytest.mark.training

SMALLEST = (*(one for one in TINY if not one.startswith("model.points")), "data.synthetic=6")
GRID = SweepPlan(
    arms=("ipa", "bounded"),
    steps=4,
    seeds=1,
    points=(1, 2),
    learning_rates=(1e-3,),
    stresses=("collapse",),
    overrides=SMALLEST,
)


def runs_of(folder: Path) -> dict[str, Any]:
    """Of every run the rows without their seconds, and what its probe found."""
    return {
        run.name: (metrics(run), (run / probe.FILE).read_text(encoding="utf-8"))
        for run in sorted((folder / plans.RUNS).iterdir())
        if (run / probe.FILE).exists()
    }


@pytest.mark.usefixtures("here")
def test_a_grid_has_its_result_and_its_report_and_the_same_cell_twice_has_the_same_bits(tmp_path: Path) -> None:
    said: list[dict[str, Any]] = []
    status = sweep(GRID, tmp_path / "a", command="iga sweep --steps 4", on_result=said.append)
    assert set(status.values()) == {"finished"} and list(status) == list(GRID.runs())
    result = read(tmp_path / "a" / "result.json")
    made_by_hand = make_sweep({"bounded": lambda seed: 1.5}, seeds=1)
    assert result.keys() == made_by_hand.keys() and result["runs"][0].keys() == made_by_hand["runs"][0].keys()
    assert result == said[0] and result["document"] == "sweep" and (result["exit_code"], len(result["runs"])) == (0, 4)
    for run in result["runs"]:
        assert run["totals"]["steps"] == run["steps_done"] == 4 and run["series"]["step"] == [1.0, 2.0, 3.0, 4.0]
        assert run["entropy"][-1]["step"] == 4 and run["left"] is not None
        assert (run["left"]["sigma"] is None) == (run["arm"] == "ipa") == (run["left"]["shuffled"] is None)
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert "After training" in page and "<table" in page
    # one cell of it again, alone in another grid
    one = replace(GRID, arms=("bounded",), points=(2,))
    sweep(one, tmp_path / "b")
    (again,) = runs_of(tmp_path / "b")
    assert runs_of(tmp_path / "b")[again] == runs_of(tmp_path / "a")[again]
    other = replace(one, learning_rates=(2e-3,))
    sweep(other, tmp_path / "c")
    assert next(iter(runs_of(tmp_path / "c").values())) != runs_of(tmp_path / "b")[again]


@pytest.mark.usefixtures("here")
def test_an_interrupted_grid_says_what_it_has_and_goes_on(tmp_path: Path) -> None:
    def stop(run: str, done: int, steps: int, loss: float | None) -> None:
        if "P2" in run:
            raise KeyboardInterrupt

    said: list[dict[str, Any]] = []
    with pytest.raises(KeyboardInterrupt):
        sweep(GRID, tmp_path, on_progress=stop, on_result=said.append)
    part = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert (part["exit_code"], part["planned"], len(part["runs"])) == (1, 4, 2) and said == [part]
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "runs made: 2 of 4" in text and "not made, in the order of the grid: collapse, 2, 0.001 (2 runs)" in text
    before = runs_of(tmp_path)
    sweep(GRID, tmp_path, resume=True)
    assert before.items() <= runs_of(tmp_path).items() and len(runs_of(tmp_path)) == 4


@pytest.mark.process
def test_a_killed_grid_loses_the_runs_in_progress_at_most(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    grid = replace(GRID, steps=12, points=(1,), seeds=2)
    words = ["sweep", "--arms", "ipa,bounded", "--points", "1", "--steps", "12", "--seeds", "2", "--stress", "collapse"]
    words += [part for one in SMALLEST for part in ("--set", one)]
    folder = tmp_path / "killed"
    with subprocess.Popen(
        [sys.executable, "-m", "iga", *words, "--out", str(folder), "--workers", "1"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as child:
        second = folder / plans.RUNS / list(grid.runs())[1]
        while len(metrics(second)) < 3:
            assert child.poll() is None
            time.sleep(0.01)
        os.killpg(child.pid, signal.SIGKILL)
    assert plans.read(folder, SweepPlan) == grid
    first, done = runs_of(folder), next(iter(grid.runs()))  # what was done stays, to the bit
    request.getfixturevalue("here")
    sweep(grid, folder, resume=True)
    sweep(grid, tmp_path / "whole")
    rows, whole = ({name: one for name, (one, _) in runs_of(at).items()} for at in (folder, tmp_path / "whole"))
    assert rows == whole and len(rows) == 4 and runs_of(folder)[done] == first[done]


@pytest.mark.process
def test_a_ctrl_c_lets_the_command_write_the_report_of_what_there_is(tmp_path: Path) -> None:
    """From a trial: the guard repeats a Ctrl-C each second until it is heeded, and the second one ended the report."""
    words = ["sweep", "--arms", "ipa,bounded", "--points", "1", "--steps", "4", "--seeds", "2", "--workers", "1"]
    words += [part for one in SMALLEST for part in ("--set", one)]
    child = subprocess.Popen(
        [sys.executable, "-m", "iga", *words, "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    first = tmp_path / "out" / plans.RUNS / "small_P1_lr0.001_ipa_seed0" / "status.json"
    while not (first.exists() and "finished" in first.read_text(encoding="utf-8")):
        assert child.poll() is None
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=300)
    assert child.returncode == 130 and "interrupted; what was done is kept" in err and "report.html" in out
    assert re.search(r"runs made: [12] of 4", (tmp_path / "out" / "report.md").read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))["exit_code"] == 1


@pytest.mark.usefixtures("here")
def test_a_grid_that_is_interrupted_before_its_first_run_has_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From a trial on a cluster: the summary of no runs at all was a traceback."""

    def interrupted(*given: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "_beside", interrupted)
    words = ["--arms", "ipa,bounded", "--points", "1", *(part for one in SMALLEST for part in ("--set", one))]
    ended = called(capfd, "sweep", *words, "--seeds", "1", "--out", str(tmp_path / "out"))
    assert ended.code == 130 and "0 of 2 runs made" in ended.out and "interrupted; what was done" in ended.err
    assert "runs made: 0 of 2" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


# the probe


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Evaluation]:
    """A network with some geometry to lose, and held-out chains."""
    folder = tmp_path_factory.mktemp("trained")
    one = replace(GRID, arms=("bounded",), points=(2,))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            comparison, "_beside", lambda plan, where, jobs, *rest: comparison._here(plan, where, *rest[:2])
        )
        sweep(one, folder)
    (name,) = one.runs()
    settings = one.settings_of(name)
    network = network_of(settings)
    torch.manual_seed(0)
    for part in network.modules():  # the last projections start at zero: nothing would depend on the attention
        if isinstance(part, torch.nn.Linear) and not part.weight.any():
            torch.nn.init.normal_(part.weight, std=0.3)
    return network, Evaluation(load_dataset(folder / plans.DATA).held_out, settings)


def test_what_the_geometry_is_worth_leaves_the_network_as_it_was(trained: tuple[Any, Evaluation]) -> None:
    network, evaluation = trained
    before = {name: value.clone() for name, value in network.state_dict().items()}
    own = evaluation.network(network)["se3_vf_loss_raw"]
    found = probe.worth(network, evaluation)
    assert found["removed"] != own and found["shuffled"] not in (own, found["removed"], None)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert evaluation.network(network)["se3_vf_loss_raw"] == own


def test_keys_that_stay_where_they_are_change_nothing(
    trained: tuple[Any, Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, evaluation = trained
    own = evaluation.network(network)["se3_vf_loss_raw"]
    monkeypatch.setattr(probe, "shuffled_keys", lambda mask: torch.arange(mask.shape[1]).repeat(len(mask), 1))
    assert probe.worth(network, evaluation)["shuffled"] == pytest.approx(own, rel=1e-4)


def test_keys_are_permuted_among_the_valid_ones() -> None:
    mask = torch.tensor([[True] * 5 + [False] * 3, [True] * 8])
    order = probe.shuffled_keys(mask)
    assert sorted(order[0, :5].tolist()) == [0, 1, 2, 3, 4] and order[0, 5:].tolist() == [5, 6, 7]
    assert sorted(order[1].tolist()) == list(range(8)) and order[1].tolist() != list(range(8))
    assert torch.equal(order, probe.shuffled_keys(mask))


# exploratory measures


def test_rates_name_the_largest_that_every_run_bears() -> None:
    result = make_sweep({"ipa": lambda seed: 1.5, "bounded": lambda seed: 1.5}, rates=(1e-4, 1e-3, 1e-2))
    for run in result["runs"]:
        if run["arm"] == "ipa" and run["learning_rate"] == 1e-2:
            run["held_out"][0]["se3_vf_loss_raw"] = 3.0
    found = {one.arm: (one.stable, one.excess) for one in rates_of(result)}
    assert found == {"ipa": (1e-3, pytest.approx(0.5)), "bounded": (1e-2, pytest.approx(0.0, abs=1e-9))}
    assert rates_of(make_sweep({"ipa": lambda seed: 1.5})) == []
    (nothing,) = rates_of(make_sweep({"ipa": lambda seed: 9.0}, rates=(1e-4, 1e-3)))
    assert nothing.stable is None  # no better than its input at any rate


def test_growth_is_the_slope_on_logarithms() -> None:
    result = make_sweep({"bounded": lambda seed: 1.5}, points=(1, 4, 16))
    for run in result["runs"]:
        run["totals"]["geo_scaled_absmax_late"] = 3.0 * run["points"] ** 0.5
    ((_, _, arm, exponent),) = growth(result)
    assert arm == "bounded" and exponent.mean == pytest.approx(0.5) and len(exponent.values) == 5


@pytest.mark.parametrize(("before", "after", "word"), [(20, 4, "supported"), (20, 15, "refuted"), (20, 8, "undecided")])
def test_claim_d_on_fresh_seeds_takes_an_interval_that_excludes_its_factor(before: int, after: int, word: str) -> None:
    result = make_sweep({"logdet_clamp": lambda seed: 3.0, "bounded": lambda seed: 1.5})
    for run in result["runs"]:
        count = before + run["seed"] % 2 if run["arm"] == "logdet_clamp" else after + run["seed"] % 3
        run["totals"]["clamped_samples"] = count
    (found,) = clamped(result)
    assert (found.word, found.arm) == (word, "bounded")


def test_a_choice_names_those_that_are_not_shown_to_be_worse() -> None:
    result = make_sweep({"ipa": lambda s: 1.5 + 0.01 * s, "bounded": lambda s: 1.51 + 0.01 * s, "clip": lambda s: 3.0})
    (cell,) = cells_of(result)
    assert as_good(losses_of(result, cell)) == ("ipa", ["bounded"])
    assert as_good(losses_of(make_sweep({"ipa": lambda s: 9.0}), cell)) == ("", [])


def test_the_page_names_an_arm_that_died_and_what_training_left() -> None:
    result = make_sweep({"ipa": lambda seed: 1.5, "clip": lambda seed: None}, seeds=2)
    result["runs"][0]["left"] = left([0] * 10 + [4] + [0] * 9)
    text = as_markdown(blocks_of(result))
    assert "runs that went non-finite: 2" in text
    assert (
        "0.300 to 0.400" in text and quantile([0, 1, 3], -1.0, 0.5, 0.5) == 0.25 and quantile([], 0.0, 1.0, 0.5) is None
    )


@pytest.mark.usefixtures("here")
def test_the_report_follows_from_the_result_alone(tmp_path: Path) -> None:
    sweep(replace(GRID, points=(1,)), tmp_path)
    text = (tmp_path / "report.md").read_bytes()
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert as_markdown(blocks_of(result)).encode() == text
    report(tmp_path, load_dataset(tmp_path / plans.DATA), result["command"])
    assert (tmp_path / "report.md").read_bytes() == text


def test_pictures_have_a_panel_a_condition_and_stand_in_the_page() -> None:
    from iga.experiment.sweep.figures import pictures

    arms = {arm: (lambda seed: 1.5) for arm in ("ipa", "bounded")}
    drawn = pictures(make_sweep(arms, seeds=2, points=(1, 4), stresses=("collapse",), doses=(-2.0, -4.0)))
    assert set(drawn) == {"P", "dose"}
    ((picture, data),) = drawn["dose"]
    assert data.startswith(b"\x89PNG") and picture.words.endswith("ipa, bounded")
    assert f"![{picture.words}]" in as_markdown(blocks_of(make_sweep(arms, seeds=2), {"dose": [picture]}))
    assert pictures(make_sweep(arms, seeds=2)) == {}
