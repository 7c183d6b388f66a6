"""The source of a check, as a script has it."""

import pytest

from iga.fuzz.bundle import bundle


def test_a_bundle_holds_what_is_used_and_nothing_else() -> None:
    found = bundle([("iga.testing.judges.overlap", "overlap_reference")])
    assert set(found) == {"judge._typing", "judge.testing.judges.overlap"}
    text = found["judge.testing.judges.overlap"]
    assert "def overlap_reference" in text and "def nearest_rotation" not in text and "import math" not in text
    assert "from judge._typing import Float" in text and "\nfrom iga" not in text
    with pytest.raises(ValueError, match=r"iga\.testing\.judges\.overlap has no such_thing"):
        bundle([("iga.testing.judges.overlap", "such_thing")])
