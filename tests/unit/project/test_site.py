"""The site: built strictly and without a network, every public name in its reference, no link that leads nowhere."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

import iga
import iga.bounds
import iga.kernels
import iga.testing
from helpers.scripts import load_script

ROOT = Path(__file__).resolve().parents[3]
MODULES = {"iga": iga, "bounds": iga.bounds, "kernels": iga.kernels, "testing": iga.testing}
# Anything that a page would load from elsewhere; a link that a reader may follow is not loaded.
LOADED = re.compile(r"<(?:script|img|link|iframe)[^>]*(?:src|href)=\"?(https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0 and "WARNING -" not in ran.stderr, ran.stderr
    return folder


@pytest.mark.process
def test_every_public_name_stands_in_the_reference(site: Path) -> None:
    for page, module in MODULES.items():
        text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        missing = [name for name in module.__all__ if not re.search(rf'id="(?:[\w.]+\.)?{name}"', text)]
        assert not missing, (page, missing)


@pytest.mark.process
def test_no_page_loads_anything_from_elsewhere_and_no_link_leads_nowhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        if page.name == "404.html":  # its links are from the root, wherever that is
            continue
        text = page.read_text(encoding="utf-8")
        assert not LOADED.search(text), page
        for link in re.findall(r"<a\b[^>]*\bhref=\"?([^\s\">]+)", text):
            name, _, anchor = unquote(link).partition("#")
            if re.match(r"[a-z]+:", name):
                continue
            target = (page.parent / name).resolve() if name else page
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), (page, link)
            if anchor and not anchor.startswith("__"):  # a switch of the theme
                there = rf'(?:id|name)="?{re.escape(anchor)}["\s>]'
                assert re.search(there, target.read_text(encoding="utf-8")), (page, link)


def test_public_docstrings_say_what_raises_and_where_it_comes_from() -> None:
    """Shapes and units stand in them, or in the opening of iga.bounds for all of it."""
    for module in (iga, iga.kernels, iga.testing):
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value):
                text = inspect.getdoc(value) or ""
                assert re.search(r"Raises|raises|raised|Error", text), name
                assert re.search(r"docs/|Source|`read_structure`|`IGAConfig`|`Structure`", text), name
    of_bounds = inspect.getdoc(iga.bounds) or ""
    assert all(word in of_bounds for word in ("broadcast", "nm", "ValueError", "docs/theory.md"))


def test_docstrings_become_lists_code_and_prose_in_which_nothing_else_is_a_mark() -> None:
    made = load_script("tools/site_docstrings.py").as_markdown(
        "Sums *all* of `x`.\n\nx, y     [*b, n] bool,\n         True = valid\nscale    a factor\n\n"
        "Thus:\n\n    sum(x)\n\n"
        "docs/theory.md, 3."
    )
    assert made.split("\n\n") == [
        "Sums \\*all\\* of `x`.",
        "- `x, y`: \\[\\*b, n\\] bool, True = valid\n- `scale`: a factor",
        "Thus:",
        "    sum(x)",
        "[docs/theory.md](../theory.md), 3.",
    ]
