"""The pages of the site that are made of the package: a hook of mkdocs, named in mkdocs.yml.

The front page is the README, without its commands' marks; the reference has a page for each part with public names, for
the commands, for the JSON documents and for the metrics. In every page the name of a page becomes a link.
"""

import inspect
import json
import posixpath
import re
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import iga
import iga.bounds
import iga.kernels
import iga.testing
from iga import diagnostics
from iga.cli.app import app
from iga.report.documents import DOCUMENTS

__all__ = ["MADE", "on_files", "on_page_markdown"]

ROOT = Path(__file__).resolve().parents[1]
# A page as texts mention it: docs/swap.md, not `docs/swap.md` in code.
_MENTIONED = re.compile(r"(?<![\w/`\[])(?<!\]\()(?:docs/(?P<name>[\w/]+\.md)|(?P<root>CHANGELOG|CONTRIBUTING)\.md)")


# Of a module, what it says of itself alone.
_BARE = ["    options:", "      members: []", "      show_root_heading: false"]


def front_page() -> str:
    """The README, as it is read on the site."""
    text = re.sub(r"<!-- command: \w+ -->\n", "", (ROOT / "README.md").read_text(encoding="utf-8"))
    return text.replace("](docs/", "](")


def names_of(module: ModuleType, title: str) -> str:
    """A page with what the module says of itself, and an entry for each of its public names."""
    lines = [f"# {title}", "", f"::: {module.__name__}", *_BARE]
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, str | int | float | tuple | dict) or (is_dataclass(value) and not isinstance(value, type)):
            shown = ", ".join(map(str, value)) if isinstance(value, tuple | dict) else repr(value)
            lines += ["", f'<a id="{module.__name__}.{name}"></a>', "", f"## `{name}`", "", f"`{shown}`"]
            continue
        inside = value if isinstance(value, ModuleType) else inspect.getmodule(value)
        path = inside.__name__ if inside is value else f"{inside.__name__}.{value.__qualname__}"  # pyright: ignore[reportOptionalMemberAccess]
        lines += ["", f"::: {path}"]
    return "\n".join(lines) + "\n"


def commands() -> str:
    """A page with the help of each command."""
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    lines = [
        "# Commands",
        "",
        "Exit codes: 0 all holds, 1 something does not, 2 misuse (one line says what to do), 130 Ctrl-C.",
        "",
    ]
    for name, command in group.commands.items():  # pyright: ignore[reportAttributeAccessIssue]
        lines += [f"## iga {name}", "", f"```text\n{_help(name, command)}\n```", ""]
    return "\n".join(lines)


def _help(name: str, command: Any) -> str:
    context = command.make_context(
        f"iga {name}", ["--help"], resilient_parsing=True, terminal_width=110, max_content_width=110
    )
    return command.get_help(context).rstrip()


def documents() -> str:
    """A page with the JSON Schema of each document that `--json` writes."""
    lines = [
        "# JSON documents",
        "",
        "Every command with `--json FILE` writes one document. Its schema has a version; keys may be added, and none",
        "that stands here is taken away or changes its meaning within a version.",
        "",
    ]
    for name in DOCUMENTS:
        schema = json.loads((ROOT / "iga" / "report" / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
        lines += [f"## {name}", "", str(schema.get("description", "")), "", *_table(schema), ""]
        for part, inner in schema.get("$defs", {}).items():
            lines += [f"### {part} of {name}", "", str(inner.get("description", "")), "", *_table(inner), ""]
    return "\n".join(lines)


def _table(schema: dict[str, Any]) -> list[str]:
    if "properties" not in schema:
        return []
    required = set(schema.get("required", ()))
    rows = [
        f"| `{name}` | {_type(one)} | {'yes' if name in required else 'no'} |"
        for name, one in schema["properties"].items()
    ]
    return ["| key | type | always there |", "| --- | --- | --- |", *rows]


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[1]
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = schema.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def metrics() -> str:
    """A page with the functions behind the names that are logged."""
    lines = ["# Metrics", "", "::: iga.diagnostics", *_BARE]
    for name in diagnostics.__all__:
        if callable(getattr(diagnostics, name)):
            lines += ["", f"::: iga.diagnostics.{name}"]
    return "\n".join(lines) + "\n"


MADE = {
    "index.md": front_page,
    "changelog.md": lambda: (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    "contributing.md": lambda: (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    "reference/iga.md": lambda: names_of(iga, "iga: layers, frames, structures"),
    "reference/bounds.md": lambda: names_of(iga.bounds, "iga.bounds: bounds and budgets"),
    "reference/kernels.md": lambda: names_of(iga.kernels, "iga.kernels: attention as one operator"),
    "reference/testing.md": lambda: names_of(iga.testing, "iga.testing: targets and tests"),
    "reference/commands.md": commands,
    "reference/documents.md": documents,
    "reference/metrics.md": metrics,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made."""
    for name, make in MADE.items():
        files.append(File.generated(config, name, content=make()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes a link of each page that the text mentions outside code."""
    here = posixpath.dirname(page.file.src_uri)

    def link(found: re.Match[str]) -> str:
        target = found["name"] or f"{found['root'].lower()}.md"
        if files.get_file_from_path(target) is None:
            return found[0]
        return f"[{found[0]}]({posixpath.relpath(target, here or '.')})"

    parts = re.split(r"(^```.*?^```$|`[^`\n]+`)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("`") else _MENTIONED.sub(link, part) for part in parts)
