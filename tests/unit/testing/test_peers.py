"""Other people's layers under the suite, by the adapters in docs/examples.

Of packages that are not installed no more is tried than that their absence is said in one line.
"""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import iga
from iga.testing.contract import PROFILES
from iga.testing.result import Report
from iga.testing.targets import load_target

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
LUCIDRAINS = f"{EXAMPLES / 'lucidrains_ipa.py'}"

# It calls torch.cuda.amp.autocast; a warning turned into an error would be its failure, and not one of its numbers.
peer = pytest.mark.filterwarnings("ignore:.*torch.cuda.amp.autocast:FutureWarning")
# Everything that profile ci runs, on one structure.
THOROUGH = replace(PROFILES["ci"], synthetic=2, focus=1, focus_residues=24)


def broken(report: Report) -> set[str]:
    return {finding.name for finding in report.findings if finding.verdict != "holds"}


@pytest.fixture
def installed() -> None:
    pytest.importorskip("invariant_point_attention", reason="needs the extra `peers`")


@peer
def test_lucidrains_layer_holds_once_its_inputs_are_mended(installed: None) -> None:
    report = iga.verify(f"{LUCIDRAINS}:mended", profile=THOROUGH, only=["mask_inertness", "reduced_precision"])
    assert not broken(report) and report.exit_code == 0


@peer
def test_an_adapter_that_takes_rows_for_columns_is_found_out(installed: None) -> None:
    """A transposed rotation is the likeliest mistake in an adapter."""
    right = load_target(f"{LUCIDRAINS}:layer").function

    class Transposed(torch.nn.Module):
        def __init__(self, **sizes: int) -> None:
            super().__init__()
            self.attention = right(**sizes).attention

        def forward(self, s: torch.Tensor, z: torch.Tensor, r: iga.GaussianRigid, mask: torch.Tensor) -> torch.Tensor:
            rotations = r.get_rots().get_rot_mats()
            return self.attention(s, z, rotations=rotations, translations=r.get_trans(), mask=mask)

    report = iga.verify(Transposed, kind="layer", profile=THOROUGH, only=["se3_invariance"])
    assert broken(report) == {"se3_invariance"} and report["se3_invariance"].worst > 100


ADAPTERS = {
    "lucidrains_ipa": "invariant_point_attention",
    "openfold_ipa": "openfold",
    "frameflow_ipa": "models",
    "genie_ipa": "genie",
    "esmfold_ipa": "transformers",
    "gafl_gfa": "gafl",
    "flashipa": "flash_ipa",
}


def test_every_adapter_is_named_here_and_in_the_guide_and_is_short() -> None:
    files = [path for path in EXAMPLES.glob("*.py") if path.stem != "first_steps"]  # which is nobody else's layer
    assert set(ADAPTERS) == {path.stem for path in files}
    guide = (EXAMPLES.parent / "peers.md").read_text(encoding="utf-8")
    for path in files:
        assert f"`{path.name}`" in guide and f"docs/examples/{path.name}:" in guide
        assert len(path.read_text(encoding="utf-8").splitlines()) < (100 if path.stem == "lucidrains_ipa" else 70)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_without_its_package_is_misuse_in_one_line(adapter: str) -> None:
    if importlib.util.find_spec(ADAPTERS[adapter]) is not None:
        pytest.skip(f"{ADAPTERS[adapter]} is installed")
    with pytest.raises(ValueError, match=f"No module named '{ADAPTERS[adapter]}'") as refused:
        iga.verify(f"{EXAMPLES / adapter}.py:layer")
    assert "\n" not in str(refused.value)
