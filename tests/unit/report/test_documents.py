"""Documents: real ones satisfy their types and JSON Schemas, damaged ones satisfy neither, and say what is wrong."""

import ast
import copy
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from rich.console import Console

import iga.report
from helpers.documents import inspection
from helpers.scripts import ROOT, load_script
from helpers.sweeps import left, make_sweep
from iga import verify
from iga.bench.probe import Limit
from iga.bench.run import plan, run
from iga.report import bench, faults
from iga.report import verify as verification
from iga.report.console import show
from iga.report.document import as_markdown
from iga.report.documents import DOCUMENTS, Bench
from iga.report.schema import flaw, read, read_as, write
from iga.testing.faults.matrix import Matrix, Row

KINDS = ("verify", "faults", "bench", "compare", "sweep", "inspect")


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    """A document of each command, as the command makes it."""
    seen = Row("layer", "one", "layer", 0.5, ("accuracy",), ("accuracy",), {"accuracy": 0.25}, ("transforms",))
    matrix = Matrix([seen], [("closed form", 3, "accuracy")], clean_runs=1)
    planned = plan(residues=[6, 8], heads=1, points=[1, 2], implementations=["dense", "ipa_sdpa"], memory=False)
    timed = run(planned, seconds=lambda call: 2e-3 if call() else 2e-3, limit=Limit(1e9, "pretended"))
    return {
        "verify": verify("iga.overlap:gaussian_overlap", kind="overlap", only=["determinism"]).document("iga verify"),
        "faults": matrix.document("iga faults"),
        "bench": timed | {"baseline": {"max_ratio": 1.25, "changes": []}},
        "compare": _short_comparison(),
        "sweep": _short_sweep(),
        "inspect": inspection("bounded"),
    }


def _short_comparison() -> Any:
    """The first steps of a committed comparison's first run."""
    result = json.loads(gzip.decompress((ROOT / "benches/results/compare_small_fixed_plain.json.gz").read_bytes()))
    one = result["runs"][0]
    short = {"steps": {name: values[:2] for name, values in one["steps"].items()}, "held_out": one["held_out"][:1]}
    return {**result, "document": "compare", "exit_code": 0, "runs": [one | short]}


def _short_sweep() -> Any:
    """One run of a sweep, whose keys are those of a real one (tests/experiment/test_sweep.py reads that)."""
    made = make_sweep({"bounded": lambda seed: 1.5}, seeds=1)
    made["runs"][0]["left"] = left([1, 2])
    return made


def validator(kind: str, *, strict: bool = False) -> Draft202012Validator:
    """Of the schema in the package; a strict one allows no key beside those it names."""
    schema = json.loads((Path(iga.report.__file__).parent / "schemas" / f"{kind}.json").read_text(encoding="utf-8"))
    for part in (schema, *schema.get("$defs", {}).values()) if strict else ():
        part["additionalProperties"] = False
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("kind", KINDS)
def test_a_real_document_satisfies_its_type_and_its_schema_and_has_no_other_key(
    kind: str, documents: dict[str, Any], tmp_path: Path
) -> None:
    write(documents[kind], tmp_path / "a.json")
    written = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert (written["document"], written["schema"]) == (kind, 1) and isinstance(written["exit_code"], int)
    validator(kind, strict=True).validate(written)
    assert read(tmp_path / "a.json") == written


def _damaged(part: Any, kind: Any) -> Iterator[Any]:
    """Copies in which one key is gone or one value is of no type that a document has; of lists, the first item."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield {name: one for name, one in part.items() if name != key}
            yield from ({**part, key: changed} for changed in (object, *_damaged(value, kind)))
    elif isinstance(part, list) and part:
        yield from ([changed, *part[1:]] for changed in (object, *_damaged(part[0], kind)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_type_and_the_schema_refuse_the_same_damaged_documents(kind: str, documents: dict[str, Any]) -> None:
    schema = validator(kind)
    for damaged in _damaged(json.loads(json.dumps(documents[kind])), kind):
        text = json.dumps(damaged, default=lambda _: {"a": [{}]})
        found = json.loads(text)
        refused = flaw(found, DOCUMENTS[kind])
        assert (refused is None) == schema.is_valid(found), (refused, text)
        # A free dictionary may lack a key; wrong values are refused everywhere.
        assert refused is not None or '{"a": [{}]}' not in text, text
        assert refused is None or "\n" not in refused


def test_what_is_required_is_every_key_but_those_that_came_later() -> None:
    for kind, lacking in (
        ("inspect", "proteins"),
        ("verify", "seconds"),
        ("faults", "clean_runs"),
        ("bench", "noise"),
        ("compare", "runs"),
        ("sweep", "planned"),
    ):
        assert flaw({}, DOCUMENTS[kind]) == "schema is missing"
        assert lacking in validator(kind).schema["required"]  # pyright: ignore[reportArgumentType, reportIndexIssue]


def test_files_of_schema_1_without_the_new_keys_are_read(documents: dict[str, Any], tmp_path: Path) -> None:
    new = {"document", "implementations", "baseline"}
    for kind, document in documents.items():
        if kind in ("inspect", "sweep"):  # which have always had them
            continue
        older = {name: one for name, one in document.items() if name not in new}
        if kind in ("bench", "compare"):
            del older["exit_code"]
        (tmp_path / "old.json").write_text(json.dumps(older), encoding="utf-8")
        found: Any = read(tmp_path / "old.json")
        assert (found["document"], found["exit_code"]) == (kind, document["exit_code"])
    wrong = copy.deepcopy(older := documents["bench"])
    wrong["rows"][0]["median_ms"] = None
    del wrong["document"], wrong["exit_code"]
    (tmp_path / "old.json.gz").write_bytes(gzip.compress(json.dumps(wrong).encode()))
    assert (read_as(tmp_path / "old.json.gz", Bench)["exit_code"], older["exit_code"]) == (1, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no JSON"),
        ("\x00", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", 'no key "schema"'),
        ('{"schema": 2, "document": "verify"}', "has schema 2; this version of iga reads schema 1"),
        ('{"schema": 1}', '"document" must be one of verify, faults, bench, compare, sweep'),
        ('{"schema": 1, "document": ["verify"]}', '"document" must be one of'),
        ('{"schema": 1, "document": "faults"}', "no whole faults document: command is missing"),
        ('{"schema": 1, "rows": [{"direction": 3}]}', "no whole bench document: environment is missing"),
    ],
)
def test_a_file_that_holds_no_whole_document_is_refused_with_what_is_wrong(
    text: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as refused:
        read(tmp_path / "a.json")
    assert words in str(refused.value) and "a.json" in str(refused.value) and "\n" not in str(refused.value)


def test_a_flaw_is_named_by_its_place_and_another_kind_is_refused(documents: dict[str, Any], tmp_path: Path) -> None:
    wrong = copy.deepcopy(documents["verify"])
    wrong["invariants"][0]["worst"] = "large"
    assert flaw(wrong, DOCUMENTS["verify"]) == 'invariants[0].worst must be a finite number, got "large"'
    write(documents["verify"], tmp_path / "a.json")
    with pytest.raises(ValueError, match="is a verify document; expected a bench document"):
        read_as(tmp_path / "a.json", Bench)
    with pytest.raises(ValueError):  # NaN is no JSON; and the old file stays
        write({"schema": float("nan")}, tmp_path / "a.json")
    assert read(tmp_path / "a.json") == json.loads(json.dumps(documents["verify"]))


def test_the_schemas_of_the_package_are_those_of_the_types() -> None:
    assert load_script("tools/schemas.py").main(["--check"]) == 0


def test_markdown_has_every_row_of_its_document(documents: dict[str, Any]) -> None:
    page = as_markdown(verification.blocks(documents["verify"]))
    assert "| determinism | holds | 0 | 0 |" in page and "all 1 invariants hold" in page
    page = as_markdown(faults.blocks(documents["faults"]))
    assert "| one | 0.5 |" in page and "| ◆ |" in page and "false alarm: closed form, seed 3: accuracy" in page
    page = as_markdown(bench.blocks(documents["bench"]))
    assert all(f"| {name} | forward | 8 | 1 | 2 | 2 |" in page for name in ("dense", "ipa_sdpa"))
    assert "baseline: no case was timed then and now" in page


def test_a_terminal_colours_what_must_be_seen_and_takes_no_name_for_markup(documents: dict[str, Any]) -> None:
    broken = copy.deepcopy(documents["verify"])
    broken["target"], broken["invariants"][0]["verdict"] = "[red]x[/]:smile:\x1b[2J", "broken"
    page = io.StringIO()
    show(verification.blocks(broken), Console(file=page, width=90, force_terminal=True, color_system="standard"))
    text = page.getvalue()
    assert "\x1b[1;31mbroken" in text and "[red]x[/]:smile:\\x1b[2J" in text and "\x1b[2J" not in text
    assert "1 of 1 do not hold: determinism (broken)" in text


def test_reports_import_nothing_of_what_they_report() -> None:
    allowed = ("iga._files", "iga._runtime", "iga._text", "iga._typing", "iga.report")
    for path in Path(iga.report.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
            own = [name for name in names if name.split(".")[0] in ("iga", "")]
            assert all(name.startswith(allowed) for name in own), (path.name, own)
