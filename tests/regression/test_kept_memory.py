"""Things that outlive a call (scratch memory, pools, the team) serve the next one, whatever was the matter.

Origin: after a validation step under torch.inference_mode(), training failed for ever, since the memory kept for blocks
was an inference tensor. Modes, defaults, threads, dtypes, interrupts and forks are tried here in the same way.
"""

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from torch import Tensor

from helpers.layers import layer_inputs, small_layer
from iga.kernels import blocks
from iga.kernels.cpu import team
from iga.kernels.cpu.engine import CpuEngine


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing kept, and two rows of the layer's inputs a block, so that a call has several."""
    monkeypatch.setattr(blocks, "_kept", threading.local())
    monkeypatch.setitem(blocks.BLOCK, "cpu", 2 * 2 * 3 * 7)


def step(dtype: torch.dtype = torch.float32, implementation: str = "cpu") -> list[Tensor]:
    """The output of a small layer and all its gradients."""
    layer, given = small_layer().to(dtype), layer_inputs(dtype=dtype)
    given.mask[0, 2] = False
    layer.implementation = implementation
    output = layer(*given)
    output.cos().sum().backward()
    return [output.detach(), *(p.grad for p in layer.parameters() if p.grad is not None)]


def same(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return len(found) == len(wanted) and all(map(torch.equal, found, wanted))


@contextmanager
def default_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default dtype float64": default_float64,
    "vmap": nullcontext,
}


@pytest.mark.parametrize("mode", MODES)
def test_training_after_a_call_in_another_mode_gives_the_bits_of_a_fresh_process(mode: str) -> None:
    wanted = step()
    vars(blocks._kept).clear()
    layer, (found, *others) = small_layer(), layer_inputs()
    layer.implementation = "cpu"
    call = (lambda s: layer(s, *others)) if mode != "vmap" else torch.func.vmap(lambda s: layer(s, *others))
    with MODES[mode]():
        call(found if mode != "vmap" else torch.stack([found, found]))
    assert vars(blocks._kept)
    assert same(step(), wanted)


def test_a_default_device_elsewhere_is_no_matter_to_tensors_on_the_cpu() -> None:
    """As torch.set_default_device("cuda") in a script whose layer stays on the CPU."""
    layer, given = small_layer(), layer_inputs()
    layer.implementation = "cpu"
    wanted = step()
    vars(blocks._kept).clear()
    with torch.device("meta"):
        output, _ = layer.with_statistics(*given)
        output.cos().sum().backward()
    assert same(step(), wanted)


def test_dtypes_and_sizes_one_after_another_do_not_disturb_each_other() -> None:
    single, double = step(), step(torch.float64)
    small_layer()(*layer_inputs(23))
    assert same(step(), single) and same(step(torch.float64), double) and same(step(), single)


def test_threads_that_work_at_once_have_memory_of_their_own() -> None:
    wanted, found = step(), []
    workers = [threading.Thread(target=lambda: found.extend(step() for _ in range(2))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 6 and all(same(one, wanted) for one in found)


@pytest.mark.parametrize(
    ("method", "error"),
    [*zip(["weigh", "weigh_back", "sums", "add_gradients"], [MemoryError, KeyboardInterrupt] * 2, strict=True)],
)
def test_a_call_that_ends_half_way_leaves_the_next_one_right(
    method: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, calls = step(), []
    right = getattr(CpuEngine, method)

    def interrupted(self: CpuEngine, *args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise error
        return right(self, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(CpuEngine, method, interrupted)
        step()
    assert len(calls) == 2 and same(step(), wanted)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Also in a job in the background of a script, which a shell starts deaf to interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("runtime", ["torch's team", "a pool"])
def test_no_unit_is_at_work_when_an_interrupt_has_ended_the_call(
    runtime: str, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they write to is scratch memory, which the next call uses."""
    if runtime == "a pool":
        monkeypatch.setattr(team, "_entry_point", lambda: None)
    started, ended, sent = [], [], []
    main = threading.get_ident()

    def unit(k: int) -> None:
        started.append(threading.get_ident())
        # Not at once: an interrupt that comes just before a thread waits is raised when the wait ends.
        if not sent and len(started) > 4 and threading.get_ident() != main:
            sent.append(k)
            signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.02)
        ended.append(k)

    with pytest.raises(KeyboardInterrupt):
        team.run_units(unit, [(k,) for k in range(40)])
    left = list(started)
    time.sleep(0.05)
    assert started == left and len(left) < 40
    assert len(ended) >= len(left) - 1  # this thread's own unit may be the one that the interrupt ended


def test_an_interrupt_that_a_region_swallowed_ends_the_call(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes as the thread enters the region can be raised nowhere, and units may be left undone."""
    monkeypatch.setattr(team, "_entry_point", lambda: lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        team.run_units(lambda k: None, [(k,) for k in range(5)])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.parametrize("runtime", ["torch's team", "a pool"])
def test_a_forked_process_on_one_thread_works(runtime: str, two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a DataLoader's workers are. On several, torch itself waits for the threads that its parent has."""
    if runtime == "a pool":
        monkeypatch.setattr(team, "_entry_point", lambda: None)
    wanted = step()
    receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)

    def work() -> None:
        torch.set_num_threads(1)
        sender.send(same(step(), wanted))

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    answered = receiver.poll(20)
    if not answered:
        child.kill()
    assert answered and receiver.recv()
    child.join()
