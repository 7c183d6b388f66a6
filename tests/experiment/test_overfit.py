"""A network that is trained on one protein alone samples that protein. Minutes: python -m pytest -m slow.

It is what shows that task, losses, network and sampler agree with one another: each may be right by itself and a sign
between them wrong.
"""

import math
from pathlib import Path

import pytest
import torch

from iga.experiment.model.arms import network_of
from iga.experiment.settings import load_settings
from iga.experiment.task.batches import Batches
from iga.experiment.task.chains import Chain, chains_of, collate
from iga.experiment.task.flow import losses, noised
from iga.experiment.task.sampling import ca_rmsd, sample
from iga.structure import read_structure
from iga.structure.synthetic import synthetic_structures

STEPS, LR = 2500, 2e-3


@pytest.fixture(params=["synthetic", "1l2y"])
def chain(request: pytest.FixtureRequest) -> Chain:
    """A synthetic backbone of 24 residues, or the Trp cage, of 20."""
    if request.param == "synthetic":
        found = synthetic_structures(1, seed=0, lengths=(24, 24))
    else:
        folder: Path = request.getfixturevalue("structures_dir")
        found = [read_structure(folder / "1l2y.cif.gz")]
    return chains_of(found)[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["ipa", "bounded"])
def test_a_network_overfitted_on_one_protein_samples_it_back_to_within_1_angstrom(arm: str, chain: Chain) -> None:
    settings = load_settings(arm, "small")
    size = len(chain)
    batches = Batches([chain] * 8, residues_squared=8 * size**2, max_samples=8, crop=size, seed=0)
    network = network_of(settings)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    # The rate ends at zero: what is left of the error is noise of the last steps.
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        batch = batches(step)
        x = noised(batch, seed=0)
        optimizer.zero_grad()
        losses(network(x.gaussian, x.t, batch.mask, batch.index), x, batch.mask).se3_vf.mean().backward()
        optimizer.step()
        rate.step()
    template = collate([chain] * 8, range(10**6, 10**6 + 8))  # noise that training has not seen
    away = ca_rmsd(sample(network, template, seed=1).trans, template.gaussian.trans, template.mask)
    shown = ", ".join(f"{x:.2f}" for x in sorted(away.tolist()))
    print(f"{chain.name}, {size} residues, {arm}: Cα RMSD of 8 samples, Å: {shown}")
    assert math.isfinite(float(away.max())) and float(away.max()) < 1.0
