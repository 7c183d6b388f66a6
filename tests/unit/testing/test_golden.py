"""The golden vectors cover what they name, and an overlap that is wrong does not pass them.

That the packaged enclosures are what ball arithmetic gives, `python -m iga.testing.golden --check` proves in CI.
"""

import json
import math
import re
from pathlib import Path

import pytest
import torch

from iga.overlap import gaussian_overlap, gaussian_overlap_textbook
from iga.testing import golden
from iga.testing.golden import ARGUMENTS, judge_golden, load_golden
from iga.testing.golden_pairs import draw
from iga.testing.judges.overlap import condition, drift, overlap_digits, overlap_reference

pytest.importorskip("flint")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
PACKAGED = Path(golden.__file__).with_name("golden_vectors.json")
ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benches" / "results" / "accuracy_float32.json"


def verdicts(f, dtype, **kwargs):
    return {tally.name: tally.finding().verdict for tally in judge_golden(f, dtype, **kwargs)}


def broken(f, dtype=torch.float32):
    return {name for name, verdict in verdicts(f, dtype).items() if verdict == "broken"}


@DTYPES
@pytest.mark.parametrize("f", [gaussian_overlap, overlap_reference], ids=["closed form", "reference"])
def test_a_correct_overlap_meets_every_golden_vector(f, dtype):
    assert set(verdicts(f, dtype).values()) == {"holds"}


def test_the_textbook_form_does_not_meet_them():
    assert {"golden dist_sq", "golden log_det"} <= broken(gaussian_overlap_textbook)


def test_the_packaged_enclosures_contain_fifty_digits():
    pairs = load_golden()
    columns = [torch.tensor([p.inputs[name] for p in pairs], dtype=torch.float64) for name in ARGUMENTS]
    columns = [x.reshape(-1, 3, 3) if k in (0, 3) else x for k, x in enumerate(columns)]
    for values, of in zip(overlap_digits(*columns), ("dist_sq", "log_det"), strict=True):
        for value, pair in zip(values.tolist(), pairs, strict=True):
            lower, upper = getattr(pair, of)
            assert lower <= value <= upper and math.isfinite(value)


def test_the_packaged_vectors_are_what_their_schema_says():
    pairs = load_golden()
    kinds = {pair.name.rsplit(" ", 1)[0] for pair in pairs}
    assert {"ordinary", "degenerate", "worst", "found", "needles", "coincident means", "float64"} <= kinds
    assert len(pairs) >= 200 and len({pair.name for pair in pairs}) == len(pairs)
    assert PACKAGED.stat().st_size < 600_000
    for pair in pairs:
        for name in ARGUMENTS:
            x = torch.tensor(pair.inputs[name], dtype=torch.float64)
            assert pair.dtype == "float64" or torch.equal(x, x.float().double())
            if name.endswith("rot"):
                u = 2.0**-24 if pair.dtype == "float32" else 2.0**-53
                # entries of a rotation rounded once, 1.8: √3 with the rounding of `drift` in float64, here 4.5·2⁻⁵³
                assert float(drift(x.reshape(3, 3))) <= 1.8 * u + 4.5 * 2.0**-53
    kappa = condition(*(torch.tensor([p.inputs[name] for p in pairs]) for name in ("q_sigma", "k_sigma")))
    assert float(kappa.min()) == 1.0 and float(kappa.max()) > 4999.0
    assert any(pair.dist_sq == (0.0, 0.0) for pair in pairs)


def on_values(change):
    """An overlap whose (dist_sq, log_det) are changed."""
    return lambda *pairs: change(*gaussian_overlap(*pairs), *pairs)


def on_inputs(k, change):
    """An overlap that sees one of its six arguments changed."""
    return lambda *pairs: gaussian_overlap(*pairs[:k], change(pairs[k]), *pairs[k + 1 :])


def tilted(k):
    """The gradient to one argument is 1 % too large, the value is right."""
    return on_inputs(k, lambda x: x + 0.01 * (x - x.detach()))


FAULTS = {
    "dist_sq a thousandth off": (
        on_values(lambda dist, det, *_: (dist * (1 + 1e-3), det)),
        {"dist_sq", "∂dist_sq/∂mean"},
    ),
    "two axes swapped": (
        on_inputs(2, lambda sigma: sigma[..., [1, 0, 2]]),
        {"dist_sq", "log_det", "∂dist_sq/∂ω", "∂log_det/∂ω"},
    ),
    "a rotation transposed": (on_inputs(0, lambda rot: rot.mT), {"dist_sq", "log_det"}),
    "log_det shifted": (on_values(lambda dist, det, *_: (dist, det + 1e-3)), {"log_det"}),
    **{
        f"the gradient to argument {k}": (tilted(k), caught)
        for k, caught in enumerate(
            [{"∂dist_sq/∂ω", "∂log_det/∂ω"}, {"∂dist_sq/∂mean"}, {"∂dist_sq/∂log σ", "∂log_det/∂log σ"}] * 2
        )
    },
    "a rotation detached": (on_inputs(0, lambda rot: rot.detach()), {"∂dist_sq/∂ω", "∂log_det/∂ω"}),
    "no gradient": (
        on_values(lambda dist, det, *_: (dist.detach(), det.detach())),
        {"∂dist_sq/∂mean", "∂log_det/∂log σ"},
    ),
    "a gradient where there is none": (
        on_values(lambda dist, det, rot, mean, *_: (dist, det + (mean - mean.detach()).sum(-1))),
        {"∂log_det/∂mean"},
    ),
    "NaN": (on_values(lambda dist, det, *_: (dist + math.nan, det)), {"dist_sq"}),
    "a floor that coincident means reach alone": (
        on_values(lambda dist, det, *_: (dist.clamp(min=1e-12), det)),
        {"dist_sq"},
    ),
}


@DTYPES
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault, dtype):
    f, caught = FAULTS[fault]
    found = broken(f, dtype)
    assert {f"golden {name}" for name in caught} <= found
    if fault.startswith("the gradient"):
        assert {"golden dist_sq", "golden log_det"}.isdisjoint(found)


def test_what_is_no_overlap_is_misuse():
    for f in (lambda *pairs: pairs[1], lambda *pairs: gaussian_overlap(*pairs)[0], lambda *pairs: None):
        with pytest.raises(ValueError, match="dist_sq, log_det"):
            judge_golden(f, torch.float32)
    with pytest.raises(ValueError, match="float16"):
        judge_golden(gaussian_overlap, torch.float16)
    with pytest.raises(ValueError, match="pairs must hold"):
        judge_golden(gaussian_overlap, torch.float32, pairs=[])


def test_the_command_gives_the_same_bytes_from_a_seed(tmp_path):
    names = [tmp_path / f"{k}.json" for k in range(3)]
    for name, seed in zip(names, (5, 5, 6), strict=True):
        assert golden.main(["--count", "8", "--seed", str(seed), "--output", str(name)]) == 0
    first, second, third = (name.read_bytes() for name in names)
    assert first == second and first != third
    assert golden.main(["--check", str(names[0])]) == 0


@pytest.mark.skipif(not RESULTS.is_file(), reason="no benches/results beside the tests")
def test_pairs_of_a_search_are_added_on_request():
    found = [pair for pair in draw(1, 0, RESULTS) if pair.kind == "found"]
    assert len(found) == 10 and all(pair.dtype == "float32" for pair in found)


def test_a_file_with_a_wrong_enclosure_is_found_out(tmp_path, capsys):
    content = json.loads(PACKAGED.read_text(encoding="utf-8"))
    content["pairs"] = content["pairs"][:3]
    good = json.dumps(content)
    lower, upper = content["pairs"][0]["d_dist_sq"]["k_omega"][0]
    content["pairs"][0]["d_dist_sq"]["k_omega"][0] = [lower * (1 + 1e-12), upper * (1 + 1e-12)]  # beside it
    content["pairs"][1]["log_det"][1] += 1e-9  # too wide
    file = tmp_path / "vectors.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    assert golden.main(["--check", str(file)]) == 1
    said = capsys.readouterr().out
    assert "d_dist_sq/k_omega[0]" in said and "log_det[0]" in said and "2 of the enclosures" in said
    file.write_text(good, encoding="utf-8")
    assert golden.main(["--check", str(file)]) == 0


@pytest.mark.parametrize("text", [None, "not json", "[]", '{"schema": 2, "pairs": []}', '{"schema": 1, "pairs": [{}]}'])
def test_misuse_of_the_command_is_one_line_and_exit_2(text, tmp_path, capsys):
    file = tmp_path / "vectors.json"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    assert golden.main(["--check", str(file)]) == 2
    assert golden.main(["--count", "0"]) == 2
    assert golden.main(["--count", "1", "--found", str(file)]) == 2
    said = capsys.readouterr()
    assert len(said.err.strip().splitlines()) == 3 and not said.out


@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_the_snippet_of_the_docs_judges_an_implementation(factor, monkeypatch):
    monkeypatch.chdir(ROOT)
    snippet = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "golden.md").read_text(encoding="utf-8"), re.DOTALL)
    assert snippet is not None

    def overlap(*arrays):
        dist_sq, log_det = gaussian_overlap(*(torch.from_numpy(x) for x in arrays))
        return factor * dist_sq.numpy(), log_det.numpy()

    for dtype in ("np.float32, 2.0**-24", "np.float64, 2.0**-53"):
        code = snippet[1].replace("np.float32, 2.0**-24", dtype)
        names = {"overlap": overlap}
        if factor == 1.0:
            exec(code, names)
        else:
            with pytest.raises(AssertionError):
                exec(code, names)
