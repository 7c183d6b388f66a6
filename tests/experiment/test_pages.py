"""The pages of the comparison, which follow from the committed results."""

import json
import re
from pathlib import Path

import pytest

from iga.experiment.sweep.page import main, page

ROOT = Path(__file__).resolve().parents[2]


def test_the_step_times_of_the_arms_are_those_of_the_committed_run() -> None:
    arms = json.loads((ROOT / "benches/results/experiment_step.json").read_text(encoding="utf-8"))["arms"]
    page = (ROOT / "docs/experiment/network.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| `(\w+)` \| ([\d |]+) \|$", page, re.M))
    columns = ("median_ms", "least_ms", "flushed_median_ms", "flushed_least_ms")
    assert shown == {arm: " | ".join(f"{row[name]:.0f}" for name in columns) for arm, row in arms.items()}


def test_the_results_page_follows_from_the_committed_results() -> None:
    from iga.experiment.results.readings import read_result
    from iga.experiment.results.sections import blocks_of, title_of
    from iga.report.document import Picture, as_markdown

    (command,) = re.findall(
        r"<!-- command: results -->\n```sh\n(.*?)```", (ROOT / "docs/experiment/README.md").read_text(), re.S
    )
    files = [path for word in command.split() if ".json" in word for path in sorted(ROOT.glob(word))]
    assert files and "--sizes small,paper" in command and "--markdown docs/experiment/results.md" in command
    results = [(path.name, read_result(path)) for path in files]
    # The pictures are not drawn again: what Markdown says of them is their name and their words.
    pictures = {
        number: Picture(f"results_{number + 1}.png", "", "", f"Curves of {title_of(result)}")
        for number, (_, result) in enumerate(results)
    }
    page = (ROOT / "docs/experiment/results.md").read_text(encoding="utf-8")
    assert as_markdown(blocks_of(results, pictures, ["small", "paper"])) == page
    assert all((ROOT / "docs/experiment" / picture.file).exists() for picture in pictures.values())


COMMANDS = re.findall(
    r"^python -m iga\.experiment\.sweep\.page (\S+) (\S+)$",
    (ROOT / "docs/experiment/sweep.md").read_text(encoding="utf-8"),
    re.M,
)


def test_every_committed_sweep_has_its_page() -> None:
    committed = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("benches/results/sweep_*.json.gz")}
    assert committed and committed == {result for result, _ in COMMANDS}


@pytest.mark.parametrize(("result", "markdown"), COMMANDS)
def test_the_page_of_a_sweep_follows_from_its_committed_result(result: str, markdown: str) -> None:
    assert page(ROOT / result) == (ROOT / markdown).read_text(encoding="utf-8")


def test_what_is_no_result_of_a_sweep_gets_one_line_and_no_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "page.md"
    comparison = next(ROOT.glob("benches/results/compare_*.json.gz"))
    for given, words in ((comparison, "name a result.json of iga sweep"), (tmp_path / "none.json", "none.json")):
        assert main([str(given), str(written)]) == 2 and not written.exists()
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
