"""A counterexample's script: torch and the function alone, wrong beside right, 1 while it is wrong, then 0."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iga.fuzz import standalone
from iga.fuzz.counterexample import write_counterexample
from iga.fuzz.overlap import OverlapStream
from iga.fuzz.stream import Candidate, Judgement
from iga.testing.cases_file import read_case
from iga.testing.checks import checks_of
from iga.testing.judges.overlap import overlap_reference
from iga.testing.judges.rigorous import enclosure
from iga.testing.latest import Call
from iga.testing.overlap.gradients import derivatives
from iga.testing.overlap.subject import ARGUMENTS, OverlapSubject

# A right form that needs torch alone, and wrong ones.
MINE = """
import torch

def right(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma):
    half = [r * s[..., None, :] for r, s in ((q_rot.double(), q_sigma.double()), (k_rot.double(), k_sigma.double()))]
    total = sum(x @ x.mT for x in half)
    delta = (q_mean.double() - k_mean.double())[..., None]
    y = torch.linalg.solve(total, delta)
    return (delta * y).sum((-2, -1)).to(q_mean.dtype), torch.linalg.slogdet(total)[1].to(q_mean.dtype)

def value(*pair):
    dist_sq, log_det = right(*pair)
    return torch.where(pair[2][..., 0] > 1, 1.5 * dist_sq, dist_sq), log_det

def gradient(*pair):
    dist_sq, log_det = right(*pair)
    return dist_sq.detach() + 0.5 * (dist_sq - dist_sq.detach()), log_det

def tail(*pair):
    dist_sq, log_det = right(*pair)
    return (dist_sq, torch.cat([log_det[:-1], log_det[-1:] * 0])) if len(dist_sq) > 3 else (dist_sq, log_det)
"""


def _pair() -> list[torch.Tensor]:
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    eye, zero = torch.eye(3), torch.zeros(3)
    return [
        turn,
        torch.tensor([1.0, 2.0, -0.5]),
        torch.tensor([2.0, 0.5, 0.1]),
        eye,
        zero,
        torch.tensor([1.0, 0.25, 3.0]),
    ]


def _written(folder: Path, place: str, check: str, inputs: list[torch.Tensor]) -> Path:
    candidate = Candidate(
        check, Call("overlap", dict(zip(ARGUMENTS, inputs, strict=True))), 9.0, "here", "", "sampling"
    )
    verdict = Judgement("broken", 9.0, 1.0, "of the budget", "here", "")
    write_counterexample(
        folder / "found", candidate, verdict, {"target": place, "seed": 0, "sigma_range": (0.03, 150.0)}
    )
    return folder / "found" / "reproduce.py"


def _run(script: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Where `import iga` fails, as in an environment that does not have it."""
    blocker = folder / "blocked" / "iga"
    blocker.mkdir(parents=True, exist_ok=True)
    (blocker / "__init__.py").write_text("raise ImportError('no iga here')\n", encoding="utf-8")
    words = [sys.executable, str(script), *arguments]
    env = {**os.environ, "PYTHONPATH": str(blocker.parent)}
    return subprocess.run(words, capture_output=True, text=True, env=env, cwd=folder, timeout=120, check=False)


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "check", "line"),
    [
        ("value", "accuracy", "dist_sq"),
        ("gradient", "gradient_values", "dist_sq by mean"),
        ("tail", "accuracy", "log_det"),
    ],
)
def test_the_script_says_wrong_beside_right_and_right_once_it_is(
    name: str, check: str, line: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    inputs = [x.expand(4, *x.shape).clone() for x in _pair()] if name == "tail" else _pair()
    script = _written(tmp_path, f"mine.py:{name}", check, inputs)
    wrong = _run(script, tmp_path)
    assert wrong.returncode == 1 and "WRONG" in wrong.stdout, wrong.stdout + wrong.stderr
    assert any(line in one and one.endswith("<- wrong") for one in wrong.stdout.splitlines())
    right = _run(script, tmp_path, "mine.py:right")
    assert right.returncode == 0 and "wrong" not in right.stdout, right.stdout + right.stderr
    if name == "value":
        assert "give the function's place" in _run(script, tmp_path, "gone.py:right").stderr
    assert read_case(tmp_path / "found" / "case.json").words["target"] == f"mine.py:{name}"


def test_the_script_s_fractions_are_what_balls_and_autograd_say() -> None:
    pair = [x.double() for x in _pair()]
    dist_sq, log_det, slopes = standalone.exact(tuple(tuple(x.flatten().tolist()) for x in pair))
    balls = enclosure(pair)
    assert abs(float(dist_sq) - float(balls.dist_sq.mid())) < 1e-15 * float(dist_sq)
    assert abs(float(log_det) - float(balls.log_det.mid())) < 1e-14
    batch = tuple(x[None] for x in pair)
    *_, expected = derivatives(OverlapSubject("reference", overlap_reference), batch)  # pyright: ignore[reportArgumentType]
    for name, values in expected.items():
        assert torch.allclose(
            values[0], torch.tensor([float(x) for x in slopes[name]], dtype=torch.float64), rtol=1e-9, atol=1e-9
        )


def test_the_script_reads_a_pair_as_the_check_does(tmp_path: Path) -> None:
    """The derivatives that a script takes of a function are those that the check judges."""
    subject = OverlapSubject("reference", overlap_reference)
    batch = [x.double()[None] for x in _pair()]
    found = standalone.said(overlap_reference, batch, gradients=True, autocast=False)
    *_, expected = derivatives(subject, tuple(batch))  # pyright: ignore[reportArgumentType]
    assert all(torch.allclose(found[name], expected[name]) for name in expected)


def test_what_is_judged_again_and_holds_is_no_counterexample() -> None:
    stream = OverlapStream(OverlapSubject("reference", overlap_reference), checks=[checks_of("overlap")["accuracy"]])
    call = Call("overlap", dict(zip(ARGUMENTS, _pair(), strict=True)))
    assert stream.judge(Candidate("accuracy", call, 9.0, "", "", "climb")).verdict == "not reproducible"
