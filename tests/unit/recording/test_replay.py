"""Folders of calls that crossed a limit: whole or not there, and run again to the same numbers at the same place."""

import json
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from torch import nn

import iga
from helpers.layers import layer_inputs, small_layer
from helpers.process import run_iga, run_script
from iga import InvariantPointAttention
from iga.gaussian import GaussianRigid
from iga.recording import Limits
from iga.recording.folder import FILES, read
from iga.recording.replay import Replay, replayed
from iga.report.schema import read as read_document

SAMPLE, RESIDUE = 1, 3


def collapsed(value: float = -12.0) -> tuple:
    """Inputs of which one residue has no extent: it alone makes pairs whose log_det is under every floor."""
    s, z, r, mask = layer_inputs()
    log_scale = r.log_scale.clone()
    log_scale[SAMPLE, RESIDUE] = value
    return s, z, GaussianRigid(r.frame, r.local_mean, log_scale), mask


ONLY = Limits(non_finite=False, log_det=-25.0, geometry_logit=None, saturated=None, entropy=None)


def kept(folder: Path, layer: nn.Module, *given: object, limits: Limits = ONLY, **options: object) -> Path:
    with iga.watch(layer, limits=limits, out=folder, on_limit="record", first_step=5) as recorder:
        layer(*given, **options)
    (path,) = set(recorder.written.values())
    assert path is not None
    return path


def again(path: Path, *target: object) -> Replay:
    return replayed(*read(path), *target)  # type: ignore[arg-type]


def test_a_call_under_the_floor_is_kept_and_its_pair_is_found(tmp_path: Path) -> None:
    layer = small_layer("pre_fix", seed=4)
    path = kept(tmp_path, layer, *collapsed())
    assert path == tmp_path / "step5-log_det" and sorted(one.name for one in path.iterdir()) == sorted(FILES)
    record, tensors = read(path)
    assert (
        record["step"] == 5 and record["layer"]["number"] == "l0" and record["versions"]["torch"] == torch.__version__
    )
    assert torch.equal(tensors["layer.linear_q.weight"], layer.linear_q.weight)
    found = again(path)
    (verdict,) = found.verdicts
    assert found.exit_code == 1 and verdict.then == verdict.now == found.metrics["log_det_min"] < -25
    place = re.search(rf"at sample {SAMPLE}, head (\d), point (\d), query {RESIDUE}, key {RESIDUE}$", verdict.where)
    assert place is not None
    log_det = layer.trace(*collapsed()).log_det.detach()
    head, point = (int(one) for one in place.groups())
    assert torch.equal(log_det[SAMPLE, head, point, RESIDUE, RESIDUE], log_det.min())


def test_a_large_geometry_logit_has_a_pair_a_head_and_a_point(tmp_path: Path) -> None:
    layer = small_layer("pre_fix", seed=4)
    path = kept(
        tmp_path, layer, *collapsed(), limits=Limits(non_finite=False, log_det=None, saturated=None, entropy=None)
    )
    (verdict,) = again(path).verdicts
    place = re.search(r"at sample 1, head (\d), query (\d), key (\d), most of it of point (\d)", verdict.where)
    assert place is not None and verdict.kind == "geometry_logit"
    head, query, key, point = (int(one) for one in place.groups())
    trace = layer.trace(*collapsed())
    assert torch.equal(trace.geo_scaled[1, head, query, key].abs(), trace.geo_scaled.abs().max())
    assert int(trace.score[1, head, :, query, key].abs().argmax()) == point


def test_several_kinds_of_one_call_share_a_folder_and_a_kind_is_kept_once(tmp_path: Path) -> None:
    layer = small_layer("pre_fix", seed=4)
    with iga.watch(layer, every=1, out=tmp_path, on_limit="record") as recorder:
        for _ in range(3):
            layer(*collapsed(-14.0))
            recorder.step()
    (folder,) = tmp_path.iterdir()
    assert folder.name == "-".join(["step0", *recorder.written]) and {"log_det", "geometry_logit"} <= set(
        recorder.written
    )
    assert [one["kind"] for one in read(folder)[0]["crossed"]] == list(recorder.written)
    kept(tmp_path, layer, *collapsed())
    kept(tmp_path, layer, *collapsed())
    assert len(list(tmp_path.glob("step5-*"))) == 2  # another recorder has a folder of its own


def test_the_verdict_of_a_call_that_is_mended_is_zero(tmp_path: Path) -> None:
    path = kept(tmp_path, small_layer("pre_fix", seed=4), *collapsed())
    file = path / "call.json"
    record = json.loads(file.read_text())
    record["layer"]["build"]["config"] |= {"sigma_min": 0.03}
    file.write_text(json.dumps(record))
    found = again(path)
    assert found.exit_code == 0 and found.verdicts[0].now > -25 > found.verdicts[0].then  # type: ignore[operator]


def test_random_numbers_of_a_layer_are_those_of_the_training(tmp_path: Path) -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map, self.drop = nn.Linear(4, 4), nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (100 * self.drop(self.map(x)) @ x.mT).softmax(dim=-1)

    torch.manual_seed(3)
    layer = Dropping()
    path = kept(tmp_path, layer, torch.randn(2, 5, 4), limits=Limits())
    other = Dropping()
    before = torch.get_rng_state()
    first, second = (again(path, lambda: other).verdicts for _ in range(2))
    assert first == second and {one.kind for one in first} == {"saturated", "entropy"}
    assert all(one.now == one.then for one in first)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_baseline_and_autocast_are_run_again_as_they_were(tmp_path: Path) -> None:
    layer = InvariantPointAttention(12, 8, 4, 3, 2, 2, pair_value_dim=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        path = kept(tmp_path, layer, *layer_inputs(), limits=Limits(geometry_logit=0.1, entropy=None))
    (verdict,) = again(path).verdicts
    assert verdict.kind == "geometry_logit" and verdict.now == verdict.then and "head" in verdict.where


def test_numbers_that_are_not_finite_are_found_where_they_begin(tmp_path: Path) -> None:
    s, z, r, mask = layer_inputs()
    trans = r.trans.clone()
    trans[SAMPLE, RESIDUE] = torch.nan
    r = GaussianRigid(type(r.frame)(r.rot, trans), r.local_mean, r.log_scale)
    layer = small_layer()
    layer.implementation = "reference"
    path = kept(tmp_path, layer, s, z, r, mask, limits=Limits())
    assert path.name.startswith("step5-non_finite")
    found = again(path)
    verdict = found.verdicts[0]
    assert verdict.crossed and verdict.where.startswith("mean nan at sample 1, head 0, point 0, residue")
    assert any("args.2.frame.trans" in note for note in found.notes)


TARGET = """
    import torch
    from torch import nn


    class Rigid:
        def __init__(self, rot, trans):
            self.rot, self.trans = rot, trans


    class Around(nn.Module):
        def __init__(self, width=4):
            super().__init__()
            self.map, self.softmax = nn.Linear(width, width), nn.Softmax(dim=-1)

        def forward(self, x, rigid, scale=1.0):
            distance = (rigid.trans[:, :, None] - rigid.trans[:, None]).norm(dim=-1)
            return self.softmax(self.map(x) @ x.mT - scale * distance) @ x


    def wide():
        return Around(5)


    def nothing():
        return None
"""


@pytest.fixture
def foreign(tmp_path: Path) -> tuple[Path, Path]:
    """(the folder of a call of somebody else's layer, the file that makes it)."""
    file = tmp_path / "theirs.py"
    file.write_text(textwrap.dedent(TARGET), encoding="utf-8")
    names: dict = {"__name__": "theirs"}
    exec(file.read_text(), names)
    torch.manual_seed(0)
    given = torch.randn(2, 5, 4), names["Rigid"](torch.eye(3), torch.randn(2, 5, 3))
    return kept(tmp_path / "out", names["Around"](), *given, limits=Limits(), scale=100.0), file


def test_the_command_runs_somebody_elses_layer_and_shows_its_row(foreign: tuple[Path, Path]) -> None:
    path, file = foreign
    ran = run_iga("replay", str(path), "--target", f"{file}:Around")
    assert ran.returncode == 1, ran.stderr
    assert "theirs.Around" in ran.stdout and re.search(r"saturated: .*attention \d of 2, query \d, key \d", ran.stdout)
    assert "wmax_mean" in ran.stdout and "row_entropy_min" in ran.stdout


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (None, "was a theirs.Around: name what makes one like it, --target file.py:factory"),
        ("wide", "map.bias is [5], and [4] was recorded: other sizes"),
        ("nothing", "it gave a NoneType"),
        ("absent", "has no attribute 'absent'"),
        ("Rigid", "--target raised TypeError: Rigid.__init__() missing 2"),
    ],
)
def test_a_target_that_is_missing_or_another_is_misuse(
    target: str | None, words: str, foreign: tuple[Path, Path]
) -> None:
    path, file = foreign
    ran = run_iga("replay", str(path), *([] if target is None else ["--target", f"{file}:{target}"]))
    assert ran.returncode == 2 and words in ran.stderr and len(ran.stderr.splitlines()) == 1


def broken(name: str, path: Path) -> None:
    data = path / "tensors.safetensors"
    if name == "no folder":
        shutil.rmtree(path)
    elif name == "another folder":
        (path / "call.json").unlink()
    elif name == "no tensors":
        data.unlink()
    elif name == "cut tensors":
        data.write_bytes(data.read_bytes()[:-7])
    elif name == "a bit flipped":
        words = bytearray(data.read_bytes())
        words[-1] ^= 1
        data.write_bytes(bytes(words))
    elif name == "cut words":
        (path / "call.json").write_bytes((path / "call.json").read_bytes()[:-40])
    else:
        record = json.loads((path / "call.json").read_text())
        record |= {"other words": {"step": "x"}, "other schema": {"schema": 9}, "other sizes": {}}[name]
        if name == "other sizes":
            record["layer"]["build"]["c_s"] = 13
        (path / "call.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    "name",
    [
        "no folder",
        "another folder",
        "no tensors",
        "cut tensors",
        "a bit flipped",
        "cut words",
        "other words",
        "other schema",
        "other sizes",
    ],
)
def test_a_folder_that_is_damaged_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = kept(tmp_path, small_layer("pre_fix", seed=4), *collapsed())
    broken(name, path)
    with pytest.raises(ValueError, match=re.escape(str(path)) if name != "other sizes" else "was recorded") as refused:
        again(path)
    assert len(str(refused.value).splitlines()) == 1


def test_the_command_ends_2_for_a_damaged_folder(tmp_path: Path) -> None:
    path = kept(tmp_path, small_layer("pre_fix", seed=4), *collapsed())
    broken("a bit flipped", path)
    ran = run_iga("replay", str(path))
    assert ran.returncode == 2 and "is damaged" in ran.stderr and len(ran.stderr.splitlines()) == 1


def test_the_command_writes_its_document_and_a_page_with_the_place(tmp_path: Path) -> None:
    path = kept(tmp_path / "kept", small_layer("pre_fix", seed=4), *collapsed())
    reports = [part for name in ("a.html", "a.md", "a.sarif") for part in ("--report", str(tmp_path / name))]
    ran = run_iga("replay", str(path), "--json", str(tmp_path / "a.json"), *reports)
    assert ran.returncode == 1, ran.stderr
    document: Any = read_document(tmp_path / "a.json")  # whole, by its type
    schema = json.loads((Path(iga.__file__).parent / "report/schemas/replay.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(document)
    (one,) = document["crossed"]
    (verdict,) = again(path).verdicts
    assert (one["kind"], one["crossed"], one["now"], one["where"]) == ("log_det", True, verdict.now, verdict.where)
    assert document["metrics"] == again(path).metrics
    for name in ("a.html", "a.md", "a.sarif"):
        assert verdict.where.split(" at ")[1] in (tmp_path / name).read_text(encoding="utf-8"), name


KILLED = """
    import os
    import signal
    import sys
    from pathlib import Path

    import torch

    import iga
    from iga import _files
    from iga.recording.folder import read
    from test_replay import collapsed, small_layer

    torch.set_num_threads(1)  # a forked child would wait for the threads that only its parent has
    out = Path(sys.argv[1])
    layer, given = small_layer("pre_fix", seed=4), collapsed()
    layer.implementation = "reference"
    with iga.watch(layer, out=out.with_name("first"), on_limit="record"):
        layer(*given)  # so that a child has nothing to import

    def train(kill_at):
        calls = [0]

        def counted(function):
            def call(*arguments, **options):
                calls[0] += 1
                if calls[0] == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        for name in ("mkdir", "rename", "fsync", "open"):
            setattr(os, name, counted(getattr(os, name)))
        _files.open = counted(open)
        with iga.watch(layer, out=out, on_limit="record"):
            layer(*given)

    killed = 0
    for kill_at in range(1, 100):
        child = os.fork()
        if child == 0:
            try:
                train(kill_at)
            except BaseException:  # whatever it is, no frame above may go on in the child
                os._exit(3)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        whole = [one for one in out.iterdir() if not one.name.startswith(".")] if out.exists() else []
        for one in whole:
            read(one)
        if status == 0:
            assert len(whole) == 1 + had and killed > 6, (whole, killed)
            break
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
        had = len(whole)
        killed += 1
    else:
        raise AssertionError("it was never left alone")
    assert not [one.name for one in out.iterdir() if "being-written" in one.name]  # swept by the next
"""


@pytest.mark.process
def test_a_kill_while_a_folder_is_written_leaves_nothing_or_a_whole_folder(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(KILLED), encoding="utf-8")
    paths = f"{Path(__file__).parent}:{Path(__file__).parents[2]}"
    ran = run_script(program, str(tmp_path / "out"), env={"PYTHONPATH": paths}, timeout=300.0)
    assert ran.returncode == 0, ran.stderr
