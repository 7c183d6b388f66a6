"""Programs and threads that a call leaves behind: named, and told from what ends by itself or is there to stay."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from iga.testing.state.left_running import children, threads_left, words_of_children, words_of_threads
from iga.testing.state.watch import Watch, left_alone, watching

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_program_and_a_thread_that_go_on_are_named(stop: threading.Event) -> None:
    watch = Watch()
    with watching(watch), left_alone("a check", whole=True):
        program = subprocess.Popen(SLEEP)
        threading.Thread(target=stop.wait, name="of the test").start()
    try:
        program_words, thread_words = sorted(watch.changes)
        assert program_words.startswith("it left a program running: ") and "time.sleep(60)" in program_words
        assert thread_words == "it left a thread running: of the test"
    finally:
        program.kill()
        program.wait()


def test_what_has_ended_or_ends_at_once_is_nothing() -> None:
    before, threads = children(), threads_left()
    program = subprocess.Popen([sys.executable, "-c", ""])  # not waited for: it ends as a zombie
    thread = threading.Thread(target=threading.Event().wait, args=(0.05,))
    thread.start()
    thread_words = words_of_threads(threads, threads_left())
    program.wait()
    assert (words_of_children(before, children()), thread_words) == ("", "")


def test_a_pool_that_waits_for_the_next_call_is_there_to_stay() -> None:
    before = threads_left()
    with ThreadPoolExecutor(2) as pool:
        pool.submit(int).result()
        assert words_of_threads(before, threads_left()) == ""
