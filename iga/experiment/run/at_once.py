"""The runs of a comparison side by side, each waited for by a thread of this process."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed

__all__ = ["at_once"]


def at_once(names: Iterable[str], jobs: int, one: Callable[[str], str], stop: Callable[[], None]) -> dict[str, str]:
    """Name → what `one` answers, `jobs` of them at a time, begun in their order.

    stop  called where one of them raises, or the command is interrupted: it ends those in progress, and `one` begins no
          other from then on. What was raised is raised again once all have ended.
    """
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(one, name): name for name in names}
        try:
            return {futures[done]: done.result() for done in as_completed(futures)}
        except BaseException:  # an interrupt too: no run may outlive the command
            stop()
            raise
