"""Comparison of two documents of one command: `python tools/compare_results.py OLD NEW`.

Times, memory, versions and whatever else is the machine's or the day's are left out; the rest must be equal, row by row
and number by number. Exit code 0: they agree; 1: they differ, one line a difference; 2: misuse.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iga.report.schema import read

__all__ = ["differences", "main"]

# What was typed (names of files are in it), the day, the machine and what is installed, what a clock or an allocator
# said.
_LEFT_OUT = {"command", "date", "seconds", "seconds_a_step", "peak_mb"}
_LEFT_OUT |= {"iga", "python", "torch", "numpy", "gemmi", "platform", "device", "threads"}
# Of one document: what comes of its times, and the words for its implementations, which older files lack.
_OF_ONE = {
    "bench": {"absent", "commit", "cores", "cpu", "deviation", "exponent", "implementations", "interval", "interval_ms"}
    | {"left_out", "limit", "median", "mpairpoints_per_s", "ratio", "repeats", "share_of_limit", "versions"},
}
# What names a row, of which only a part is there in any one document.
_NAMES = ("bench", "name", "path", "implementation", "of", "to", "direction", "residues", "heads", "points")
_NAMES += ("arm", "seed", "step", "target", "invariant")


def differences(old: Any, new: Any) -> Iterator[str]:
    """One line a difference of two documents."""
    kinds = old["document"], new["document"]
    if kinds[0] != kinds[1]:
        yield f"document: {kinds[0]} → {kinds[1]}"
        return
    yield from _differ(old, new, "", _LEFT_OUT | _OF_ONE.get(kinds[0], set()))


def _differ(old: Any, new: Any, where: str, left_out: set[str]) -> Iterator[str]:
    if isinstance(old, list) and isinstance(new, list):
        if all(isinstance(one, str) for one in [*old, *new]) and set(old) != set(new):
            gone, come = ([one for one in a if one not in b] for a, b in ((old, new), (new, old)))
            yield f"{where}: {', '.join([*(f'−{one}' for one in gone), *(f'+{one}' for one in come)])}"
            return
        old, new = _by_name(old), _by_name(new)
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            if key in left_out:
                continue
            place = f"{where}.{key}" if where else str(key)
            if key not in new or key not in old:
                yield f"{place}: only in the {'new' if key in new else 'old'} one"
            elif key == "median_ms":  # null where it failed its gate
                if (old[key] is None) != (new[key] is None):
                    yield f"{place}: timed in the {'new' if old[key] is None else 'old'} one only"
            else:
                yield from _differ(old[key], new[key], place, left_out)
    elif old != new or type(old) is not type(new):
        yield f"{where}: {old!r} → {new!r}"


def _by_name(rows: list[Any]) -> dict[Any, Any]:
    """The rows under their names, so that one more or less does not shift all others; else under their numbers."""
    names = [
        " ".join(str(row[name]) for name in _NAMES if name in row) if isinstance(row, dict) else "" for row in rows
    ]
    if all(names) and len(set(names)) == len(names):
        return {f"[{name}]": row for name, row in zip(names, rows, strict=True)}
    return {f"[{number}]": row for number, row in enumerate(rows)}


def main(arguments: list[str]) -> int:
    """The exit code; what differs goes to standard output."""
    if len(arguments) != 2:
        print("usage: python tools/compare_results.py OLD NEW", file=sys.stderr)
        return 2
    try:
        old, new = (read(Path(name)) for name in arguments)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    found = [*differences(old, new)]
    print("\n".join(found or [f"two {old['document']} documents that agree"]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
