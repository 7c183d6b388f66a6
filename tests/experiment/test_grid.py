"""The grid of a sweep: its order, what its runs share and differ in, and misuse, refused in one line with code 2."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iga.cli.app import main
from iga.experiment import compare as comparison
from iga.experiment.run import plan as plans
from iga.experiment.run.plan import ComparisonPlan, check_folder
from iga.experiment.settings import Stress
from iga.experiment.sweep.grid import ALL_ARMS, SweepPlan, names, numbers

GRID = SweepPlan(
    arms=("ipa", "bounded"),
    seeds=2,
    points=(8, 1),
    learning_rates=(1e-2, 1e-3, 1e-4),
    stresses=("none", "collapse", "needles"),
)


def test_whole_cells_come_one_after_another_the_primary_condition_and_the_cheap_first() -> None:
    cells = list(GRID.runs().values())
    assert len(cells) == 3 * 2 * 3 * 2 * 2
    blocks = [(cell.stress, cell.points, cell.learning_rate) for cell in cells]
    assert [key for key, before in zip(blocks, [None, *blocks], strict=False) if key != before] == [
        (stress, points, rate)
        for stress in ("collapse", "none", "needles")
        for points in (1, 8)
        for rate in (1e-3, 1e-4, 1e-2)  # that of the size first
    ]
    assert [(cell.seed, cell.arm) for cell in cells[:4]] == [(0, "ipa"), (0, "bounded"), (1, "ipa"), (1, "bounded")]


def test_a_run_has_the_settings_of_its_place() -> None:
    name = "small_P8_lr0.01_needles_bounded_seed1"
    settings = GRID.settings_of(name)
    assert settings.run_name == name
    assert (settings.model.points, settings.training.lr, settings.training.seed) == (8, 1e-2, 1)
    assert settings.data.stressed == Stress(collapse=False)
    plain = GRID.settings_of("small_P8_lr0.01_bounded_seed1")
    assert plain.data.stressed is None and replace(plain, name=settings.name, data=settings.data) == settings


def test_doses_are_conditions_in_place_of_the_drawn_collapse() -> None:
    grid = replace(GRID, doses=(-2.0, -4.0))
    assert grid.conditions() == [("none", None), ("collapse", -2.0), ("collapse", -4.0), ("needles", None)]
    settings = grid.settings_of("small_P1_lr0.001_collapse-4_ipa_seed0")
    assert settings.data.stressed == Stress(needles=False, dose=-4.0)


def test_every_arm_makes_a_grid_and_the_grid_is_read_back(tmp_path: Path) -> None:
    grid = replace(GRID, arms=ALL_ARMS, doses=(-2.0,))
    plans.write(tmp_path, grid)
    assert plans.read(tmp_path, SweepPlan) == grid
    assert len(grid.runs()) == len(ALL_ARMS) * 36


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"points": ()}, "the grid is empty: points"),
        ({"stresses": ()}, "the grid is empty: stresses"),
        ({"learning_rates": (0.0,)}, "training.lr must be a positive"),
        ({"points": (0,)}, "model.points must be at least 1"),
        ({"points": (1, 1)}, "once each"),
        ({"stresses": ("cold",)}, "stress must be one of"),
        ({"stresses": ("none",), "doses": (-2.0,)}, "belong to the stress"),
        ({"doses": (2.0,)}, "from −20 to 0"),
        ({"overrides": ("training.lr=1",)}, "option of its own"),
        ({"overrides": ("arm.label=_x",)}, "one name"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused_by_name(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(GRID, **changes)


def test_a_folder_takes_no_other_grid_and_nothing_is_written(tmp_path: Path) -> None:
    plans.write(tmp_path, GRID)
    before = (tmp_path / SweepPlan.FILE).read_bytes()
    with pytest.raises(ValueError, match="holds a sweep already"):
        check_folder(tmp_path, GRID, resume=False)
    changes = (
        {"seeds": 3},
        {"steps": 400},
        {"arms": ("ipa", "bounded", "clip")},
        {"points": (1, 8, 16)},
        {"doses": (-1.0,)},
    )
    for change in changes:
        with pytest.raises(ValueError, match="was made with"):
            check_folder(tmp_path, replace(GRID, **change), resume=True)
    assert check_folder(tmp_path, replace(GRID, threads=4), resume=True) == GRID
    with pytest.raises(ValueError, match="holds no comparison"):
        check_folder(tmp_path, ComparisonPlan(), resume=True)
    assert [path.name for path in tmp_path.iterdir()] == [SweepPlan.FILE]
    assert (tmp_path / SweepPlan.FILE).read_bytes() == before


def test_lists_of_names_and_numbers_are_read_with_either_minus() -> None:
    assert names(" ipa, bounded,", ALL_ARMS, "arm") == ("ipa", "bounded")
    assert numbers("−2,-4.5", "doses", float) == (-2.0, -4.5) and numbers("1,8", "points", int) == (1, 8)
    with pytest.raises(ValueError, match="unknown arm 'igo'; arms: ipa"):
        names("igo", ALL_ARMS, "arm")
    with pytest.raises(ValueError, match="points must be whole numbers"):
        numbers("1.5", "points", int)


MISUSE = {
    "--arms": ("unknown arm", "iga", "ipa,ipa", ""),
    "--points": ("model.points", "0", "", "1.5", "x", "4,4", "1000000"),
    "--learning-rates": ("training.lr", "0", "", "-1", "nan", "inf", "x", "1e-3,0.001"),
    "--seeds": ("seeds", "0", "-1", "1000000"),
    "--steps": ("steps", "0", "-1"),
    "--gaussians": ("fixed, learned, free", "x", ""),
    "--stress": ("unknown stress", "cold", "", "none,none"),
    "--collapse": ("belong to the stress", "-2", "x"),
    "--workers": ("jobs", "0"),
    "--out": ("is a file", "file", "other", "comparison"),
    "--set": ("option of its own", "training.lr=1", "model.points=2", "training.rate=1"),
}


@pytest.mark.parametrize("option", MISUSE)
def test_an_option_of_sweep_that_nobody_can_mean_is_one_line_and_2(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def runs(*given: object, **options: object) -> None:
        raise AssertionError("it ran")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison, "_beside", runs)
    (tmp_path / "file").touch()
    for folder, plan in (("other", GRID), ("comparison", ComparisonPlan())):
        (tmp_path / folder).mkdir()
        plans.write(tmp_path / folder, plan)
    before = sorted((str(path), path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    said, *values = MISUSE[option]
    lines: list[str] = []
    for value in values:
        with pytest.raises(SystemExit) as leave:
            main(["sweep", option, value, *(["--resume"] if value == "other" else [])])
        out, err = capfd.readouterr()
        assert (leave.value.code, out) == (2, "") and len(err.strip().splitlines()) == 1, (value, out, err)
        lines.append(err)
    assert said in lines[0]
    assert sorted((str(path), path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()) == before
