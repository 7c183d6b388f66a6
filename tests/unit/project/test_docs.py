"""The claims of the documents, run: Python examples, options, and the commands of the README."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_readme_example_runs(structures_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = blocks("README.md", "python")
    monkeypatch.chdir(structures_dir)
    names: dict[str, object] = {}
    exec(example, names)
    s = names["s"]
    assert tuple(s.shape) == (1, 76, 256)  # pyright: ignore[reportAttributeAccessIssue]


def test_the_examples_of_the_preset_guide_run() -> None:
    (example,) = blocks("docs/presets.md", "python")
    names: dict[str, object] = {}
    exec(example, names)
    assert names["layer"].config.sigma_min == 0.05  # pyright: ignore[reportAttributeAccessIssue]


def test_the_example_of_the_kernels_runs() -> None:
    (example,) = blocks("docs/kernels.md", "python")
    names: dict[str, object] = {}
    exec(example, names)
    assert names["out"].implementation == "cpu" and names["out"].values.shape == (1, 8, 64, 16)  # pyright: ignore[reportAttributeAccessIssue]


def test_the_growth_of_point_attention_is_as_the_guide_of_peers_says() -> None:
    (example,) = blocks("docs/peers.md", "python")
    names: dict[str, object] = {}
    exec(example, names)
    text = (ROOT / "docs/peers.md").read_text(encoding="utf-8")
    for name, start in (("ipa", "| `iga.InvariantPointAttention`"), ("gaussian", "| `iga.InvariantGaussianAttention`")):
        (row,) = (line for line in text.splitlines() if line.startswith(start))
        stated = [int(cell) for cell in row.split("|")[2:-1]]
        assert stated == pytest.approx(names[name], abs=1)  # a processor may round a sum otherwise


def test_the_swap_is_under_twenty_lines_and_its_new_lines_are_this_packages() -> None:
    swap = blocks("docs/swap.md", "python")[0]
    before, after = swap.split("# after")
    lines = [line for line in after.splitlines() if line.strip()]
    assert "openfold" in before and len(lines) < 20
    assert "from iga import InvariantGaussianAttention" in after


def test_every_bound_that_the_theory_names_exists() -> None:
    from iga import bounds

    text = (ROOT / "docs/theory.md").read_text(encoding="utf-8")
    table = text[text.index("| theorem | `iga.bounds.` |") : text.index("## 11.")]
    names = {name for name in re.findall(r"`([a-z][a-z0-9_]+)`", table) if name != "iga"}
    assert len(names) > 20
    assert not {name for name in names if not hasattr(bounds, name)}


def test_every_option_that_the_documents_use_exists() -> None:
    import typer.main

    from iga.cli.app import app

    known = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in typer.main.get_command(app).commands.items()  # pyright: ignore[reportAttributeAccessIssue]
    }
    used = 0
    for document in ["README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))]:
        for line in (ROOT / document).read_text(encoding="utf-8").splitlines():
            for name, rest in re.findall(r"(?:^|[ /`])iga (\w+)((?: +[^`#]*)?)", line):
                if name not in known:
                    continue
                for option in re.findall(r"--[a-z-]+", rest):
                    assert option in known[name], f"{document}: iga {name} {option}"
                    used += 1
    assert used > 5


def test_the_targets_of_the_verification_guide_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from iga.testing.targets import load_target

    targets, use = blocks("docs/verification.md", "python")
    (tmp_path / "mine.py").write_text(targets, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_target(f"{tmp_path / 'mine.py'}:layer").kind == "layer"
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # and afterwards it is forgotten again
    names: dict[str, object] = {}
    exec(use, names)
    del sys.modules["mine"]
    assert {finding.name for finding in names["report"].findings} == {"accuracy", "gradient_values"}  # pyright: ignore[reportAttributeAccessIssue]


def test_every_invariant_has_its_row_in_the_verification_guide() -> None:
    from iga.testing.checks import checks_of

    text = (ROOT / "docs/verification.md").read_text(encoding="utf-8")
    of_layers = text[text.index("## The invariants of a layer") : text.index("## The invariants of an overlap")]
    of_overlaps = text[text.index("## The invariants of an overlap") : text.index("## The fault matrix")]
    for rows, kind in ((of_layers, "layer"), (of_overlaps, "overlap")):
        named = set(re.findall(r"`([a-z_0-9]+)`", "\n".join(re.findall(r"^\| (`[^|]+)\|", rows, flags=re.MULTILINE))))
        assert named == set(checks_of(kind))


@pytest.mark.parametrize("mark", ["verify", "test"])
def test_the_readmes_commands_are_single_lines_that_install_with_the_constraints(mark: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- command: {mark} -->\n```sh\n(.*?)\n```", text, flags=re.DOTALL)
    assert found is not None
    command = found.group(1)
    assert "\n" not in command and "-c constraints.txt" in command


def test_the_first_layer_of_the_verification_guide_breaks_where_it_says_and_holds_once_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from iga.testing.contract import PROFILES
    from iga.testing.verify import verify

    monkeypatch.setitem(
        PROFILES, "fast", replace(PROFILES["fast"], focus=1, focus_residues=20, synthetic=2, seeds=1, others=())
    )
    (tmp_path / "mine.py").write_text(blocks("docs/verification.md", "python")[0], encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .* \| .* \|$", _section("## Ten minutes", "## Verdicts"), flags=re.MULTILINE)
    options = {"only": rows, "points": [1, 4]}
    naive = verify(f"{tmp_path / 'mine.py'}:layer", **options)
    mended = verify(f"{ROOT / 'docs/examples/first_steps.py'}:layer", **options)
    assert len(rows) == 3 and {finding.verdict for finding in naive.findings} == {"broken"}
    assert {finding.verdict for finding in mended.findings} == {"holds"}
    lines = (ROOT / "docs/examples/first_steps.py").read_text(encoding="utf-8").split()
    (change,) = blocks("docs/verification.md", "diff")
    added = [line[1:].split() for line in change.splitlines() if line.startswith("+")]
    assert added and all(set(words) <= set(lines) for words in added)  # what the guide adds stands in the file


def test_the_verification_guide_lists_every_claim_that_excuses_something() -> None:
    from iga.testing.checks import CHECKS

    listed = _section("<!-- claims -->", "<!-- end of claims -->")
    for kind in ("layer", "overlap"):
        known = {name for one in CHECKS if one.kind == kind for name in (*one.requires, *one.claims)}
        (line,) = re.findall(rf"^- {kind}: (.*)$", listed, flags=re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", line)) == known


def _section(begin: str, end: str) -> str:
    text = (ROOT / "docs/verification.md").read_text(encoding="utf-8")
    return text[text.index(begin) : text.index(end)]


def test_the_layer_of_the_first_five_minutes_holds(tmp_path: Path) -> None:
    from iga.testing.verify import verify

    mine, swap = blocks("docs/start.md", "python")
    (tmp_path / "mine.py").write_text(mine, encoding="utf-8")
    report = verify(f"{tmp_path / 'mine.py'}:layer", only=["mask_inertness", "permutations", "small_sizes"], points=[2])
    assert {finding.verdict for finding in report.findings} == {"holds"}
    exec(swap, {})
