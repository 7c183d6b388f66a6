"""A counterexample's script: torch and the function alone, wrong beside right, 1 while it is wrong, then 0.

Of every check of the registry a wrong function is planted that this check sees, the search meets it, and the script
that is written is run where neither this package nor NumPy or flint can be imported.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.forked import Runs, forked_runs
from iga.bounds import unit_roundoff
from iga.fuzz import standalone
from iga.fuzz.counterexample import write_counterexample
from iga.fuzz.overlap import OverlapStream
from iga.fuzz.pair_cases import DRAWN
from iga.fuzz.stream import Candidate, Judgement
from iga.testing.cases_file import read_case
from iga.testing.checks import checks_of
from iga.testing.judges.overlap import condition, overlap_reference
from iga.testing.judges.rigorous import enclosure
from iga.testing.latest import Call
from iga.testing.overlap.budgets import gradient_budgets
from iga.testing.overlap.gradients import derivatives
from iga.testing.overlap.subject import ARGUMENTS, OverlapSubject
from iga.testing.state.watch import Watch, watching

# A right form that needs torch alone, in elementwise arithmetic, and wrong ones, each for what is called otherwise.
MINE = """
import os
import random
import sys

import torch


def right(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma):
    parts = []
    for rot, sigma in ((q_rot.double(), q_sigma.double()), (k_rot.double(), k_sigma.double())):
        rows = (rot * sigma[..., None, :]).unbind(-2)
        parts.append([(rows[i] * rows[j]).sum(-1) for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))])
    a, b, c, d, e, f = (x + y for x, y in zip(*parts))
    x, y, z = (q_mean.double() - k_mean.double()).unbind(-1)
    l21, l31 = b / a, c / a
    second, below = d - l21 * b, e - l21 * c
    l32 = below / second
    third = f - l31 * c - l32 * below
    y = y - l21 * x
    z = z - l31 * x - l32 * y
    dist_sq = x.square() / a + y.square() / second + z.square() / third
    log_det = (a.log() + second.log() + third.log()) + 0.0 * x
    return dist_sq.to(q_mean.dtype), log_det.to(q_mean.dtype)


def unrecorded(*pair):
    dist_sq, log_det = right(*pair)
    return dist_sq, log_det if torch.is_grad_enabled() else log_det + 1.0


def kept_apart(*pair):
    dist_sq, log_det = right(*pair)
    return dist_sq + 1e-8 * (pair[1] == pair[4]).all(-1), log_det


def one_sided(*pair):
    dist_sq, log_det = right(*pair)
    return torch.where(pair[2][..., 0] > pair[5][..., 0], 1.01 * dist_sq, dist_sq), log_det


def halved(x, where):
    return torch.where(where, 0.5 * x + 0.5 * x.detach(), x)


def flat_when_moderate(*pair):
    dist_sq, log_det = right(*pair)
    sigma = torch.cat(torch.broadcast_tensors(pair[2], pair[5]), -1)
    return halved(dist_sq, sigma.amax(-1) < 11 * sigma.amin(-1)), log_det


def steep_at_one_frame(*pair):
    dist_sq, log_det = right(*pair)
    same = (pair[0] == pair[3]).flatten(-2).all(-1)
    return torch.where(same, dist_sq + 0.0 * (dist_sq - dist_sq.detach()).sqrt(), dist_sq), log_det


def unlike_in_inference(*pair):
    dist_sq, log_det = right(*pair)
    return dist_sq, log_det + (1.0 if torch.is_inference_mode_enabled() else 0.0)


calls = [0]


def restless(*pair):
    dist_sq, log_det = right(*pair)
    calls[0] += 1
    return dist_sq * (1 + calls[0] % 2 * torch.finfo(dist_sq.dtype).eps), log_det


def greedy(*pair):
    answers = right(*pair)
    if not torch.is_grad_enabled():
        pair[1].mul_(2.0)
    return answers


def bent(*pair):
    dist_sq, log_det = right(*pair)
    return dist_sq + 0.01 * (dist_sq - dist_sq.detach()).square(), log_det


def short(*pair):
    dist_sq, log_det = right(*pair)
    half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.float16
    return (dist_sq.half().to(dist_sq.dtype) if half else dist_sq), log_det


def by_products(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma):
    with torch.autocast("cpu", enabled=False):
        delta = (q_rot.mT @ (q_mean - k_mean)[..., None])[..., 0]
        turn = q_rot.mT @ k_rot
    still = torch.eye(3, dtype=q_rot.dtype).expand(q_rot.shape)
    return right(still, delta, q_sigma, turn, torch.zeros_like(k_mean), k_sigma)


def draws(*pair):
    random.random()
    return right(*pair)


def widens(*pair):
    answers = right(*pair)
    torch.set_default_dtype(torch.float64)
    return answers


def tail(*pair):
    dist_sq, log_det = right(*pair)
    return (dist_sq, torch.cat([log_det[:-1], log_det[-1:] * 0])) if len(dist_sq) > 3 else (dist_sq, log_det)


def ends(*pair):
    os._exit(0)


def leaves(*pair):
    sys.exit(0)


def raises(*pair):
    raise ZeroDivisionError("nothing")
"""

# check → wrong functions that it sees, and a word of what it says of each
WRONG: dict[str, dict[str, str]] = {
    "accuracy": {"unrecorded": "log_det"},
    "coincident_means": {"kept_apart": "right is 0"},
    "score_laws": {"one_sided": "dist_sq"},
    "gradient_values": {"flat_when_moderate": "moderate"},
    "gradient_finiteness": {"steep_at_one_frame": "it says (nan"},
    "calls_agree": {"unlike_in_inference": "inference_mode"},
    "determinism": {"restless": "dist_sq", "greedy": "q_mean changed by the call"},
    "second_derivatives": {"bent": "it says"},
    "reduced_precision": {"short": "autocast to fp16", "by_products": "TF32 matrix products"},
    "process_state": {"draws": "drew from Python's global generator", "widens": "default dtype"},
}
CASES = [(check, name) for check, names in WRONG.items() for name in names]
FACTS = {
    "seed": 0,
    "sigma_range": (0.03, 150.0),
    "dtypes": ["float32", "float64"],
    "unsupported": [],
    "inference_only": False,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mine.py, and one with packages that cannot be imported."""
    folder = tmp_path_factory.mktemp("accused")
    (folder / "mine.py").write_text(MINE, encoding="utf-8")
    for name in ("iga", "numpy", "flint", "jaxtyping", "gemmi"):  # mpmath is torch's own
        (folder / "blocked" / name).mkdir(parents=True)
        (folder / "blocked" / name / "__init__.py").write_text(
            f"raise ModuleNotFoundError('no', name='{name}')\n", encoding="utf-8"
        )
    return folder


@pytest.fixture(scope="module")
def run(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """As `_run`, without its start."""
    with forked_runs(place, {"PYTHONPATH": str(place / "blocked")}, tmp_path_factory.mktemp("said")) as answer:
        yield answer


@pytest.fixture(scope="module")
def mine(place: Path) -> Any:
    spec = importlib.util.spec_from_file_location("mine_of_counterexamples", place / "mine.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pair() -> list[torch.Tensor]:
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    first = [turn, torch.tensor([1.0, 2.0, -0.5]), torch.tensor([2.0, 0.5, 0.1])]
    return [*first, torch.eye(3), torch.zeros(3), torch.tensor([1.0, 0.25, 3.0])]


def _written(folder: Path, name: str, check: str, inputs: list[torch.Tensor]) -> Path:
    call = Call("overlap", dict(zip(ARGUMENTS, inputs, strict=True)))
    return _script(folder, name, Candidate(check, call, 9.0, "here", "", "sampling"))


def _script(folder: Path, name: str, candidate: Candidate) -> Path:
    verdict = Judgement("broken", 9.0, 1.0, "of the budget", "here", "")
    write_counterexample(folder, candidate, verdict, {"target": f"mine.py:{name}", **FACTS})
    return folder / "reproduce.py"


def _run(script: Path, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As anybody runs it, where torch alone can be imported."""
    words = [sys.executable, "-W", "ignore", str(script), *arguments]
    env = {**os.environ, "PYTHONPATH": str(place / "blocked"), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(words, capture_output=True, text=True, env=env, cwd=place, timeout=300, check=False)


def _met(stream: OverlapStream, check: str) -> Candidate:
    """The candidate of a check, as the search meets it."""
    stream._begin("sampling")
    with watching(Watch()):
        if stream.given(check):
            stream._judged(stream.space.draw(200, stream.generator, 0.3))
        else:
            stream._own_draws(0)
    return stream._candidates[check]


def test_every_check_that_the_search_runs_has_a_wrong_function_here() -> None:
    assert list(WRONG) == list(checks_of("overlap"))


@pytest.mark.process
@pytest.mark.parametrize(("check", "name"), CASES)
def test_the_script_of_every_check_says_wrong_beside_right_and_right_once_it_is(
    check: str, name: str, run: Runs, tmp_path: Path, mine: Any
) -> None:
    subject = OverlapSubject(name, getattr(mine, name))
    stream = OverlapStream(subject, checks=[checks_of("overlap")[check]])
    candidate = _met(stream, check)
    if stream.given(check):  # what the others drew, the script judges again just so
        assert stream.judge(candidate).verdict == "broken"
    script = _script(tmp_path / "found", name, candidate)
    wrong = run(script)
    assert wrong.returncode == 1 and f"{check}: broken" in wrong.stdout and "WRONG" in wrong.stdout, wrong
    assert WRONG[check][name] in wrong.stdout, wrong.stdout
    if check != "process_state":  # which has no numbers
        assert "it says" in wrong.stdout and "right is" in wrong.stdout, wrong.stdout
    right = run(script, "mine.py:right")
    assert right.returncode == 0 and "wrong" not in right.stdout and "broken" not in right.stdout, right
    assert right.stdout.splitlines()[-1] == "right" and right.stderr == ""


@pytest.mark.process
@pytest.mark.parametrize("name", ["ends", "leaves", "raises"])
def test_a_function_that_ends_the_process_or_raises_is_not_right(name: str, run: Runs, tmp_path: Path) -> None:
    ended = run(_written(tmp_path / "found", name, "accuracy", _pair()))
    assert ended.returncode == 1 and "WRONG" in ended.stdout, ended
    assert ("ZeroDivisionError" if name == "raises" else "ended its process, with exit code 0") in ended.stdout


@pytest.mark.process
def test_a_batch_that_loses_its_tail_and_a_function_that_has_moved(place: Path, run: Runs, tmp_path: Path) -> None:
    batch = [x.expand(4, *x.shape).clone() for x in _pair()]
    script = _written(tmp_path / "found", "tail", "accuracy", batch)
    wrong = _run(script, place)
    assert wrong.returncode == 1 and "log_det of pair 3" in wrong.stdout, wrong
    gone = run(script, "gone.py:right")
    assert gone.returncode == 2 and "give the function's place" in gone.stderr
    assert run(script, str(place / "mine.py:right")).returncode == 0
    assert read_case(tmp_path / "found" / "case.json").words["target"] == "mine.py:tail"


def test_inputs_that_a_check_drew_come_again_of_the_seed_in_the_case(tmp_path: Path, mine: Any) -> None:
    """A replay of such a case is judged by what was drawn then, and not by what another seed draws."""
    stream = OverlapStream(OverlapSubject("bent", mine.bent), checks=[checks_of("overlap")["second_derivatives"]])
    stream.seed = 77
    stream._begin("sampling")
    stream._own_draws(3)
    candidate = stream._candidates["second_derivatives"]
    _script(tmp_path, "bent", candidate)
    assert candidate.call.layer == {DRAWN: 80} and read_case(tmp_path / "case.json").words["seed"] == 80


def test_the_script_s_fractions_are_what_balls_and_autograd_say() -> None:
    pair = [x.double() for x in _pair()]
    dist_sq, log_det, slopes = standalone.exact(tuple(tuple(x.flatten().tolist()) for x in pair))
    balls = enclosure(pair)
    u = unit_roundoff(torch.float64)
    for fraction, ball in ((dist_sq, balls.dist_sq), (log_det, balls.log_det)):  # both exact, and each rounded once
        assert abs(float(fraction) - float(ball.mid())) <= 2 * u * abs(float(fraction))
    batch = tuple(x[None] for x in pair)
    *_, expected = derivatives(OverlapSubject("reference", overlap_reference), batch)  # pyright: ignore[reportArgumentType]
    smallest = torch.minimum(pair[2].amin(), pair[5].amin())
    limits = gradient_budgets(overlap_reference(*pair)[0], condition(pair[2], pair[5]), smallest, torch.float64)
    for name, values in expected.items():
        right = torch.tensor([float(x) for x in slopes[name]], dtype=torch.float64)
        assert (
            float((values[0].flatten() - right).norm()) <= float(limits[name]) < float(right.norm()) or not right.any()
        )
    values = standalone.by_fractions(*batch)
    assert float(values[0]) == float(dist_sq) and float(values[1]) == float(log_det)


def test_the_script_reads_a_pair_as_the_check_does() -> None:
    """The derivatives that a script takes of a function are those that the check judges."""
    subject = OverlapSubject("reference", overlap_reference)
    batch = [x.double()[None] for x in _pair()]
    found = standalone.said(overlap_reference, batch, gradients=True)
    *_, expected = derivatives(subject, tuple(batch))  # pyright: ignore[reportArgumentType]
    assert all(torch.allclose(found[name], expected[name]) for name in expected)


def test_what_is_judged_again_and_holds_is_no_counterexample() -> None:
    stream = OverlapStream(OverlapSubject("reference", overlap_reference), checks=[checks_of("overlap")["accuracy"]])
    call = Call("overlap", dict(zip(ARGUMENTS, _pair(), strict=True)))
    assert stream.judge(Candidate("accuracy", call, 9.0, "", "", "climb")).verdict == "not reproducible"


TEST = """
import torch
from hypothesis import given, settings

from iga.testing.judges.overlap import overlap_reference
from iga.testing.strategies import gaussian_pairs

{example}
@settings(max_examples=20, deadline=None, database=None, derandomize=True)
@given(gaussian_pairs())
def claim(pair):
    given = [x.float() for x in pair.tensors]
    right = overlap_reference(*given)
    found = function(*given)
    assert abs(float(found[0]) - float(right[0])) <= 1e-2 * float(right[0])
"""


def test_the_example_of_a_counterexample_fails_where_it_is_pasted_and_only_there(tmp_path: Path, mine: Any) -> None:
    """Under a @given of this package's strategies, which do not meet the corner by themselves."""

    def corner(*pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        dist_sq, log_det = mine.right(*pair)
        return torch.where(pair[2][..., 0] == 0.7, 1.5 * dist_sq, dist_sq), log_det

    inputs = [x.float() for x in _pair()]
    inputs[2] = torch.tensor([0.7, 0.5, 0.1])  # no power of ten, and no number of float64
    _written(tmp_path, "corner", "accuracy", inputs)
    example = (tmp_path / "example.txt").read_text(encoding="utf-8")
    for text, function, fails in (("", corner, False), (example, corner, True), (example, mine.right, False)):
        names: dict[str, Any] = {"function": function}
        exec(compile(TEST.format(example=text), "pasted.py", "exec"), names)  # as the file that it is pasted into
        if fails:
            with pytest.raises(AssertionError):
                names["claim"]()
        else:
            names["claim"]()
    names = {}
    exec(example.replace("@example(", "found = (").replace("from hypothesis import example\n", ""), names)
    assert all(torch.equal(x.float(), y) for x, y in zip(names["found"].tensors, inputs, strict=True))


def test_a_counterexample_has_a_picture_or_a_note_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    call = Call("overlap", dict(zip(ARGUMENTS, _pair(), strict=True)))
    candidate = Candidate("accuracy", call, 9.0, "here", "", "sampling")
    verdict = Judgement("broken", 9.0, 1.0, "of the budget", "here", "")
    facts = {"target": "mine.py:value", **FACTS}
    assert write_counterexample(tmp_path / "one", candidate, verdict, facts) == []
    assert (tmp_path / "one" / "picture.svg").read_text(encoding="utf-8").count("<svg") == 1
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (note,) = write_counterexample(tmp_path / "two", candidate, verdict, facts)
    assert note.startswith("no picture: drawing needs matplotlib") and not (tmp_path / "two" / "picture.svg").exists()
    assert (tmp_path / "two" / "reproduce.py").exists() and (tmp_path / "two" / "example.txt").exists()
