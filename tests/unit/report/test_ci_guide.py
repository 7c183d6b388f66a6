"""The workflows of docs/ci.md: valid by the services' own schemas, with command lines that the command line takes."""

import json
import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from jsonschema import Draft7Validator

from helpers.scripts import ROOT
from iga.cli.app import app
from iga.report.formats import check_report

GUIDE = (ROOT / "docs/ci.md").read_text(encoding="utf-8")


def workflow(name: str) -> Any:
    (text,) = re.findall(rf"<!-- workflow: {name} -->\n```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)
    return yaml.safe_load(text)


def schema(name: str) -> Draft7Validator:
    folder = files("check_jsonschema") / "builtin_schemas/vendor"
    return Draft7Validator(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))


def scripts(part: Any) -> list[str]:
    """Every line of shell in a workflow."""
    if isinstance(part, list):
        return [line for one in part for line in scripts(one)]
    if not isinstance(part, dict):
        return []
    made = [line for name in ("run", "script", "before_script", "after_script") for line in _lines(part.get(name, []))]
    return made + [line for one in part.values() for line in scripts(one)]


def _lines(found: str | list[str]) -> list[str]:
    return [line for text in ([found] if isinstance(found, str) else found) for line in text.splitlines()]


def calls(lines: list[str]) -> list[list[str]]:
    """The calls of iga in lines of shell, with numbers for variables."""
    found = [re.search(r"(?:^|\|\| |&& |- run: )(iga [^|&;>]*)", line) for line in lines]
    return [shlex.split(re.sub(r"\$\{?\w+\}?", "7", one[1])) for one in found if one is not None]


def accept(words: list[str]) -> dict[str, Any]:
    """The parameters that a command reads from its words; click's own error where it does not take them."""
    group: Any = typer.main.get_command(app)
    command = group.commands[words[1]]
    return command.make_context(words[1], words[2:]).params


@pytest.mark.parametrize(("name", "official"), [("github", "github-workflows"), ("gitlab", "gitlab-ci")])
def test_a_workflow_is_what_the_service_takes(name: str, official: str) -> None:
    found = workflow(name)
    if True in found:  # YAML 1.1 takes the key `on` for true
        found["on"] = found.pop(True)
    schema(official).validate(found)
    assert {"verify", "fuzz"} <= set(found.get("jobs", found))


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_each_command_of_a_workflow_is_one_that_the_command_line_takes(name: str) -> None:
    found = calls(scripts(workflow(name)))
    assert [words[1] for words in found] == ["verify", "fuzz", "fuzz"]
    for words in found:
        given = accept(words)
        for path in given.get("reports") or given.get("report") or []:
            check_report(path)
    searching = accept(found[2])
    assert searching["out"] == Path("search") and searching["seed"] == 7 and searching["max_time"] == "1h"
    assert accept(found[1])["replay"] == [Path("corpus")]


def test_every_file_that_a_workflow_hands_on_is_one_that_a_command_wrote() -> None:
    for name in ("github", "gitlab"):
        found = workflow(name)
        wrote = {
            str(path) for words in calls(scripts(found)) for path in accept(words).values() if isinstance(path, Path)
        }
        for words in calls(scripts(found)):
            wrote |= {str(path) for path in (accept(words).get("reports") or accept(words).get("report") or [])}
        text = json.dumps(found)
        handed = set(re.findall(r"\b(?:verify|fuzz)\.(?:html|json|sarif|xml|md)\b", text))
        assert handed and handed <= wrote


def test_the_other_commands_of_the_guides_are_taken_too() -> None:
    for guide in ("ci.md", "verification.md", "fuzzing.md"):
        text = (ROOT / "docs" / guide).read_text(encoding="utf-8")
        lines = [
            line
            for block in re.findall(r"```(?:sh|yaml|)\n(.*?)```", text, flags=re.DOTALL)
            for line in block.splitlines()
        ]
        found = calls([line.split("  #")[0] for line in lines])
        assert found
        for words in found:
            accept(words)


def test_a_wrong_option_would_be_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        accept(["iga", "verify", "--reports", "a.html"])
