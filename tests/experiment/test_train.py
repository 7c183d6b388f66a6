"""A run: what it logs, that it is taken up again to the bit, and that numbers which are not finite end it.

What is compared to the bit is: the same process, the same threads, the same machine.
"""

import csv
import math
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.training import data, metrics, tiny
from iga import _runtime as _memory
from iga.experiment.model.arms import network_of
from iga.experiment.run import checkpoint, evaluate, train
from iga.experiment.run.dataset import Dataset, distinct, load_dataset, prepare, save_dataset
from iga.experiment.run.evaluate import NOISE_SEED, Evaluation
from iga.experiment.run.records import COLUMNS, read_table
from iga.experiment.settings import ARMS, from_yaml
from iga.experiment.task.batches import Batches
from iga.experiment.task.flow import noised

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return data()


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run of six steps; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    assert train.train(tiny(steps=6), dataset, folder) == "finished"
    return folder


class Killed(BaseException):
    """What `kill -9` is to a process, for a run within this one."""


def killed_at(step: int):
    def log(row: dict[str, float], held_out: bool) -> None:
        if row["step"] == step and not held_out:
            raise Killed

    return log


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / "checkpoint.pt")["network"]


# what a run does


def test_the_first_row_holds_the_losses_of_the_input_itself_as_numpy_has_them(dataset: Dataset, whole: Path) -> None:
    """A new network predicts its input, so that the first losses are known."""
    row, *_ = metrics(whole)
    t = tiny().training
    batch = Batches(dataset.training, residues_squared=1600, max_samples=t.max_samples, crop=t.crop, seed=t.seed)(0)
    x = noised(batch, seed=t.seed)
    c = np.minimum(x.t.double().numpy(), 0.9)
    mask = batch.mask.numpy()
    error = (x.target.trans - x.gaussian.trans).double().numpy() / 0.1 * 0.1 / (1 - c)[:, None, None]
    raw = np.array([2 * (e[m] ** 2).mean() for e, m in zip(error, mask, strict=True)])
    rot = x.gaussian.rot.double().numpy().swapaxes(-1, -2) @ x.target.rot.double().numpy()
    # |log R|² = θ², and v̂ = 0: the mean over three coordinates is θ²/3
    angle = np.arccos(np.clip((np.trace(rot, axis1=-2, axis2=-1) - 1) / 2, -1, 1))
    vf = np.array([(a[m] ** 2).mean() / 3 / (1 - k) ** 2 for a, m, k in zip(angle, mask, c, strict=True)])
    assert row["samples"] == len(raw)
    # coordinates under 8 nm, off by 4u each, over 1 − c ≥ 0.1: δe; of a mean square 2 (rms + δe) δe, twice that in raw
    u, e = 2.0**-24, 4 * 2.0**-24 * 8 / 0.1
    assert float(x.gaussian.trans.abs().max()) < 8 and float(x.target.trans.abs().max()) < 8
    slack = 4 * (np.sqrt(raw.mean() / 2) + e) * e + 8 * u * raw.mean()
    assert abs((row["trans_loss_raw"] or math.nan) - raw.mean()) <= slack
    assert abs((row["trans_loss"] or math.nan) - np.minimum(raw, 5).mean()) <= slack
    # entries of R_tᵀR_1 off by 8u: the angle by 24u/sin θ, θ² by 2θ of that (48u near 0, where θ/sin θ is 1)
    off = 48 * u * np.where(angle > 1e-6, angle / np.sin(np.maximum(angle, 1e-6)), 1.0)
    allowed = np.mean([o[m].mean() / 3 / (1 - k) ** 2 for o, m, k in zip(off, mask, c, strict=True)])
    assert float(angle[mask].max()) < math.pi - 1e-4 and allowed < 1e-2 * vf.mean()
    assert abs((row["rots_vf_loss"] or math.nan) - vf.mean()) <= allowed
    assert row["clamped_samples"] == (raw >= 5).sum()
    assert row["gaussian_loss"] == 0


def test_all_arms_see_the_same_chains_noise_and_start(dataset: Dataset, tmp_path: Path) -> None:
    rows = {}
    for arm in ("ipa", "sigma_floor", "bounded"):
        train.train(tiny(arm, steps=3), dataset, tmp_path / arm)
        rows[arm] = metrics(tmp_path / arm)
    first = [{k: v for k, v in r[0].items() if "loss" in k or k == "samples"} for r in rows.values()]
    assert first[0] == first[1] == first[2]
    # attention ends in zeros and so does the update behind it: the third step is the first in which it is heard
    assert rows["ipa"][2]["trans_loss"] != rows["bounded"][2]["trans_loss"]
    assert rows["ipa"][0]["log_det_min"] is None and math.isfinite(rows["bounded"][0]["log_det_min"] or math.nan)


def test_learned_gaussians_have_a_loss_and_stress_collapses_the_scales(dataset: Dataset, tmp_path: Path) -> None:
    rows = {}
    for stress in ("false", "true"):
        settings = tiny("logdet_clamp", "model.gaussians=learned", f"data.stress={stress}", steps=2)
        train.train(settings, dataset, tmp_path / stress)
        rows[stress] = metrics(tmp_path / stress)
        assert all((row["gaussian_loss"] or 0) > 0 for row in rows[stress])
    for plain, stressed in zip(rows["false"], rows["true"], strict=True):
        # two Gaussians whose log scales moved by (1 − t) (4 … 8) on each axis: at any t of these two by 6 at the least
        assert (stressed["log_det_min"] or 0) < (plain["log_det_min"] or 0) - 6
        assert (stressed["geo_scaled_absmax"] or 0) > 10 * (plain["geo_scaled_absmax"] or math.inf)


def test_training_lowers_the_loss_it_is_made_of(dataset: Dataset, tmp_path: Path) -> None:
    """To first order Adam's first step goes down the loss of its own batch, for a small enough rate."""
    settings = tiny("bounded", "training.lr=1e-5", "model.gaussians=learned", steps=1)
    train.train(settings, dataset, tmp_path)
    (row,) = metrics(tmp_path)
    network = network_of(settings)
    network.load_state_dict(weights(tmp_path))
    batch = Batches(dataset.training, residues_squared=1600, max_samples=4, crop=20, seed=0)(0)
    x = noised(batch, seed=0, gaussians="learned")
    found = train.losses(network(x.gaussian, x.t, batch.mask, batch.index), x, batch.mask)
    before = (row["se3_vf_loss"] or 0) + (row["gaussian_loss"] or 0)
    after = float((found.se3_vf + found.gaussian).detach().mean())
    # lr · Σ|gradient| is what it falls by; rounding of the losses is 2⁻²⁴ of a few units
    assert before - after > 1e-5


# taken up again


@pytest.mark.parametrize("step", [1, 4, 5])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(
    step: int, whole: Path, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        train.train(tiny(steps=6), dataset, tmp_path, log=killed_at(step))
    assert len(metrics(tmp_path)) <= step
    assert train.train(tiny(steps=6), dataset, tmp_path) == "finished"
    assert metrics(tmp_path) == metrics(whole)
    assert read_table(tmp_path / "held_out.csv") == read_table(whole / "held_out.csv")
    one, other = weights(tmp_path), weights(whole)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_killed_after_its_last_step_is_finished_when_it_is_taken_up(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = train._write_status

    def killed(folder: Path, run: object, status: str, *rest: object) -> None:
        if status == "finished":
            raise Killed
        right(folder, run, status, *rest)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(train, "_write_status", killed)
        train.train(tiny(steps=4), dataset, tmp_path)
    before = metrics(tmp_path)
    assert len(before) == 4 and train.status_of(tmp_path)["status"] == "running"
    assert train.train(tiny(steps=4), dataset, tmp_path) == "finished"
    assert train.status_of(tmp_path)["status"] == "finished" and metrics(tmp_path) == before


def test_more_steps_go_on_where_fewer_ended(whole: Path, dataset: Dataset, tmp_path: Path) -> None:
    for steps in (4, 6):
        train.train(tiny(steps=steps), dataset, tmp_path)
    assert metrics(tmp_path) == metrics(whole)


def test_a_row_that_was_cut_off_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,trans_loss\n1,0.5\n2,0.2", encoding="utf-8")
    assert read_table(tmp_path / "metrics.csv") == [{"step": 1.0, "trans_loss": 0.5}]


def test_a_folder_with_another_run_is_refused_and_left_as_it_is(whole: Path, dataset: Dataset) -> None:
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    for other in (tiny("ipa"), tiny("bounded", "training.lr=0.1")):
        with pytest.raises(ValueError, match="other settings"):
            train.train(other, dataset, whole)
    assert before == {path.name: path.read_bytes() for path in whole.iterdir()}


def test_a_checkpoint_that_could_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (print, ("it ran",))

    for data_ in (pickle.dumps({"network": Evil()}), b"not a checkpoint", b""):
        (tmp_path / "checkpoint.pt").write_bytes(data_)
        with pytest.raises(ValueError, match="no checkpoint of iga compare"):
            checkpoint.load(tmp_path / "checkpoint.pt")
    torch.save([1], tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="no checkpoint"):
        checkpoint.load(tmp_path / "checkpoint.pt")


# what is not finite


def test_a_loss_that_is_not_finite_ends_the_run_and_is_its_result(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, calls = train.losses, 0

    def wrong(*args):
        nonlocal calls
        calls += 1
        found = right(*args)
        return (
            replace(found, trans_raw=found.trans_raw * math.nan, trans=found.trans * math.nan) if calls == 4 else found
        )

    monkeypatch.setattr(train, "losses", wrong)
    assert train.train(tiny(steps=6), dataset, tmp_path) == "non-finite"
    state = train.status_of(tmp_path)
    assert (state["first_non_finite"], state["steps_done"]) == (4, 4)
    assert "trans_loss" in state["what_non_finite"]
    rows = metrics(tmp_path)
    assert len(rows) == 4 and math.isnan(rows[3]["trans_loss"] or 0) and math.isfinite(rows[2]["trans_loss"] or 0)
    assert all(x.isfinite().all() for x in weights(tmp_path).values())
    # it stays as it is
    assert train.train(tiny(steps=6), dataset, tmp_path) == "non-finite" and len(metrics(tmp_path)) == 4


@pytest.mark.parametrize(("gaussians", "value"), [("fixed", 1e20), ("learned", math.nan)])
@pytest.mark.parametrize("arm", ARMS)
def test_a_network_that_overflows_is_a_result_and_no_error(
    arm: str, gaussians: str, value: float, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second block's attention gets frames and Gaussians that are not finite."""

    def network(settings):
        made = network_of(settings)
        with torch.no_grad():
            made.blocks[0].update.bias.fill_(value)  # pyright: ignore
        return made

    monkeypatch.setattr(train, "network_of", network)
    settings = tiny(arm, "model.blocks=2", f"model.gaussians={gaussians}", steps=2)
    assert train.train(settings, dataset, tmp_path) == "non-finite"
    state = train.status_of(tmp_path)
    assert state["first_non_finite"] == 1 and "trans_loss" in state["what_non_finite"]
    assert len(metrics(tmp_path)) == 1


def test_a_gradient_that_is_not_finite_is_named_by_its_parameter(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def network(settings):
        made = network_of(settings)
        made.blocks[0].update.weight.register_hook(lambda g: g * math.inf)  # pyright: ignore
        return made

    monkeypatch.setattr(train, "network_of", network)
    assert train.train(tiny(steps=3), dataset, tmp_path) == "non-finite"
    assert "blocks.0.update.weight" in train.status_of(tmp_path)["what_non_finite"]


# what it costs


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="this system cannot forget a peak")
def test_peak_memory_is_that_of_the_run_and_not_of_what_was_before_it(dataset: Dataset, tmp_path: Path) -> None:
    """Runs follow one another in one process where several processes share them."""
    train.train(tiny(steps=2), dataset, tmp_path / "first")  # loads what runs need, which stays
    size = 200_000_000
    held = np.ones(size, dtype=np.uint8)
    del held
    before = _memory.peak()
    assert before > size
    train.train(tiny(steps=2), dataset, tmp_path / "second")
    found = train.status_of(tmp_path / "second")["peak_mb"] * 2**20
    # half of each for what the allocator gives back or keeps meanwhile
    assert _memory.resident() / 2 < found < before - size / 2


# data and evaluation


def test_chains_come_back_from_their_file_as_they_were(dataset: Dataset, tmp_path: Path) -> None:
    save_dataset(tmp_path / "data.pt", dataset)
    found = load_dataset(tmp_path / "data.pt")
    assert found.fingerprint == dataset.fingerprint and found.described == dataset.described
    assert [c.name for c in found.held_out] == [c.name for c in dataset.held_out]
    moved = replace(found.training[0], index=found.training[0].index + 1)
    assert replace(found, training=(moved, *found.training[1:])).fingerprint != dataset.fingerprint


def test_copies_within_an_entry_count_once(dataset: Dataset) -> None:
    one, two = dataset.training[:2]
    kept, left = distinct([one, replace(one, name="copy"), two, replace(two, entry="another")])
    assert left == 1 and [c.name for c in kept] == [one.name, two.name, two.name]


def test_one_seed_gives_one_split_and_synthetic_structures(tmp_path: Path) -> None:
    assert prepare(tiny()).fingerprint == prepare(tiny("ipa", "training.lr=0.5")).fingerprint
    assert prepare(tiny()).fingerprint != prepare(tiny("ipa", "training.seed=1")).fingerprint


def test_evaluations_repeat_to_the_bit_and_their_noise_is_nobody_elses(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "SAMPLES", 5)
    settings = tiny()
    network, evaluation = network_of(settings), Evaluation(dataset.held_out, settings)
    one = evaluation.network(network)
    assert one == Evaluation(dataset.held_out, settings).network(network)
    assert NOISE_SEED > 2**32 - 1  # the largest seed that settings allow
    assert network.training
    # a new network predicts its input: given another residue's frame it must be further away
    assert one["shuffled_se3_vf_loss_raw"] > one["se3_vf_loss_raw"]
    assert sum(len(batch.mask) for batch in evaluation._batches) >= 5 > len(dataset.held_out)


def test_the_run_keeps_its_settings_beside_it(whole: Path) -> None:
    assert from_yaml((whole / "config.yaml").read_text(encoding="utf-8")) == tiny(steps=6)
    parameters = sum(p.numel() for p in network_of(tiny()).parameters())
    assert train.status_of(whole)["parameters"] == parameters
    with open(whole / "metrics.csv", newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == list(COLUMNS)
