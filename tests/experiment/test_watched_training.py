"""The layer that blew up, trained under stress and watched: the call that passed the floor is kept, with its pair."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import iga
from helpers.process import run_iga
from helpers.training import tiny
from iga.bounds import log_det_floor
from iga.experiment.model.arms import network_of
from iga.experiment.task.chains import Batch
from iga.experiment.task.flow import losses, noised
from iga.recording import Limits
from iga.recording.folder import read

pytestmark = pytest.mark.training

# Plain data of these chains stays above it, at −25: σ of some 0.02 nm, shrunk by a factor of up to e². Stress takes
# σ to 10⁻⁴ nm and less, where only the jitter of 10⁻⁶ nm² is left: 3 ln(2 · 10⁻⁶) = −39.4.
FLOOR = float(log_det_floor(0.004))
CALM = 3


def trained(
    arm: str, batch: Batch, folder: Path, limits: Limits, steps: int = 5
) -> tuple[list[float], dict[str, Path]]:
    """(log_det_min of each step, what was written) of a training whose stress begins after CALM steps."""
    settings = tiny(arm)
    network = network_of(settings)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    lowest, seed = [], settings.training.seed
    with iga.watch(network, every=1, limits=limits, out=folder, on_limit="record") as recorder:
        for step in range(CALM + 2):
            x = noised(replace(batch, draws=batch.draws + step), seed=seed, stress=step >= CALM)
            found = losses(network(x.gaussian, x.t, batch.mask, batch.index), x, batch.mask)
            optimizer.zero_grad()
            (found.se3_vf + found.gaussian).mean().backward()
            optimizer.step()
            lowest.append(recorder.step()["debug/iga/global/log_det_min"])
        assert recorder.layers["l0"] == "blocks.0.attention.layer"
    return lowest, recorder.written  # type: ignore[return-value]


def test_the_step_that_passes_the_floor_is_kept_and_replay_shows_its_pair(batch: Batch, tmp_path: Path) -> None:
    only = Limits(non_finite=False, log_det=FLOOR, geometry_logit=None, saturated=None, entropy=None)
    lowest, written = trained("pre_fix", batch, tmp_path, only)
    assert min(lowest[:CALM]) > FLOOR > max(lowest[CALM:])
    assert written == {"log_det": tmp_path / f"step{CALM}-log_det"}
    ran = run_iga("replay", str(written["log_det"]))
    assert ran.returncode == 1, ran.stderr
    place = re.search(
        r"log_det: log_det (\S+) at sample (\d+), head (\d+), point (\d+), query (\d+), key (\d+)", ran.stdout
    )
    assert place is not None and f"step {CALM}, " in ran.stdout
    assert float(place[1]) == pytest.approx(lowest[CALM], rel=1e-5)
    # the two residues are among the smallest of the batch that was kept
    _, tensors = read(written["log_det"])
    sample, query, key = int(place[2]), int(place[5]), int(place[6])
    largest = tensors["args.2.log_scale"].amax(dim=-1)[batch.mask]
    for residue in (query, key):
        assert batch.mask[sample, residue]
        assert tensors["args.2.log_scale"][sample, residue].amax() < largest.median()


def test_the_default_layer_under_the_same_stress_passes_neither_floor_nor_bound(batch: Batch, tmp_path: Path) -> None:
    lowest, written = trained("bounded", batch, tmp_path, Limits(saturated=None, entropy=None))
    assert written == {} and list(tmp_path.iterdir()) == []
    assert min(lowest) > -18.96
