"""The HTML page: every document on it, its words escaped, its numbers there, and how it behaves in a browser."""

import base64
import itertools
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from helpers.browser import browser
from helpers.documents import EVIL, documents, everywhere
from iga.cli.report import tables
from iga.report.page.page import as_page

VOID = ("meta", "link", "input", "img", "source", "br")


class Read(HTMLParser):
    """The elements of a page with their attributes, in order; that each is closed where it has to be; and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, (tag, self.open)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data


@pytest.fixture(scope="module")
def all_of_them() -> dict[str, Any]:
    return documents()


@pytest.fixture(scope="module")
def pages(all_of_them: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A red page, a green one, one of both, and one whose every text is hostile."""
    red = [one for one in all_of_them.values() if one["exit_code"]]
    green = [one for one in all_of_them.values() if not one["exit_code"]]
    evil = [everywhere(one, lambda text: f"{text}{EVIL}") for one in all_of_them.values()]
    folder = tmp_path_factory.mktemp("pages")
    for name, some in {"red": red, "green": green, "mixed": [*red, *green], "evil": evil}.items():
        (folder / f"{name}.html").write_text(as_page(some, tables), encoding="utf-8")
    return {file.stem: file for file in sorted(folder.iterdir())}


def test_a_page_has_every_run_its_red_rows_with_what_they_mean_and_the_command_of_each(
    all_of_them: Any, pages: dict[str, Path]
) -> None:
    page = Read(pages["mixed"].read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    red = sum(one["exit_code"] for one in all_of_them.values())
    assert f"{red} of {len(all_of_them)} runs do not hold" in text
    for document in all_of_them.values():
        assert document["command"] in text
    assert "Values are wrong by more than rounding explains" in text and "docs/checks.md#accuracy" in text
    assert (
        "iga verify --only accuracy" in text
        and "iga fuzz mine.py:overlap --kind overlap --replay found/accuracy" in text
    )
    assert "Growth with P, all runs together" in text and "pre_fix (sum)" in text and "bounded (mean)" in text
    for words in (
        "Faults by checks: layer",
        "Where the search has been",
        "a numba kernel",
        "What they mean: the four claims",
    ):
        assert words in text, words
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))


def test_the_picture_of_a_counterexample_is_on_the_page_where_it_is_at_hand(
    all_of_them: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    without = as_page([all_of_them["red fuzz"]])
    assert "Not drawn: accuracy." in without and "data:image/svg+xml;" not in without
    folder = tmp_path / all_of_them["red fuzz"]["findings"][0]["inputs"]
    folder.mkdir(parents=True)
    (folder / "picture.svg").write_text("no picture")
    assert as_page([all_of_them["red fuzz"]]) == without
    drawing = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 1 1'/>"
    (folder / "picture.svg").write_text(drawing)
    page = as_page([all_of_them["red fuzz"]])
    assert base64.b64encode(drawing.encode()).decode() in page and "Not drawn" not in page


def test_every_drawing_has_its_numbers_beside_it(all_of_them: Any) -> None:
    layer = all_of_them["red layer"]
    page = as_page([layer])
    (growth,) = (one for one in layer["invariants"] if one["name"] == "growth_with_points")
    assert [curve["title"] for curve in growth["curves"]] == [
        "equal points, scaling sum",
        "initialisation, scaling sum",
    ]
    for curve in growth["curves"]:
        for point in curve["points"]:
            assert f">{point['at']:.4g}<" in page and f">{point['value']:.4g}<" in page
    figures = page.count("<figure>")
    assert figures == page.count("<svg") == page.count("<summary>the numbers</summary>") > 2
    assert "log_det" in page and "from, ln nm⁶" in page
    assert "This document has none of the numbers for it" in page  # accuracy did not run: no error along κ


def test_a_document_of_an_older_version_says_what_it_lacks(all_of_them: Any) -> None:
    older = all_of_them["red layer"]
    older = older | {"invariants": [dict(one) for one in older["invariants"]]}
    for row in older["invariants"]:
        for name in ("curves", "histograms", "lower", "reproduce"):
            row.pop(name, None)
    page = as_page([older])
    assert page.count("This document has none of the numbers for it") == 3 and "<svg" not in page


def test_without_matplotlib_the_page_says_so_and_unfolds_the_numbers(
    all_of_them: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    page = as_page([all_of_them["red layer"], all_of_them["green bench"]], tables)
    assert "<svg" not in page and page.count("Drawings need matplotlib") > 2
    assert page.count("<details open>") > 2


def test_no_text_of_a_document_is_markup_on_the_page(pages: dict[str, Path]) -> None:
    plain = Read(pages["mixed"].read_text(encoding="utf-8"))
    page = pages["evil"].read_text(encoding="utf-8")
    found = Read(page)
    assert [name for name, _ in found.elements if name == "script"] == ["script"]
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    kinds = [{name for name, _ in one.elements} for one in (plain, found)]
    assert kinds[1] <= kinds[0] and "<img src=x onerror=alert(1)>" in found.text
    assert "\x1b" not in page and "\x00" not in page and "{{ 7*7 }}" in found.text and "49 }}" not in found.text
    page.encode("utf-8")


def test_a_page_asks_for_nothing_and_lets_nothing_else_run(pages: dict[str, Path]) -> None:
    text = pages["mixed"].read_text(encoding="utf-8")
    page = Read(text)
    for name, attributes in page.elements:
        for key in ("src", "href", "srcset", "xlink:href", "action"):
            assert re.match(r"#|data:", attributes.get(key) or "#"), (name, attributes)
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", text) and "@import" not in text
    (policy,) = (one["content"] for name, one in page.elements if one.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'") and "script-src 'sha256-" in policy
    assert len(text.encode()) < 3_000_000


def test_a_page_with_a_whole_comparison_stays_small() -> None:
    import gzip
    import json

    from helpers.scripts import ROOT

    whole = json.loads(gzip.decompress((ROOT / "benches/results/compare_small_fixed_plain.json.gz").read_bytes()))
    page = as_page([whole | {"document": "compare", "exit_code": 0}], tables)
    assert len(page.encode()) < 8_000_000 and "data:image/png" in page


@pytest.mark.process
def test_in_a_browser_pages_fit_wide_and_narrow_light_and_dark_without_an_error_or_a_request(
    pages: dict[str, Path],
) -> None:
    with browser() as page:
        for (name, file), width, dark in itertools.product(pages.items(), (1280, 390), (False, True)):
            page.open(file, width, dark=dark)
            assert page.errors == [], (name, width)
            assert [one for one in page.requests if not one.startswith("data:")] == [file.as_uri()]
            assert page.value("document.documentElement.scrollWidth <= innerWidth"), (name, width)
            paper = page.value("getComputedStyle(document.body).backgroundColor")
            assert paper == ("rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)")
            # every letter of a drawing has a colour that shows on the paper
            colours = "[...document.querySelectorAll('figure text')].map(one => getComputedStyle(one).fill)"
            assert page.value(f"{colours}.every(one => one !== {paper!r})")
            # an image that is broken has no size
            assert page.value("[...document.images].every(one => one.naturalWidth > 0)")


@pytest.mark.process
def test_in_a_browser_tables_sort_and_filter_by_mouse_and_by_keyboard(all_of_them: Any, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(as_page([all_of_them["green bench"], all_of_them["red layer"]], tables), encoding="utf-8")
    column = "[...grid.querySelectorAll('tbody tr')].filter(row => !row.hidden).map(row => row.cells[{}].textContent)"
    with browser() as page:
        page.open(file, 1280)
        page.value("grid = document.querySelector('.grid:has(input)'); heads = grid.querySelectorAll('th'); 1")
        names = page.value("[...heads].map(one => one.textContent)")
        place = names.index("N")
        page.value(f"heads[{place}].querySelector('button').click()")
        values = [int(one) for one in page.value(column.format(place))]
        assert values == sorted(values) and len(set(values)) > 1
        page.value(f"heads[{place}].querySelector('button').focus()")
        page.press("Enter", 13)
        values = [int(one) for one in page.value(column.format(place))]
        assert values == sorted(values, reverse=True)
        assert page.value(f"heads[{place}].getAttribute('aria-sort')") == "descending"
        whole = len(values)
        page.value("box = grid.querySelector('input'); box.value = 'IPA'; box.dispatchEvent(new Event('input')); 1")
        left = page.value(column.format(0))
        assert left and set(left) == {"ipa_sdpa"}
        assert page.value("grid.querySelector('output').textContent") == f"{len(left)} of {whole} rows"
        # the first stop of a keyboard leads past the list of runs
        page.open(file, 1280)
        page.press("Tab", 9)
        assert page.value("document.activeElement.className") == "skip"
        assert page.errors == []
