"""The page of a comparison, as Markdown and HTML: it says the same in both, loads nothing, and has its pictures."""

import json
import re
import statistics
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from helpers.comparison import ARMS, find_run, make_result, stop
from iga.experiment.results import curves, page
from iga.experiment.results.sections import blocks_of
from iga.report.document import Heading, Paragraph, Table, as_markdown

RAMP = [float(step) for step in range(1, 41)]


class Cells(HTMLParser):
    """The words of a page, one entry an element of a table, heading, paragraph or list."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("td", "th", "p", "li", "h1", "h2", "h3", "h4"):
            self.texts.append("")
            self.open = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "p", "li", "h1", "h2", "h3", "h4"):
            self.open = False

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[-1] += data


def markdown_texts(text: str) -> list[str]:
    made: list[str] = []
    for line in text.splitlines():
        if line.startswith("|"):
            cells = line.strip("|").split("|")
            made += [] if set(line) <= set("|-: ") else [part.strip() for part in cells]
        elif line:
            made.append(re.sub(r"^(#+|-) ", "", line))
    return [part.replace("`", "") for part in made]


def test_the_page_says_all_that_the_markdown_says(tmp_path: Path) -> None:
    result = make_result()
    stop(find_run(result, "sigma_floor", 1), 12)
    files = {"markdown": tmp_path / "r.md", "html": tmp_path / "r.html"}
    page.write_report([("a.json", result)], **files, with_curves=False)
    reader = Cells()
    reader.feed(files["html"].read_text(encoding="utf-8"))
    said = [" ".join(text.split()) for text in reader.texts]
    markdown = markdown_texts(files["markdown"].read_text(encoding="utf-8"))
    start = markdown.index("Results at a glance")  # the page has a head of its own
    missing = [text for text in markdown[start:] if " ".join(text.split()) not in said]
    assert not missing and len(markdown) > 300


def test_every_number_of_a_section_follows_from_its_result() -> None:
    """Losses doubled, every cell of a loss doubles; nothing else but the claims' clamped steps may change."""
    once, twice = make_result(), make_result()
    for run in twice["runs"]:
        run["steps"]["rots_vf_loss"] = [2.0 * value for value in run["steps"]["rots_vf_loss"]]
    before, after = (as_markdown(blocks_of([("r.json", result)], {})).splitlines() for result in (once, twice))
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert len(changed) == len(ARMS)
    for a, b in changed:
        assert a.replace("2.00 [2.00, 2.00]", "4.00 [4.00, 4.00]") == b


def test_a_size_without_a_result_is_not_measured() -> None:
    blocks = blocks_of([("r.json", make_result())], {}, ["small", "paper"])
    assert blocks[-1] == Paragraph("not measured")
    assert as_markdown(blocks).count("not measured") == 1


def test_a_page_escapes_what_a_result_holds(tmp_path: Path) -> None:
    result = make_result(structures="<script>alert(1)</script>")
    result["command"] = "iga compare --out a&b"
    page.write_report([("<b>.json", result)], html=tmp_path / "r.html", with_curves=False)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text and "<b>.json" not in text and "a&amp;b" in text


def test_numbers_are_aligned_right_and_words_left() -> None:
    table = Table(("arm", "loss"), (("ipa", "1.00"),))
    assert as_markdown([table]) == "| arm | loss |\n| --- | ---: |\n| ipa | 1.00 |\n"


def test_results_come_first_then_what_they_mean_then_the_rules() -> None:
    blocks = blocks_of([("a.json", make_result()), ("b.json", make_result(stress=True))], {})
    heads = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    assert [head.split(":")[0] for head in heads] == [
        *("Results at a glance", "What they mean", "The rules", "In full", "In full")
    ]


def test_each_arm_has_a_column_of_its_own_with_the_others_behind() -> None:
    """From a trial: four arms lay on one another and one was seen; one held-out point had an axis of its digits."""
    result = make_result()
    figure = curves._figure(result, False)
    arms = list(dict.fromkeys(run["arm"] for run in result["runs"]))
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == arms and len(figure.axes) == len(arms) * len(curves._ROWS)
    for axis in figure.axes:
        thick = [line for line in axis.lines if line.get_linewidth() == 2.0]
        assert len(thick) <= 1
        assert all(line.get_zorder() < thick[0].get_zorder() for line in axis.lines if thick and line not in thick)
        low, high = axis.get_ylim()
        assert high > 1.1 * low if low > 0 else high > low


def test_curves_take_medians_of_steps_and_of_seeds() -> None:
    run = find_run(make_result({"bounded": lambda seed: {"trans_loss": RAMP}}), "bounded", 0)
    line = curves.line_of(run, "trans_loss", 4)
    assert len(line) == 10 and line[0] == (2.5, 2.5) and line[-1] == (38.5, 38.5)
    assert curves.over_seeds([[(1.0, 5.0), (2.0, 1.0)], [(1.0, 7.0)], [(1.0, 9.0)]]) == [
        (1.0, 5.0, statistics.median([5, 7, 9]), 9.0),
        (2.0, 1.0, 1.0, 1.0),
    ]


def test_the_command_writes_both_files_and_the_page_loads_nothing(tmp_path: Path) -> None:
    result = make_result(arms=["ipa", "logdet_clamp", "sigma_floor"], seeds=2)
    stop(find_run(result, "sigma_floor", 1), 12)
    (tmp_path / "r.json").write_text(json.dumps(result), encoding="utf-8")
    names = [str(tmp_path / name) for name in ("r.json", "out.md", "out.html")]
    assert page.main([names[0], "--markdown", names[1], "--html", names[2]]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.html", "out.md", "out_1.png", "r.json"]
    assert (tmp_path / "out_1.png").read_bytes().startswith(b"\x89PNG")
    assert "(out_1.png)" in (tmp_path / "out.md").read_text(encoding="utf-8")
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|srcset|href)="([^"]{0,30})', text)
    assert sum(source.startswith("data:image/png;base64,") for source in sources) == 2
    assert all(source.startswith(("data:", "#")) for source in sources)


def test_without_matplotlib_the_error_names_the_extra_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.json").write_text(json.dumps(make_result(seeds=1)), encoding="utf-8")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    names = [str(tmp_path / "r.json"), "--markdown", str(tmp_path / "out.md")]
    assert page.main(names) == 2
    assert "[plot]'" in capsys.readouterr().err
    assert not (tmp_path / "out.md").exists()
    assert page.main([*names, "--no-curves"]) == 0
    assert "![" not in (tmp_path / "out.md").read_text(encoding="utf-8")


def test_a_file_that_is_no_result_is_named_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.json").write_text("{}", encoding="utf-8")
    assert page.main([str(tmp_path / "r.json"), "--markdown", str(tmp_path / "out.md")]) == 2
    assert "r.json is no result of iga compare" in capsys.readouterr().err
    assert page.main([str(tmp_path / "absent.json"), "--markdown", str(tmp_path / "out.md")]) == 2
    with pytest.raises(ValueError, match=r"mine\.json is no result"):
        page.write_report([("mine.json", make_result() | {"schema": 2})], markdown=tmp_path / "out.md")
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
