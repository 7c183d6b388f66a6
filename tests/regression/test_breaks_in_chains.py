"""Chain breaks in a comparison: their number, and, where that was asked for, positions that are left free.

Origin: the two sides of a loop that is not modelled had neighbouring positions, as if bonded.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.command import called
from helpers.structures import pdb_text, peptide, without
from helpers.training import TINY
from iga.experiment import compare as comparison
from iga.experiment.results.collect import collect
from iga.experiment.run import plan as plans
from iga.experiment.run.dataset import load_dataset, prepare, save_dataset
from iga.experiment.run.plan import ComparisonPlan
from iga.experiment.settings import load_settings
from iga.experiment.task.chains import chains_of
from iga.structure import Structure, read_structure


def interrupted(folder: Path) -> tuple[Path, Structure]:
    """24 residues of 26, A: 9 and 10 are not modelled, 15 lacks its N; B is whole."""
    a = [atom for atom in peptide(*["ALA", "LYS"] * 13) if atom.number not in (9, 10)]
    b = [replace(atom, chain="B") for atom in peptide(*["SER", "LEU"] * 9, shift=(0.0, 40.0, 0.0))]
    path = folder / "a.pdb"
    path.write_text(pdb_text([*without(a, 15, "N"), *b]))
    return path, read_structure(path)


def test_by_default_positions_are_rows_as_they_always_were(tmp_path: Path) -> None:
    _, structure = interrupted(tmp_path)
    assert structure.chain_breaks.sum() == 1
    a, b = chains_of([structure])[0]
    assert a.index.tolist() == [row for row in range(24) if row != 12]
    assert b.index.tolist() == list(range(18))
    assert load_settings("ipa", "small").data.break_gap == 0


@pytest.mark.parametrize("gap", [1, 32])
def test_a_gap_that_was_asked_for_stands_at_the_break_and_nowhere_else(tmp_path: Path, gap: int) -> None:
    _, structure = interrupted(tmp_path)
    plain, asked = chains_of([structure])[0], chains_of([structure], break_gap=gap)[0]
    a, b = asked
    assert a.index.tolist() == [row + (gap if row >= 8 else 0) for row in range(24) if row != 12]
    assert torch.equal(b.index, plain[1].index)
    for one, other in zip(plain, asked, strict=True):
        assert one.residue_names == other.residue_names
        assert torch.equal(one.gaussian.trans, other.gaussian.trans)


def test_the_setting_reaches_the_chains_and_their_fingerprint(tmp_path: Path) -> None:
    path, _ = interrupted(tmp_path)
    (tmp_path / "b.pdb").write_bytes(path.read_bytes())
    found = {}
    for gap in (0, 8):
        names = f"data.structures=[{path}, {tmp_path / 'b.pdb'}]"
        data = prepare(load_settings("ipa", "small", [names, f"data.break_gap={gap}"]))
        whole = [chain for chain in (*data.training, *data.held_out) if chain.name.endswith(":A")]
        assert {int(chain.index[-1]) for chain in whole} == {23 + gap}
        found[gap] = data.fingerprint
    assert found[0] != found[8]


def test_a_comparison_counts_the_breaks_of_its_chains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """On the terminal and in the result, from which the report is made."""
    path, _ = interrupted(tmp_path)
    (tmp_path / "b.pdb").write_bytes(path.read_bytes())
    plan = ComparisonPlan(
        arms=("bounded",), structures=(str(path), str(tmp_path / "b.pdb")), overrides=(*TINY, "data.break_gap=4")
    )
    save_dataset(tmp_path / plans.DATA, prepare(plan.any_settings()))
    plans.write(tmp_path, plan)
    dataset = load_dataset(tmp_path / plans.DATA)
    assert dataset.breaks == (2, 2)
    found = collect(tmp_path, dataset, "")["data"]
    assert (found["chains_with_breaks"], found["chain_breaks"]) == (2, 2)

    def told(*given: object, on_data: Callable[[object], None], **options: object) -> dict[str, str]:
        on_data(dataset)
        return {}

    monkeypatch.setattr(comparison, "compare", told)
    assert "2 of them with 2 chain breaks" in called(capfd, "compare", "--arms", "bounded", "--seeds", "1").err


@pytest.mark.parametrize("gap", [-1, -32])
def test_a_negative_gap_is_refused(tmp_path: Path, gap: int) -> None:
    with pytest.raises(ValueError, match="break_gap must be"):
        chains_of([interrupted(tmp_path)[1]], break_gap=gap)
    with pytest.raises(ValueError, match=r"data\.break_gap must be"):
        load_settings("ipa", "small", [f"data.break_gap={gap}"])
