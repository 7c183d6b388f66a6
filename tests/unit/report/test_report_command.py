"""`iga report`, and `--report` of the other commands: files, misuse in one line, exit codes that stay the gate's."""

import gzip
import json
from pathlib import Path

import pytest

from helpers.command import called
from helpers.documents import documents
from iga.bench import run
from iga.bench.probe import Limit
from iga.report.formats import ENDINGS
from iga.report.schema import write
from iga.testing.faults import matrix

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = []
    for name, document in documents().items():
        made.append(tmp_path / f"{name}.json")
        write(document, made[-1])
    return made


def test_documents_of_many_runs_become_one_file_of_each_format(
    capfd: Capture, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "packed.json.gz").write_bytes(gzip.compress(files[0].read_bytes()))
    wanted = {"html": "p.html", "md": "p.md", "junit": "p.xml", "sarif": "p.sarif"}
    options = [word for name, file in wanted.items() for word in (f"--{name}", str(tmp_path / file))]
    ended = called(capfd, "report", *map(str, files), str(tmp_path / "packed.json.gz"), *options)
    assert (ended.code, ended.out, ended.lines) == (0, "", [])
    begins = {"p.html": "<!DOCTYPE html>", "p.md": "## iga", "p.xml": "<?xml", "p.sarif": "{"}
    for file, begin in begins.items():
        assert (tmp_path / file).read_text(encoding="utf-8").lstrip().startswith(begin)
    assert len(json.loads((tmp_path / "p.sarif").read_text())["runs"]) == len(files) + 1


def test_without_a_file_to_write_the_markdown_is_printed(capfd: Capture, files: list[Path]) -> None:
    ended = called(capfd, "report", str(files[0]))
    assert ended.code == 0 and ended.out.startswith("## iga: 1 run, all green\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report"], "Missing argument"),
        (["report", "nowhere.json"], "nowhere.json"),
        (["report", "pyproject.toml"], "is no JSON"),
        (["verify", "--report", "page.htm"], "has no ending that says its format"),
        (["faults", "--report", "page"], "endings: .html, .md, .xml, .sarif, .json"),
        (["fuzz", "x.py:f", "--report", "page.pdf"], "has no ending"),
        (["bench", "--report", "a/b/c.html"], "no folder"),
        (["compare", "--report", "page.txt"], "has no ending"),
        (["verify", "--json", "a.json", "--report", "a.json"], "--json too; name another"),
        (["fuzz", "x.py:f", "--replay", ".", "--report", "a.html"], "is for a search"),
    ],
)
def test_misuse_is_one_line_and_2_before_anything_runs(
    words: list[str], said: str, capfd: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[x]\n")
    if "a.json" in words:
        (tmp_path / "a.json").write_text("")
    ended = called(capfd, *words)
    assert (ended.code, ended.out, len(ended.lines)) == (2, "", 1), ended.err
    assert said in ended.err and sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["pyproject.toml", *(["a.json"] if "a.json" in words else [])]
    )


def test_a_gate_writes_every_format_and_ends_as_it_would_without(capfd: Capture, tmp_path: Path) -> None:
    target = tmp_path / "mine.py"
    target.write_text("import iga\n\n\ndef f(*pair):\n    d, g = iga.gaussian_overlap(*pair)\n    return 1.1 * d, g\n")
    names = [tmp_path / f"report{ending}" for ending in ENDINGS]
    words = ["verify", f"{target}:f", "--kind", "overlap", "--only", "accuracy", "--only", "determinism"]
    ended = called(capfd, *words, *(word for name in names for word in ("--report", str(name))))
    assert ended.code == 1 and all(name.stat().st_size for name in names), ended.err
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["source"] == {"file": str(target), "line": 4}
    assert all("--report" not in row["reproduce"] and "--only" in row["reproduce"] for row in document["invariants"])
    (run,) = json.loads((tmp_path / "report.sarif").read_text())["runs"]
    (one,) = run["results"]
    assert one["ruleId"] == "accuracy" and one["locations"][0]["physicalLocation"]["region"]["startLine"] == 4
    curves = {curve["title"] for row in document["invariants"] for curve in row["curves"]}
    assert curves == {f"{name}, {dtype}" for name in ("dist_sq", "log_det") for dtype in ("float32", "float64")}
    assert "iga/presets.py" not in (tmp_path / "report.sarif").read_text()


def test_faults_and_bench_and_compare_write_reports_of_their_own(
    capfd: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen = matrix.Row("layer", "unseen", "layer", 0.5, (), ("accuracy",), {})
    monkeypatch.setattr(matrix, "measure_matrix", lambda **_: matrix.Matrix([unseen], clean_runs=1))
    assert called(capfd, "faults", "--report", str(tmp_path / "f.html"), "--report", str(tmp_path / "f.xml")).code == 1
    assert "not seen by accuracy" in (tmp_path / "f.html").read_text(encoding="utf-8")
    monkeypatch.setattr(run, "measure_limit", lambda device: Limit(1e9, "pretended"))
    monkeypatch.setattr(run, "peaks_of_child", lambda name, cases, **rest: [12.5] * len(cases))
    sizes = ["--residues", "6", "--points", "1", "--heads", "1", "--implementations", "dense", "--repeats", "3"]
    assert called(capfd, "bench", *sizes, "--report", str(tmp_path / "b.html")).code == 0
    assert "<svg" in (tmp_path / "b.html").read_text(encoding="utf-8")


@pytest.mark.process
@pytest.mark.training
def test_a_comparison_writes_its_page_with_its_own_tables(capfd: Capture, tmp_path: Path) -> None:
    words = ["--arms", "ipa", "--steps", "2", "--seeds", "1", "--samples", "0", "--out", str(tmp_path / "c")]
    ended = called(capfd, "compare", *words, "--report", str(tmp_path / "c.html"), "--report", str(tmp_path / "c.md"))
    assert ended.code == 0, ended.err
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "What they mean: the four claims" in page and "data:image/png" in page
    assert "finished" in (tmp_path / "c.md").read_text(encoding="utf-8")
