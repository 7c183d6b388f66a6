"""A campaign whose streams are tasks of a Ray cluster, each a campaign of one stream with a folder of its own.

What a task has counted and found comes back over a queue, a stream's record whole each time, and is kept in the
folder here before anything else. A task whose worker dies begins again from the record that came last: the rounds after
it draw the same once more, and only what is in a record counts. Streams know nothing of one another, so that they find
what `--shard` finds on as many machines.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from iga._files import write_folder
from iga._ray_cluster import reason
from iga.fuzz.campaign import ENDS, SHRINK, Campaign, Plan, _Stream, folder_facts
from iga.fuzz.findings import Findings, files_in
from iga.fuzz.folder import Folder
from iga.fuzz.messages import LOADING, Lost
from iga.fuzz.records import Fact, flaw_of, waiting_in

__all__ = ["RayCampaign", "searched"]

OFTEN = 2.0  # seconds between two records of a stream that found nothing
START = 60.0  # seconds for a worker to start and load this package
TIDY = 2.0  # seconds for tasks that are interrupted to end
POLL = 0.2  # seconds that the queue is waited for

Files = dict[str, bytes]


class _Told(Folder):
    """The folder of a task: what is saved there is told too, with the files of what was found since."""

    def __init__(self, path: Path, plan: Plan, known: set[str]) -> None:
        super().__init__(path, folder_facts(plan))
        self.known = known  # findings whose files are there already
        self.tell: Callable[[Fact, dict[str, Files]], None] = lambda record, files: None
        self._last, self._said = 0.0, ""

    def save(self, index: int, count: int, record: Fact) -> None:
        super().save(index, count, record)
        news = json.dumps([record[name] for name in ("found", "findings", "waiting")])
        if news != self._said or time.monotonic() - self._last > OFTEN:
            self.tell(record, self.fresh_files(record))
            self._last, self._said = time.monotonic(), news

    def fresh_files(self, record: Fact) -> dict[str, Files]:
        """name → files of each finding that was not known; the last may not have its place yet."""
        names = {Path(one["inputs"]).name for one in record["findings"] if one["inputs"]} - self.known
        places = {name: self.path / "found" / name for name in names}
        found = {name: files_in(at if at.exists() else self.path / "new") for name, at in places.items()}
        self.known |= names
        return found


def searched(
    plan: Plan, record: str, found: Mapping[str, Files], attempt: int, queue: Any, folder: str, scratch: str | None
) -> dict[str, Any]:
    """The task: one stream, from a record on ("": it is new) that names these findings, for the rest of its time.

    queue   takes what it came to on the way: (stream, attempt, report)
    folder  where the command was given, which TARGET may be relative to
    scratch where its own folder is made; None: where this machine has such
    Its answer is the last report, or {"misuse": a line} where the target cannot be searched.
    """
    with suppress(OSError):  # another machine need not have it: an absolute place is found all the same
        os.chdir(folder)
    index = plan.streams[0]
    with (
        tempfile.TemporaryDirectory(prefix="iga-fuzz-", dir=scratch) as place,
        closing(_Told(Path(place), plan, set(found))) as own,
    ):
        (own.path / "found").mkdir()
        for name, files in found.items():
            write_folder(own.path / "found" / name, files)
        if record:
            known = json.loads(record)
            findings = [_placed(one, own.path) for one in known["findings"]]
            own.save(index, plan.count, known | {"findings": findings})
        campaign = Campaign(plan, own)

        def report(now: Fact, files: dict[str, Files]) -> dict[str, Any]:
            doubtful = [one for one in campaign.doubtful if one["verdict"] != "not judged"]
            return {"record": json.dumps(now), "files": files, "doubtful": doubtful, "facts": campaign.facts}

        own.tell = lambda now, files: queue.put((index, attempt, report(now, files)))
        try:
            campaign.run()
        except Lost as error:
            return {"misuse": str(error)}
        last = campaign.streams[0].record
        return report(last, own.fresh_files(last))


def _placed(fact: Fact, folder: Path) -> Fact:
    """A finding whose inputs lie in another folder now."""
    return fact if not fact["inputs"] else fact | {"inputs": str(folder / "found" / Path(fact["inputs"]).name)}


@dataclass
class _Task:
    """A stream as it is searched elsewhere. ends: workers that died since it last reported."""

    stream: _Stream
    ref: Any = None
    attempt: int = 0
    ends: int = 0
    names: dict[str, str] = field(default_factory=dict)  # a finding's name there → the path of its inputs here
    earlier: list[Fact] = field(default_factory=list)  # what former attempts doubted
    doubtful: list[Fact] = field(default_factory=list)
    over: bool = False


@dataclass
class RayCampaign(Campaign):
    """A campaign on a cluster.

    scratch  a folder of the cluster that is started here, which ends with it
    lacking  what was not searched, and why
    on_loss  called with a line when a worker has died
    """

    ray: Any = None
    cores: int = 1
    scratch: str | None = None
    lacking: list[str] = field(default_factory=list)
    on_loss: Callable[[str], None] = lambda line: None

    def run(self) -> None:
        """Until time, examples or checks are out. Raises Lost where the target, or a worker, does not load."""
        self.started = time.monotonic()
        self.streams = [_Stream(index, self._record(index)) for index in self.plan.streams]
        self.before = max(one.record["seconds"] for one in self.streams)
        for one in self.findings:  # of a campaign that was killed as it wrote one
            if one["inputs"]:
                self.folder.settle(Path(one["inputs"]))
        self._kept = Findings(self.folder.path)
        for one in self.findings:
            self._kept.know(one)
        self._tasks = {one.index: _Task(one) for one in self.streams}
        left = self.plan.seconds - min(one.record["seconds"] for one in self.streams)
        last = self.started + max(left, 0.0) + self.plan.limit + LOADING + SHRINK + START
        self._open()
        try:
            while not all(one.over for one in self._tasks.values()) and time.monotonic() < last:
                self._hear()
                self._look()
                self.on_tick(self)
        finally:
            self._close()
            self._say_what_is_left()

    # tasks

    def _open(self) -> None:
        """A queue, and a task for each stream that is not over."""
        from ray.util.queue import Queue  # pyright: ignore[reportMissingImports] - an extra

        self._queue: Any = Queue(actor_options={"num_cpus": 0})
        # all streams side by side: if there are more than cores, several share one
        share = 1.0 / -(-len(self._tasks) // self.cores)
        self._remote = self.ray.remote(num_cpus=share, max_retries=0)(searched)
        for task in self._tasks.values():
            if not task.over:
                self._begin(task)

    def _begin(self, task: _Task) -> None:
        record = task.stream.record
        paths = [Path(one["inputs"]) for one in record["findings"] if one["inputs"]]
        found = {path.name: files_in(path) for path in paths if (path / "case.json").exists()}
        task.names = {path.name: str(path) for path in paths}
        share = self.plan.examples / len(self.plan.streams)
        plan = replace(self.plan, streams=(task.stream.index,), examples=share)
        task.attempt += 1
        task.earlier, task.doubtful = task.earlier + task.doubtful, []
        text = "" if record["state"] is None and not record["next"] and not record["findings"] else json.dumps(record)
        places = os.getcwd(), self.scratch
        task.ref = self._remote.remote(plan, text, found, task.attempt, self._queue, *places)

    def _hear(self) -> None:
        """What the tasks have reported; for a moment, if nothing has."""
        from ray.util.queue import Empty  # pyright: ignore[reportMissingImports] - an extra

        wait: float | None = POLL
        with suppress(Empty, self.ray.exceptions.RayError):  # a queue whose machine is gone is seen by its tasks
            while True:
                index, attempt, report = self._queue.get(block=wait is not None, timeout=wait)
                task, wait = self._tasks[index], None
                if attempt == task.attempt and not task.over:
                    self._take(task, report)

    def _look(self) -> None:
        """Tasks that ended: done, or begun again where their worker died."""
        running = {one.ref: one for one in self._tasks.values() if one.ref is not None}
        if not running:
            return
        ended, _ = self.ray.wait(list(running), num_returns=len(running), timeout=0)
        for ref in ended:
            task = running[ref]
            task.ref = None
            try:
                report = self.ray.get(ref)
            except self.ray.exceptions.RayError as error:
                self._died(task, error)
                continue
            if "misuse" in report:
                raise Lost(report["misuse"])
            self._take(task, report)
            task.over = True

    def _died(self, task: _Task, error: BaseException) -> None:
        task.ends += 1
        words = reason(error)
        name = f"stream {task.stream.index}/{self.plan.count}"
        if task.ends < ENDS:
            self.on_loss(f"{name}: its worker died ({words}); it goes on from its last record")
            if not self._alive():
                self._close()
                self._open()
            else:
                self._begin(task)
            return
        task.over = task.stream.given_up = True
        self.lacking.append(f"{name} was given up: {ENDS} workers died one after another ({words})")
        if all(one.stream.given_up for one in self._tasks.values()):
            raise Lost(self.lacking[0])

    def _alive(self) -> bool:
        """Whether the queue is there still: it dies with the machine that it is on."""
        try:
            self.ray.get(self._queue.actor.qsize.remote(), timeout=START)
            return True
        except self.ray.exceptions.RayError:
            return False

    # reports

    def _take(self, task: _Task, report: Fact) -> None:
        """A report kept: the files of what is new in it first, then the record that names them."""
        record: Any = json.loads(report["record"])
        wrong = flaw_of(record)
        if wrong is not None:
            raise Lost(f"stream {task.stream.index}/{self.plan.count}: its worker has another version of iga: {wrong}")
        findings: list[Fact] = []
        for fact in record["findings"]:
            own = self._finding_here(task, fact, report["files"])
            findings += [own] if own not in findings else []
        task.ends, task.doubtful = 0, report["doubtful"]
        self.facts = self.facts or report["facts"]
        task.stream.record = record | {"findings": findings}
        self._save(task.stream)
        known = [one["inputs"] or one["where"] for one in self.findings]
        self.findings = []
        for stream in self.streams:
            self.findings += [one for one in stream.record["findings"] if one not in self.findings]
        self.doubtful = [fact for one in self._tasks.values() for fact in one.earlier + one.doubtful]
        for one in self.findings:
            if (one["inputs"] or one["where"]) not in known:
                self.on_news(f"{one['check']}: {one['verdict']} after {one['seconds']:.1f} s: {one['where']}")

    def _finding_here(self, task: _Task, fact: Fact, files: dict[str, Files]) -> Fact:
        name = Path(fact["inputs"]).name if fact["inputs"] else ""
        if name in task.names:
            return self._kept.know(fact | {"inputs": task.names[name]})
        own = self._kept.add(fact, files.get(name, {}))
        if name:
            task.names[name] = own["inputs"]
        return own

    def _close(self) -> None:
        """No task goes on."""
        if self.scratch is not None:  # the cluster ends with the command
            return
        left = [one.ref for one in self._tasks.values() if one.ref is not None]
        with suppress(Exception):  # it ends with the connection in any case
            for force in (False, True):  # interrupted, a task tidies up
                for ref in left:
                    self.ray.cancel(ref, force=force)
                left = self.ray.wait(left, num_returns=len(left), timeout=TIDY)[1] if left else []
            self._queue.shutdown(force=True)

    def _say_what_is_left(self) -> None:
        """What waits to be judged, and the streams of which nothing came."""
        for task in self._tasks.values():
            self.doubtful += waiting_in(task.stream.record)
            if not task.over and not task.stream.record["counts"]["rounds"]:
                self.lacking.append(f"stream {task.stream.index}/{self.plan.count} was not searched: it ended before")
