"""Claims of a target beside its σ and dtypes: sizes, the largest P and N, and what it does not support."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

import iga
from helpers.subjects import SMALL
from iga.testing.check import check
from iga.testing.contract import PROFILES
from iga.testing.parametrize import InvariantCheck, Suite
from iga.testing.targets import Claims, as_target, target
from iga.testing.verify import prepare

SIZES = ("c_s", "c_z", "c_hidden", "no_heads", "no_v_points")
FAST = replace(PROFILES["fast"], name="small", pairs=2000, digits_pairs=8, synthetic=2)


@pytest.mark.parametrize("profile", PROFILES)
def test_no_size_of_a_profile_is_another_or_a_multiple_of_it(profile: str) -> None:
    sets = [[getattr(one, name) for name in SIZES] for one in PROFILES[profile].sets()]
    assert len(sets) >= 2
    for sizes in sets:
        for small, large in itertools.combinations(sorted(sizes), 2):
            assert large % small, sizes
    assert all(a != b for a, b in zip(*sets, strict=True))  # each size differs between the two


def test_sizes_come_in_the_multiples_that_a_target_claims() -> None:
    built = []

    @target(kind="layer", multiple_of={"no_v_points": 4, "c_hidden": 8}, max_points=4, max_residues=20)
    def layer(**sizes: int) -> torch.nn.Module:
        built.append(sizes)
        return iga.InvariantPointAttention(**sizes)  # pyright: ignore[reportArgumentType]

    plan = prepare(layer, profile=replace(SMALL, others=({"c_hidden": 5, "no_v_points": 6},)))
    sets = plan.profile.sets()
    assert [(one.c_hidden, one.no_v_points) for one in sets] == [(8, 4), (8, 8)]
    assert plan.contract.points == (1, 2, 3, 4)
    assert max(plan.profile.residues, plan.profile.degenerate, plan.profile.focus_residues) == 20
    assert built and all(one["no_v_points"] % 4 == 0 and one["c_hidden"] % 8 == 0 for one in built)


def test_points_beyond_a_claim_are_refused() -> None:
    claimed = target(kind="layer", max_points=4)(lambda **sizes: iga.InvariantPointAttention(**sizes))
    with pytest.raises(ValueError, match="max_points=4"):
        prepare(claimed, points=[1, 8])


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        ({"unsupported": "vmap"}, "tuple"),
        ({"max_points": 0}, "max_points"),
        ({"max_residues": True}, "max_residues"),
        ({"multiple_of": {"heads": 2}}, "heads"),
        ({"multiple_of": {"c_s": 0}}, "c_s"),
        ({"growth": 2.0}, "growth"),
        ({"tie_points": "f"}, "tie_points"),
        ({"reference": 3}, "reference"),
        ({"inference": True}, "no claim"),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused(claims: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        target(kind="layer", **claims)


@target(kind="overlap", unsupported=("double_backward",))
def once(*pair: torch.Tensor) -> Any:
    return iga.gaussian_overlap(*pair)


def test_what_is_claimed_not_to_be_supported_is_not_run_passes_and_is_said() -> None:
    report = iga.verify(once, profile=FAST, only=["second_derivatives", "coincident_means"])
    finding = report["second_derivatives"]
    assert (finding.verdict, finding.examples) == ("not supported", 0) and "double_backward" in finding.note
    assert report["coincident_means"].verdict == "holds" and report.exit_code == 0


def test_a_test_of_what_is_not_supported_is_skipped() -> None:
    suite = Suite(once, profile=FAST)
    with pytest.raises(pytest.skip.Exception, match="double_backward"):
        InvariantCheck("second_derivatives", suite)()


def test_a_layer_for_inference_only_supports_no_gradients() -> None:
    @check("layer", "1", requires=("gradients", "vmap"))
    def one(*_: Any) -> None: ...

    assert one.not_supported(Claims(inference_only=True, unsupported=("vmap",))) == "gradients, vmap"
    assert not one.not_supported(as_target(once).claims)


def test_a_way_of_calling_that_nothing_asks_for_is_refused_with_those_that_are() -> None:
    claimed = target(kind="layer", unsupported=("vmapp",))(lambda **sizes: iga.InvariantPointAttention(**sizes))
    with pytest.raises(ValueError, match="'vmapp'; asked for are .*vmap"):
        prepare(claimed)
    right = target(kind="layer", unsupported=("vmap", "export", "forward_ad", "double_backward", "empty_batch"))
    assert prepare(right(lambda **sizes: iga.InvariantPointAttention(**sizes)), profile=SMALL).checks
