"""Folders of campaigns of one target joined into a new one: each stream counted once, all that was found.

A stream that two folders hold is one search: the further of its two records counts, and it has to contain the other.
The new folder is made beside its place and gets its name at the end, so whoever is killed leaves all that was there.
What is joined of one campaign is its folder again, and the campaign goes on there.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from iga._files import write_text
from iga.fuzz.findings import Findings, files_in
from iga.fuzz.folder import SCHEMA
from iga.fuzz.records import Fact, Joined, StreamId, at_rest, file_of, read_folder, waiting_in
from iga.fuzz.result import made_of
from iga.report.documents import Fuzz
from iga.testing.cases_file import read_case

__all__ = ["merge"]


def merge(
    folders: Sequence[Path], out: Path, command: str, *, on_news: Callable[[str], None] = lambda line: None
) -> Fuzz:
    """The joined folder at `out`, and its document.

    Raises ValueError, one line, for folders that do not belong together, what is spoiled, and a place that is taken;
    OSError from the disk. Nothing has changed then. on_news is told of each stream that is given more than once.
    """
    _free(out, folders)
    with ExitStack() as stack:
        for folder in dict.fromkeys(os.path.realpath(one) for one in folders):
            stack.enter_context(at_rest(Path(folder)))
        given = [read_folder(folder) for folder in folders]
        for one in given[1:]:
            _belongs(one, given[0])
        chosen = _streams(given, on_news)
        found = {stream: _found(stream, given) for stream in chosen}
        return _written(out, given[0].facts, chosen, found, command)


def _free(out: Path, folders: Sequence[Path]) -> None:
    if not out.name:
        raise ValueError(f"--out: expected the name of a folder, got {os.fspath(out)!r}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is no folder: name another")
    if out.is_dir() and any(out.iterdir()):
        with at_rest(out):
            raise ValueError(f"{out} is not empty: name a new folder")
    for folder in folders:
        if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(folder)):
            raise ValueError(f"{out} lies in {folder}, which is joined: name another folder")


def _belongs(one: Joined, first: Joined) -> None:
    for name in sorted({*one.facts, *first.facts}):
        if one.facts.get(name) != first.facts.get(name):
            words = f"{name} {one.facts.get(name)!r}, and {first.path} {first.facts.get(name)!r}"
            raise ValueError(f"{one.path} has {words}: only campaigns of one target are joined")


def _streams(given: Sequence[Joined], on_news: Callable[[str], None]) -> dict[StreamId, Fact]:
    """The record of each stream that counts, in order. Raises ValueError for two that search the same, in part."""
    chosen: dict[StreamId, tuple[Fact, Path]] = {}
    drawn: dict[int, tuple[StreamId, Path]] = {}
    for folder in given:
        for stream, record in folder.records.items():
            other, there = drawn.setdefault(stream.draws, (stream, folder.path))
            if other != stream:
                raise ValueError(
                    f"{stream} in {folder.path} and {other} in {there} are the same search: join seeds of one count"
                )
            if stream not in chosen:
                chosen[stream] = record, folder.path
                continue
            known, place = chosen[stream]
            on_news(f"{stream} is in {place} and in {folder.path}: it counts once")
            if _contains(record, known):
                chosen[stream] = record, folder.path
            elif not _contains(known, record):
                raise ValueError(f"{stream} in {folder.path} and in {place}: neither goes on from the other; name one")
    return {stream: chosen[stream][0] for stream in sorted(chosen)}


def _contains(later: Fact, earlier: Fact) -> bool:
    """Whether a record may be what became of another: nothing was counted less."""
    many, few = later["counts"], earlier["counts"]
    rounds = all(many["rounds"].get(name, 0) >= number for name, number in few["rounds"].items())
    return rounds and many["examples"] >= few["examples"] and later["next"] >= earlier["next"]


def _found(stream: StreamId, given: Sequence[Joined]) -> list[tuple[Fact, Path | None]]:
    """The findings of a stream in all folders, each with the folder of its inputs. Raises ValueError for lost ones."""
    found: list[tuple[Fact, Path | None]] = []
    for folder in given:
        for fact in folder.records.get(stream, {"findings": []})["findings"]:
            found.append((fact, _inputs(folder.path, fact) if fact["inputs"] else None))
    return found


def _inputs(folder: Path, fact: Fact) -> Path:
    """Where a finding's case is; of a campaign that was killed as it gave it its place, not there yet."""
    place = folder / "found" / Path(fact["inputs"]).name
    for one in (place, folder / "new"):
        if (one / "case.json").is_file() and read_case(one / "case.json").words["check"] == fact["check"]:
            return one
    raise ValueError(f"{place} does not hold the case of {fact['check']} that a stream of {folder} names")


def _written(
    out: Path,
    facts: Fact,
    records: dict[StreamId, Fact],
    found: dict[StreamId, list[tuple[Fact, Path | None]]],
    command: str,
) -> Fuzz:
    """The folder, and its document."""
    place = Path(os.path.realpath(out))
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".{place.name}.merging")
    lock = _begun(new)
    try:
        findings = Findings(new, named=out)
        several = len({(one.seed, one.count) for one in records}) > 1
        kept: dict[StreamId, Fact] = {}
        for stream, record in records.items():
            own = [findings.add(fact, {} if folder is None else files_in(folder)) for fact, folder in found[stream]]
            own = [fact for number, fact in enumerate(own) if fact not in own[:number]]
            kept[stream] = record | {"findings": own}
            file = new / file_of(stream, several=several)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(kept[stream], ensure_ascii=False) + "\n")
        seeds, counts = sorted({one.seed for one in records}), sorted({one.count for one in records})
        ids = {"seed": seeds if several else seeds[0], "count": counts if several else counts[0]}
        text = json.dumps({"schema": SCHEMA, "facts": facts | ids}, ensure_ascii=False)
        write_text(new / "campaign.json", text + "\n")
        document = _document(facts, seeds, kept, command)
        try:
            new.replace(place)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(out)) from error
        return document
    except BaseException:  # an interrupt too: what was begun goes, and the error goes on
        shutil.rmtree(new, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _begun(new: Path) -> int:
    """The folder that is made, empty but for its lock, which is held: what a killed merge left is taken away."""
    new.mkdir(exist_ok=True)
    lock = os.open(new / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for one in new.iterdir():
            if one.name != "lock":
                shutil.rmtree(one) if one.is_dir() else one.unlink()
    except BlockingIOError:
        os.close(lock)
        raise ValueError(f"{new}: another merge is writing there") from None
    except BaseException:  # an interrupt too: a lock that nobody holds must not stay open
        os.close(lock)
        raise
    return lock


def _document(facts: Fact, seeds: list[int], records: dict[StreamId, Fact], command: str) -> Fuzz:
    findings: list[Any] = []
    for record in records.values():
        findings += [one for one in record["findings"] if one not in findings]
    plain = len(seeds) == 1
    made = made_of(
        list(records.values()),
        command=command,
        target=facts["target"],
        kind=facts.get("kind"),
        seconds=max(record["seconds"] for record in records.values()),
        seed=seeds[0],
        streams=[f"{one.index}/{one.count}" + ("" if plain else f" of seed {one.seed}") for one in records],
        findings=findings,
        doubtful=[one for record in records.values() for one in waiting_in(record)],
    )
    return made if plain else {**made, "seeds": seeds}
