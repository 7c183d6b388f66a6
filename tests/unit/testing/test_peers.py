"""Other people's layers under the suite, by the adapters in docs/examples.

The gate runs `layer_with_known_failures`, which breaks what it says and nothing else, and OpenFold's adapter.
"""

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
OPENFOLD = f"{EXAMPLES / 'openfold_ipa.py'}"

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


def test_openfolds_adapter_without_openfold_is_misuse_in_one_line() -> None:
    try:
        import openfold  # noqa: F401 # pyright: ignore[reportMissingImports]
    except ImportError:
        with pytest.raises(ValueError, match="No module named 'openfold'") as refused:
            iga.verify(f"{OPENFOLD}:layer")
        assert "\n" not in str(refused.value)
    else:
        pytest.skip("OpenFold is installed")
