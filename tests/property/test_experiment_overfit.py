"""A network that is trained on one protein alone samples that protein. Minutes: python -m pytest -m slow.

It is what shows that task, losses, network and sampler agree with one another: each may be right by itself and a sign
between them wrong.
"""

import math

import pytest
import torch

from iga.experiment.arms import network_of
from iga.experiment.batches import Batches
from iga.experiment.chains import chains_of, collate
from iga.experiment.flow import losses, noised
from iga.experiment.sampling import ca_rmsd, sample
from iga.experiment.settings import load_settings
from iga.synthetic import synthetic_structures

RESIDUES, STEPS, LR = 24, 2500, 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["ipa", "bounded"])
def test_a_network_overfitted_on_one_protein_samples_it_back_to_within_1_angstrom(arm: str) -> None:
    settings = load_settings(arm, "small")
    (chain,), _ = chains_of(synthetic_structures(1, seed=0, lengths=(RESIDUES, RESIDUES)))
    batches = Batches([chain] * 8, residues_squared=8 * RESIDUES**2, max_samples=8, crop=RESIDUES, seed=0)
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
    print(f"{arm}: Cα RMSD of 8 samples, Å: {', '.join(f'{x:.2f}' for x in sorted(away.tolist()))}")
    assert math.isfinite(float(away.max())) and float(away.max()) < 1.0
