"""The state of the process around a call: every change is named and put back, and nothing else is."""

import gc
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import iga
from iga.testing.checks import checks_of
from iga.testing.faults import FAULTS
from iga.testing.faults.matrix import examine
from iga.testing.state.facets import FACETS
from iga.testing.state.watch import Watch, left_alone, silent, unchanged, watching
from iga.testing.targets import load_target

ACTS: dict[str, Callable[[], object]] = {
    "torch's default dtype from torch.float32 to torch.float64": lambda: torch.set_default_dtype(torch.float64),
    "torch's default device from None to meta": lambda: torch.set_default_device("meta"),
    "gradient mode from True to False": lambda: torch.set_grad_enabled(False),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(False),  # the suite has them on
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "autocast": lambda: torch.set_autocast_enabled("cpu", True),
    "float32 matmul precision from highest to medium": lambda: torch.set_float32_matmul_precision("medium"),
    "the number of torch's threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "denormals to be flushed from False to True": lambda: torch.set_flush_denormal(True),
    "replaced torch.softmax": lambda: setattr(torch, "softmax", torch.nn.functional.softmax),
    "drew from torch's": lambda: torch.rand(()),
    "torch's global generator, or seeded it": lambda: torch.manual_seed(11),
    "drew from Python's": random.random,
    "Python's global generator, or seeded it": lambda: random.seed(11),
    "drew from NumPy's": np.random.rand,
    "NumPy's global generator, or seeded it": lambda: np.random.seed(11),
    "NumPy's errors": lambda: np.seterr(all="raise"),
    "the working folder": lambda: os.chdir("/"),
    "environment: IGA_TEST": lambda: os.environ.update(IGA_TEST="1"),
    "filters of warnings": lambda: warnings.simplefilter("ignore"),
    "replaced sys.stdout": lambda: setattr(sys, "stdout", None),
    "handler of SIGINT": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    "the recursion limit": lambda: sys.setrecursionlimit(54321),
    "changed sys.path": lambda: sys.path.insert(0, "/nowhere"),
    "traces or profiles": lambda: sys.setprofile(lambda *event: None),
    "thread switches": lambda: sys.setswitchinterval(0.5),
    "the locale from": lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"),
    "logging.disable from 0 to 50": lambda: logging.disable(logging.CRITICAL),
    "the garbage collector": gc.disable,
    "a standard stream's descriptor": lambda: os.close(0),
}


@pytest.mark.parametrize("words", ACTS)
def test_a_change_is_named_and_put_back(words: str) -> None:
    watch, before = Watch(), [facet.read() for facet in FACETS]
    with watching(watch), left_alone("a check", whole=True):
        with left_alone("nothing"):
            torch.zeros(3).sum()
        with left_alone("a call"):
            ACTS[words]()
    ((said, (count, where)),) = watch.changes.items()
    assert words in said and count == 1 and watch.calls == 2
    assert where == ("a check" if "descriptor" in words else "a call")
    assert [facet.read() for facet in FACETS] == before


def test_what_a_package_sets_when_it_is_imported_is_no_change_and_a_draw_while_building_is_none() -> None:
    watch = Watch()
    with watching(watch):
        with left_alone("the first call"):
            sys.modules["iga_not_there"] = sys  # what an import does
            warnings.simplefilter("ignore")
            os.environ["NUMBA_OF_A_PACKAGE"] = "1"
        with left_alone("building it", draws=True):
            torch.rand(())
        del sys.modules["iga_not_there"], os.environ["NUMBA_OF_A_PACKAGE"]
    assert watch.changes == {}


def test_calls_of_two_threads_at_once_are_not_blamed_for_each_other() -> None:
    watch, begun, done = Watch(), threading.Event(), threading.Event()

    def other() -> None:
        with left_alone("the other"):
            np.seterr(all="raise")
            begun.set()
            done.wait(5)
            np.seterr(all="warn", under="ignore")

    with watching(watch):
        thread = threading.Thread(target=other)
        with left_alone("this one"):
            thread.start()
            begun.wait(5)
        done.set()
        thread.join()
    assert watch.changes == {}


def test_modes_that_importing_a_file_sets_are_put_back_and_reach_the_report(tmp_path: Path) -> None:
    path = tmp_path / "wide.py"
    text = "import torch, iga\ntorch.set_default_dtype(torch.float64)\ntorch.manual_seed(3)\nf = iga.gaussian_overlap\n"
    path.write_text(text, encoding="utf-8")
    target = load_target(f"{path}:f", kind="overlap")
    assert target.changed == ("it set torch's default dtype from torch.float32 to torch.float64",)
    assert torch.get_default_dtype() == torch.float32
    found: list[str] = []
    with unchanged(found):
        pass
    assert found == []
    report = iga.verify(target, only=["process_state"])
    assert report.exit_code == 1 and "when it was loaded" in report["process_state"].worst_example


def test_a_call_that_forks_is_broken_and_its_child_ends_there() -> None:
    def forking(*pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if torch.is_grad_enabled() and not forked:
            forked.append(os.fork())
        return iga.gaussian_overlap(*pair)

    forked: list[int] = []
    report = iga.verify(forking, kind="overlap", only=["process_state"])
    assert "forked the process" in report["process_state"].worst_example
    assert os.waitstatus_to_exitcode(os.waitpid(forked[0], 0)[1]) == 0


def test_what_prints_at_its_first_call_alone_is_silent_and_what_prints_at_every_call_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    watch = Watch()
    with watching(watch), silent("a call"):
        pass
    assert not watch.changes
    with watching(watch), silent("a call"):
        print("a line")
    assert list(watch.changes) == ["it printed to standard output, and not at its first call alone"]
    assert capsys.readouterr().out == "a line\n"  # it is not lost


def test_a_thread_that_only_its_own_calls_start_is_seen_before_the_check_is_judged() -> None:
    (fault,) = (one for one in FAULTS["overlap"] if one.name == "a thread is left running")
    assert examine(fault, "overlap", [checks_of("overlap")["process_state"]]).caught_by == ("process_state",)
