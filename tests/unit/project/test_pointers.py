"""Names and paths that documents, docstrings and comments mention: each exists."""

import re
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TEXTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(path for folder in ("docs", "iga", "benches", "tools", "tests") for path in (ROOT / folder).rglob("*")),
]
NAME = re.compile(r"(?<![\w.])iga(?:\.[A-Za-z_]\w*)+")
FILE = re.compile(r"\b(?:iga|docs|tests|benches|tools)/[\w./-]*\w\.(?:py|md|json|sh|png|svg|yaml|gz)\b")


def texts() -> list[tuple[Path, str]]:
    return [(path, path.read_text(encoding="utf-8")) for path in TEXTS if path.suffix in (".md", ".py", ".sh")]


def exists(name: str) -> bool:
    """Whether the dotted name is a module, or an attribute reached from one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                return part in getattr(found, "__annotations__", {})
            found = getattr(found, part)
        return True
    return False


def test_every_name_of_this_package_that_a_text_mentions_exists() -> None:
    mentioned = {
        name: path
        for path, text in texts()
        if path.suffix == ".md" or path.is_relative_to(ROOT / "iga")
        for name in NAME.findall(text)
    }
    missing = {name: str(path) for name, path in mentioned.items() if not exists(name)}
    assert len(mentioned) > 100 and not missing


def test_every_file_that_a_text_mentions_exists() -> None:
    missing = {
        (str(path.relative_to(ROOT)), name)
        for path, text in texts()
        for name in FILE.findall(text)
        if not (ROOT / name).exists()
    }
    assert not missing
