"""Kernels prove themselves before they are trusted: wrong ones are refused, right ones remembered, modes left out."""

import logging
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.process import run_script
from iga import Frame, InvariantGaussianAttention, preset
from iga.kernels import choose, proof, trust, verdicts
from iga.kernels.cpu import engine
from iga.kernels.proof import CPU_FORMS, disagreement
from iga.rotation import random

CPU, CLOSED, SINGLE = torch.device("cpu"), preset("bounded"), torch.float32


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """As in a process that has proved nothing, on a machine that remembers nothing."""
    monkeypatch.setattr(trust, "_verdicts", {})
    monkeypatch.setattr(trust, "_said", set())
    monkeypatch.setattr(verdicts, "folders", lambda: [tmp_path / "proofs"])
    before = logging.getLogger("iga").level
    caplog.set_level(logging.WARNING, logger="iga")
    yield
    logging.getLogger("iga").setLevel(before)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    said = [record.getMessage() for record in caplog.records if record.name == "iga"]
    return [message for message in said if "compiling the CPU kernels" not in message]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A list that grows by `gradients` with every problem that is computed for a proof."""
    asked: list[bool] = []

    def counting(*args: Any, gradients: bool) -> str:
        asked.append(gradients)
        return disagreement(*args, gradients=gradients)

    monkeypatch.setattr(proof, "disagreement", counting)
    return asked


def a_call(dtype: torch.dtype = SINGLE, implementation: str = "auto") -> tuple[InvariantGaussianAttention, Any]:
    layer = InvariantGaussianAttention(8, 4, 4, 2, 3, 2, implementation=implementation).to(dtype)
    torch.nn.init.normal_(layer.linear_out.weight)
    frame = Frame(random(5, dtype=dtype), torch.randn(5, 3, dtype=dtype))
    return layer, (torch.randn(5, 8, dtype=dtype), torch.randn(5, 5, 4, dtype=dtype), frame, torch.ones(5).bool())


# --- wrong on purpose: a kernel of the CPU engine, changed in memory -------------------------------------------------


def last_key_forgotten(right: Callable, *args: Any) -> None:
    right(*args)
    args[-2][..., -1] = 0.0  # of the scores


def scores_off_by_a_thousandth(right: Callable, *args: Any) -> None:
    right(*args)
    args[-2][...] *= 1.001


def not_numbers(right: Callable, *args: Any) -> None:
    right(*args)
    args[-2][..., -1, -1] = float("nan")  # of a valid pair


def raising(right: Callable, *args: Any) -> None:
    raise RuntimeError("no such\n instruction")


WRONG: dict[str, tuple[Callable, str]] = {
    "the last key is forgotten": (last_key_forgotten, "is off by"),
    "scores off by a thousandth": (scores_off_by_a_thousandth, "is off by"),
    "one score is no number": (not_numbers, "is off by inf"),
    "it raises": (raising, "RuntimeError: no such instruction"),
}


def spoilt(monkeypatch: pytest.MonkeyPatch, kernel: str, wrong: Callable) -> None:
    right = getattr(engine, kernel)
    monkeypatch.setattr(engine, kernel, lambda *args: wrong(right, *args))


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_kernel_is_passed_over_with_one_warning_and_refused_by_name(
    fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wrong, words = WRONG[fault]
    spoilt(monkeypatch, "add_rows", wrong)
    for _ in range(3):
        assert choose("auto", CPU, SINGLE, CLOSED) == "reference"
    (said,) = messages(caplog)
    assert words in said and "cpu kernels are not used, reference is" in said and len(said) < 400
    with pytest.raises(ValueError, match=f"implementation='cpu' cannot run here: .*{words}"):
        choose("cpu", CPU, SINGLE, CLOSED)
    layer, inputs = a_call()
    assert layer(*inputs).isfinite().all()  # by the reference


def test_a_wrong_kernel_is_not_remembered_beyond_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        spoilt(patch, "add_rows", last_key_forgotten)
        assert choose("auto", CPU, SINGLE, CLOSED) == "reference"
    trust._verdicts.clear()
    assert choose("auto", CPU, SINGLE, CLOSED) == "cpu"


def half_of_the_gradient(right: Callable, *args: Any) -> None:
    right(*args)
    args[-1][...] *= 0.5


def test_wrong_gradients_are_replaced_with_one_warning_and_then_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spoilt(monkeypatch, "add_tiles", half_of_the_gradient)
    layer, inputs = a_call(torch.float64)

    def gradient(implementation: str) -> torch.Tensor:
        layer.implementation = implementation
        layer.zero_grad()
        layer(*inputs).square().sum().backward()
        found = [x.grad for x in layer.parameters() if x.grad is not None]
        return torch.cat([x.flatten() for x in found]).clone()

    first = gradient("auto")  # its forward pass ran on the kernels
    # half a gradient is half of it away; two evaluations in float64 agree in nine digits of sixteen by far
    torch.testing.assert_close(first, gradient("reference"), rtol=1e-9, atol=1e-12)
    said = messages(caplog)
    assert len(said) == 1 and "gradients are those of the reference" in said[0] and "the gradient of" in said[0]
    with pytest.raises(ValueError, match="implementation='cpu' cannot run here: the gradient of"):
        gradient("cpu")
    with torch.no_grad():
        layer.implementation = "cpu"
        layer(*inputs)  # values are right


def test_each_row_of_gradients_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt(monkeypatch, "weigh_rows_back", lambda right, *args: (right(*args), args[1].__setitem__((0, 0, -1), 0.0)))
    assert "the gradient of" in disagreement("cpu", CPU, SINGLE, CPU_FORMS[0], gradients=True)


# --- what is remembered -----------------------------------------------------------------------------------------


def test_what_was_proved_is_not_proved_again_in_the_process_nor_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counted(monkeypatch)
    for _ in range(2):
        assert choose("auto", CPU, SINGLE, CLOSED) == "cpu"
    assert asked == [False] * len(CPU_FORMS)  # and no gradient, which nobody asked for
    trust._verdicts.clear()
    assert choose("auto", CPU, SINGLE, CLOSED) == "cpu"
    assert len(asked) == len(CPU_FORMS)
    assert choose("auto", CPU, torch.float64, CLOSED) == "cpu"  # another dtype is another question
    assert len(asked) == 2 * len(CPU_FORMS)


def test_gradients_prove_themselves_at_the_first_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counted(monkeypatch)
    layer, inputs = a_call()
    out = layer(*inputs).square().sum()
    assert not any(asked)
    out.backward()
    assert sum(asked) == len(CPU_FORMS)
    layer(*inputs).square().sum().backward()
    assert sum(asked) == len(CPU_FORMS)


@pytest.mark.parametrize("changed", ["a source", "a version", "the processor"])
def test_what_changed_is_asked_again(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counted(monkeypatch)
    choose("auto", CPU, SINGLE, CLOSED)
    trust._verdicts.clear()
    if changed == "a source":
        monkeypatch.setattr(verdicts, "sources", lambda: "other")
    elif changed == "a version":
        monkeypatch.setattr(trust, "version", lambda package: "0.0")
    else:
        monkeypatch.setattr(trust, "_processor", lambda: ("cp/m", "z80", ""))
    choose("auto", CPU, SINGLE, CLOSED)
    assert len(asked) == 2 * len(CPU_FORMS)


def test_the_digest_of_the_sources_changes_with_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    before = verdicts.sources()
    verdicts.sources.cache_clear()
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + (b"#" if path.name == "_rows.py" else b""))
    try:
        assert verdicts.sources() != before
    finally:
        verdicts.sources.cache_clear()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "a folder"])
def test_a_damaged_file_counts_as_none(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counted(monkeypatch)
    choose("auto", CPU, SINGLE, CLOSED)
    (file,) = verdicts.folders()[0].glob("iga-proof-*")
    data = file.read_bytes()
    if damage == "a folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes({"cut": data[:-9], "flipped": data.replace(b"sources", b"tources"), "empty": b""}[damage])
    trust._verdicts.clear()
    assert choose("auto", CPU, SINGLE, CLOSED) == "cpu"
    assert len(asked) == 2 * len(CPU_FORMS)


def test_a_folder_that_takes_nothing_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(verdicts, "folders", lambda: [tmp_path / "file" / "proofs"])
    assert choose("auto", CPU, SINGLE, CLOSED) == "cpu"
    assert not messages(caplog)


def test_a_lack_of_memory_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "disagreement", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(ValueError, match="could not prove itself now"):
            choose("cpu", CPU, SINGLE, CLOSED)
    assert choose("cpu", CPU, SINGLE, CLOSED) == "cpu"


# --- the caller's modes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["export", "inference", "vmap", "autocast", "device", "float64 default"])
@pytest.mark.usefixtures("without_shape_checks")
def test_the_first_call_may_come_in_any_mode(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counted(monkeypatch)
    layer, inputs = a_call()
    with torch.no_grad():
        layer.implementation = "reference"
        right = layer(*inputs)
        layer.implementation = "auto"
        if mode == "export":
            found = torch.export.export(layer, inputs, strict=False).module()(*inputs)
        elif mode == "inference":
            with torch.inference_mode():
                found = layer(*inputs)
        elif mode == "vmap":
            found = torch.vmap(lambda s: layer(s, *inputs[1:]))(inputs[0][None])[0]
        elif mode == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                choose("auto", CPU, SINGLE, CLOSED)
            found = layer(*inputs)
        elif mode == "device":
            with torch.device("meta"):
                choose("auto", CPU, SINGLE, CLOSED)
            found = layer(*inputs)
        else:
            torch.set_default_dtype(torch.float64)
            try:
                found = layer(*inputs)
            finally:
                torch.set_default_dtype(torch.float32)
    # the mode may decide no number: what is wrong is of order 1, and float32 sums in two orders leave three digits more
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
    assert len(asked) == len(CPU_FORMS) and list(trust._verdicts.values()) == [None]


COMPILED = """
    import os, sys, torch
    from pathlib import Path
    from iga.kernels import proof, trust, verdicts
    from helpers.layers import layer_inputs, small_layer
    verdicts.folders = lambda: [Path(sys.argv[1])]
    torch.set_num_threads(1)  # a fork of a process in which two threads have shared a product hangs in its first one
    asked, right = [], proof.disagreement
    def counting(*args, gradients):
        asked.append(gradients)
        return right(*args, gradients=gradients)
    proof.disagreement = counting
    layer, given = small_layer(), layer_inputs(5, seed=1)
    torch.compile(layer, backend="aot_eager", fullgraph=True)(*given).square().sum().backward()
    assert sorted(asked) == [False] * len(proof.CPU_FORMS) + [True] * len(proof.CPU_FORMS), asked
    assert set(trust._verdicts.values()) == {None}, trust._verdicts
    trust._verdicts.clear()
    pid = os.fork()
    if not pid:  # a child that has never proved anything asks the disk
        layer(*given)
        os._exit(0 if len(asked) == 2 * len(proof.CPU_FORMS) else 1)
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.process
def test_a_compiled_training_step_proves_both_passes_while_it_is_traced(tmp_path: Path) -> None:
    """In one graph, in a process apart: shape checks are in the way of tracers. A fork asks the disk."""
    script = tmp_path / "compiled.py"
    script.write_text(textwrap.dedent(COMPILED))
    ran = run_script(script, str(tmp_path / "proofs"), timeout=400.0)  # a cold compiler, and kernels
    assert ran.returncode == 0, ran.stderr


def test_torch_keeps_its_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    counts: list[int] = []
    try:
        assert choose("auto", CPU, SINGLE, CLOSED) == "cpu"
        after = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
        after.start()
        after.join()
        assert counts == [2] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_threads_wait_for_one_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counted(monkeypatch)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(choose("auto", CPU, SINGLE, CLOSED))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["cpu"] * 4 and len(asked) == len(CPU_FORMS)


def test_where_no_thread_can_be_started_the_kernels_run_and_are_asked_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("can't start")))
        assert choose("auto", CPU, SINGLE, CLOSED) == "cpu"
    assert not trust._verdicts
    assert choose("auto", CPU, SINGLE, CLOSED) == "cpu" and len(trust._verdicts) == 1


def test_shortened_products_are_allowed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        assert choose("auto", CPU, SINGLE, CLOSED) == "cpu"
        spoilt(monkeypatch, "add_rows", last_key_forgotten)
        trust._verdicts.clear()
        monkeypatch.setattr(verdicts, "passed", lambda key: False)
        assert choose("auto", CPU, SINGLE, CLOSED) == "reference"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_triton_kernels_prove_themselves_under_the_interpreter() -> None:
    assert choose("fused", CPU, SINGLE, CLOSED, 2) == "fused"
    assert [asked[0] for asked in trust._verdicts] == ["fused"]


def test_the_branches_are_those_of_the_kernels() -> None:
    from iga.kernels.triton import engine as fused

    assert trust.DOF_MAX == engine.DOF_MAX == fused.DOF_MAX
    assert {trust.branch_of(kind, dof, floor > float("-inf")) for kind, dof, floor in trust.BRANCHES.values()} == set(
        trust.BRANCHES
    )
