"""Layers against a reference with the same weights: the definitions, how weights are paired, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import iga
from helpers.subjects import Plain
from iga.fuzz.layer_streams import prepared_for
from iga.testing.faults.subjects import SMALL
from iga.testing.judges.layers import overlap_by_gram_schmidt
from iga.testing.judges.overlap import condition, overlap_digits
from iga.testing.layer.references import paired
from iga.testing.overlap import pairs
from iga.testing.result import Finding
from iga.testing.targets import Claims, Target, load_target, target
from iga.testing.verify import prepare, verify

FAST = replace(SMALL, name="fast", focus_residues=12, others=())  # one set of sizes
NAME = "reference_agrees"


class Inside(nn.Module):
    """This package's layer, of any preset, in a plain module."""

    def __init__(self, config: str, **sizes: int) -> None:
        super().__init__()
        order = ("c_s", "c_z", "c_hidden", "no_heads", "no_qk_points", "no_v_points")
        numbers = [sizes[name] for name in order]
        self.inner = iga.InvariantGaussianAttention(*numbers, config=config, implementation="reference")

    def forward(self, s, z, r, mask):
        return self.inner(s, z, r, mask)


class Lost(Inside):
    """The values are right; the bias of pair features gets no gradient."""

    def __init__(self, **sizes: int) -> None:
        super().__init__("bounded", **sizes)

    def forward(self, s, z, r, mask):
        weight = self.inner.linear_b.weight
        return torch.func.functional_call(self.inner, {"linear_b.weight": weight.detach()}, (s, z, r, mask))


def layer(factory, **claims) -> Target:
    return Target("mine", "layer", factory, claims=Claims(**claims))


def judged(accused: Target, **options) -> Finding:
    return verify(accused, **({"profile": FAST, "points": (1, 4), "only": [NAME]} | options))[NAME]


@pytest.mark.parametrize("config", ["bounded", "sigma_floor", "pre_fix"])
def test_a_preset_in_a_plain_module_is_what_its_definition_says(config: str) -> None:
    found = judged(layer(lambda **sizes: Inside(config, **sizes), reference=f"iga:{config}"), seed=1)
    assert found.verdict == "holds" and found.worst < 0.5, found


def test_point_attention_is_algorithm_22() -> None:
    found = judged(layer(iga.InvariantPointAttention, reference="ipa"), points=(2, 7, 16))
    assert found.verdict == "holds" and found.worst < 0.1, found
    other = judged(layer(lambda **sizes: Inside("soft_start", **sizes), reference="iga:bounded"))
    assert other.verdict == "broken"


def test_the_overlap_by_gram_schmidt_keeps_its_digits_at_every_condition() -> None:
    given = pairs.degenerate(200, (0.03, 150.0), torch.float64, 0)
    dist_sq, log_det = overlap_by_gram_schmidt(*given)
    exact = overlap_digits(*given)
    room = 100 * condition(given[2], given[5]) * 2.0**-53  # of some tens of roundings
    assert ((dist_sq - exact[0]).abs() <= room * exact[0]).all()
    assert ((log_det - exact[1]).abs() <= room * exact[1].abs().clamp(min=1.0)).all()


def test_a_gradient_that_is_lost_is_seen_where_values_are_right_and_not_asked_of_what_claims_none() -> None:
    found = judged(layer(Lost, reference="iga:bounded"))
    assert found.verdict == "broken" and found.worst_example.endswith("gradient of linear_b.weight")
    without = judged(layer(Lost, reference="iga:bounded", inference_only=True))
    assert without.verdict == "holds" and "gradient" not in without.worst_example


def test_of_frozen_parameters_no_gradient_is_asked() -> None:
    frozen = layer(lambda **sizes: Inside("bounded", **sizes).requires_grad_(False), reference="iga:bounded")
    assert judged(frozen, points=(2,)).verdict == "holds"


def test_float32_values_are_judged_against_the_reference_in_float64() -> None:
    class Short(Inside):
        def forward(self, s, z, r, mask):
            output = super().forward(s, z, r, mask)
            return output.bfloat16().to(s.dtype) if s.dtype == torch.float32 else output

    found = judged(layer(lambda **sizes: Short("bounded", **sizes), reference="iga:bounded"))
    assert found.verdict == "broken" and found.worst_example.endswith("value in float32")


def test_without_a_reference_the_check_does_not_apply_and_says_how_to_name_one() -> None:
    assert "@target(reference=" in prepare(layer(Plain), profile=FAST).skipped[NAME]
    assert NAME in prepare(profile=FAST).skipped


# --- how weights are paired -------------------------------------------------------------------------------------


def of(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()}


def test_parameters_are_paired_by_name_whatever_stands_around_them() -> None:
    there = of(q__weight=(3, 2), q__bias=(3,), scale=(4,))
    assert paired(there, of(scale=(4,), q__bias=(3,), q__weight=(3, 2))) == {name: name for name in there}
    inside = of(inner__q__linear__weight=(3, 2), inner__q__linear__bias=(3,), inner__scale=(4,))
    assert list(paired(there, inside).values()) == list(inside)
    assert paired(there, of(query=(3, 2), q__bias=(3,), scale=(4,)))["q.weight"] == "query", "the one of its shape"


@pytest.mark.parametrize(
    ("accused", "words"),
    [
        (of(q__weight=(3, 2), scale=(4,)), ["the layer lacks q.bias [3]"]),
        (of(q__weight=(3, 2), q__bias=(3,), scale=(5,)), ["scale is [4] there and [5] here"]),
        (
            of(query=(3, 2), key=(3, 2), q__bias=(3,), scale=(4,)),
            ["the layer lacks q.weight [3, 2]", "the reference lacks query [3, 2], key [3, 2]"],
        ),
    ],
)
def test_what_has_no_partner_is_named_on_both_sides_in_one_line(accused: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as refused:
        paired(of(q__weight=(3, 2), q__bias=(3,), scale=(4,)), accused)
    assert all(word in str(refused.value) for word in words) and "\n" not in str(refused.value)


# --- how a reference is named -----------------------------------------------------------------------------------


def test_a_reference_in_a_file_is_looked_for_beside_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "right.py").write_text("import iga\nfactory = iga.InvariantPointAttention\n", encoding="utf-8")
    (folder / "mine.py").write_text(
        "import iga\nfrom iga.testing import target\n\n"
        "@target(kind='layer', reference='right.py:factory')\n"
        "def ipa(**sizes):\n    return iga.InvariantPointAttention(**sizes)\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    assert judged(load_target("there/mine.py:ipa")).verdict == "holds"


@pytest.mark.parametrize(
    ("reference", "word"),
    [
        ("ip", 'must be "ipa", "iga:PRESET"'),
        ("iga:bounde", "unknown preset 'bounde'"),
        ("no_such.py:f", "no file no_such.py"),
        (lambda **sizes: 3, "must return a torch.nn.Module"),
    ],
)
def test_a_reference_that_is_none_is_misuse(reference, word: str) -> None:
    factory = iga.InvariantPointAttention if callable(reference) else Plain
    with pytest.raises(ValueError, match=word) as refused:
        prepare(layer(factory, reference=reference), profile=FAST)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("factory", "reference", "word"),
    [
        (Plain, "iga:bounded", "the layer lacks geo_scale"),
        (iga.InvariantPointAttention, Plain, "the reference lacks"),
        (iga.InvariantPointAttention, lambda **sizes: nn.Linear(1, 1), "the layer lacks weight"),
    ],
)
def test_a_layer_without_the_parameters_of_its_reference_is_broken_and_all_else_is_judged(
    factory, reference, word: str
) -> None:
    """A port that forgot a bias is not the layer that it is said to be: a finding, with the table of all others."""
    run = prepare(layer(factory, reference=reference), profile=FAST, only=[NAME, "determinism"])
    report = run.run()
    found = {finding.name: finding for finding in report.findings}
    assert report.exit_code == 1 and found["determinism"].verdict == "holds" and found[NAME].verdict == "broken"
    assert word in found[NAME].note and "give parameters" in found[NAME].note


def test_a_search_is_misuse_where_there_is_nothing_to_compare(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import iga\nfrom iga.testing import target\n\n"
        "@target(kind='layer', reference='iga:bounded')\n"
        "def ipa(**sizes):\n    return iga.InvariantPointAttention(**sizes)\n",
        encoding="utf-8",
    )
    with pytest.raises(ValueError, match="the layer lacks geo_scale"):
        prepared_for(f"{file}:ipa", {"kind": None})


class Tied(Inside):
    """Offsets and scales of queries are one projection: two parameters of the reference are one here."""

    def __init__(self, part: float = 1.0, **sizes: int) -> None:
        super().__init__("bounded", **sizes)
        self.inner.linear_q_scales = self.inner.linear_q_offsets
        self.part = part

    def forward(self, s, z, r, mask):
        if self.part == 1.0:
            return super().forward(s, z, r, mask)
        weight = self.inner.linear_q_offsets.weight
        part = self.part * weight + (1.0 - self.part) * weight.detach()
        return torch.func.functional_call(self.inner, {"linear_q_offsets.weight": part}, (s, z, r, mask))


def test_a_parameter_that_stands_in_two_places_is_both_of_the_reference() -> None:
    assert judged(layer(Tied, reference="iga:bounded")).verdict == "holds"
    found = judged(layer(lambda **sizes: Tied(0.5, **sizes), reference="iga:bounded"))
    assert found.verdict == "broken" and "gradient of linear_q_" in found.worst_example


def test_an_overlap_takes_no_reference() -> None:
    overlap = target(kind="overlap", reference="ipa")(lambda *pair: iga.gaussian_overlap(*pair))
    with pytest.raises(ValueError, match="is for a layer"):
        prepare(overlap, profile=FAST)
