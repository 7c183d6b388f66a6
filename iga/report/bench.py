"""A bench document as blocks: the table of times, ratios, exponents, and what the numbers rest on."""

from typing import Any

from iga.report.document import Block, Items, Paragraph, Table
from iga.report.documents import Baseline, Bench, BenchEnvironment, Interval, Size, Timing

__all__ = ["blocks", "digits"]

# Under this share of their cores, threads are held up by other processes, or by heat.
_BUSY = 0.8
_SIZE = ("N", "H", "P")


def blocks(document: Bench) -> list[Block]:
    """The table, what failed, ratios, then exponents, noise, the machine's limit, and what was left out."""
    environment = document["environment"]
    heads = ("implementation", "direction", *_SIZE, "median ms", "95 %", "M pair-points/s", "peak MB", "of limit")
    title = f"{environment['device']}, {environment['threads']} threads, seed {environment['seed']}"
    made: list[Block] = [Table(heads, tuple(_cells(row) for row in document["rows"]), words=(0, 1), title=title)]
    for row in document["rows"]:
        if row["median_ms"] is None:
            error = "not finite" if row["error"] is None else f"{row['error']:.1e}"
            words = f"FAILED {row['implementation']} P={row['points']}: error {error}, budget {row['error_budget']:.1e}"
            made.append(Paragraph(words))
    if document["ratios"]:
        ratios = tuple(
            (one["of"], one["to"], *_size(one), f"{digits(one['median'])}×", _range(one["interval"]))
            for one in document["ratios"]
        )
        heads = ("of", "to", "direction", *_SIZE, "median", "95 %")
        made.append(Table(heads, ratios, words=(0, 1, 2), title="times as long as"))
    made.append(Items((*_exponents(document), _noise(document), _limit(environment), *_left_out(environment))))
    if document["baseline"] is not None:
        made.append(Items(tuple(_changes(document["baseline"]))))
    return made


def digits(x: float) -> str:
    """Three significant digits, no exponent."""
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}"


def _words(direction: str) -> str:
    return direction.replace("_", " + ")


def _range(interval: Interval) -> str:
    return f"{digits(interval[0])} – {digits(interval[1])}"


def _size(one: Size) -> list[str]:
    return [_words(one["direction"]), str(one["residues"]), str(one["heads"]), str(one["points"])]


def _cells(row: Timing) -> tuple[str, ...]:
    median, interval, rate = row["median_ms"], row["interval_ms"], row["mpairpoints_per_s"]
    cells = [row["implementation"], *_size(row)]
    if median is None or interval is None or rate is None:
        return (*cells, "FAILED", "–", "–", "–", "–")
    peak, share = row["peak_mb"], row["share_of_limit"]
    return (
        *(*cells, digits(median), _range(interval), digits(rate)),
        "–" if peak is None else digits(peak),
        "–" if share is None else f"{100 * share:.2g} %",
    )


def _exponents(document: Bench) -> list[str]:
    """Of every implementation and direction the fit at the largest fixed size; the file has them all."""
    made = []
    for along, letter, fixed, other in (("points", "P", "residues", "N"), ("residues", "N", "points", "P")):
        largest: dict[tuple[object, ...], Any] = {}
        fits: list[Any] = document["exponents"][along]
        for one in fits:
            key = (one["implementation"], one["direction"], one["heads"])
            largest[key] = max(largest.get(key, one), one, key=lambda fit: fit[fixed])
        for one in largest.values():
            interval = one["interval"]
            shown = "" if interval is None else f" ({interval[0]:.2f} – {interval[1]:.2f})"
            made.append(
                f"time ∝ {letter}^{one['exponent']:.2f}{shown}: {one['implementation']}, {_words(one['direction'])}, "
                f"{other} = {one[fixed]}, {letter} = {', '.join(map(str, one['over']))}"
            )
    return made


def _noise(document: Bench) -> str:
    noise = document["noise"]
    low, high = noise["interval"]
    return (
        f"A/A: {noise['implementation']} against itself (N = {noise['residues']}, P = {noise['points']}): ratio "
        f"{noise['ratio']:.3f}, 95 % in {low:.3f} – {high:.3f}; one sample is off its median by "
        f"{100 * noise['deviation']:.1f} % (median)"
    )


def _limit(environment: BenchEnvironment) -> str:
    limit, need = environment["limit"], environment["operations_per_pairpoint"]
    if limit is None:
        return "machine's limit: not measured (numba is not installed)"
    line = (
        f"machine's limit: {limit['goperations_per_s']:.0f}·10⁹ operations a second ({limit['how']}); assumed a "
        f"pair-point: {need['forward']:.0f} forward, {need['forward_backward']:.0f} forward + backward"
    )
    if limit["scaling"] >= _BUSY:
        return line
    return (
        f"{line}; THE MACHINE IS BUSY: {environment['threads']} threads together reached {100 * limit['scaling']:.0f} "
        "% of as many times what one reached. Threads that wait for each other make these times useless"
    )


def _left_out(environment: BenchEnvironment) -> list[str]:
    """Who is absent, and which cases were not run, one line a reason."""
    made = [f"left out: {name}: {reason}" for name, reason in environment["absent"].items()]
    grouped: dict[tuple[str, str], list[str]] = {}
    for one in environment["left_out"]:
        size = f"N={one['residues']} P={one['points']} {_words(one['direction'])}"
        grouped.setdefault((one["implementation"], one["reason"]), []).append(size)
    for (name, reason), sizes in grouped.items():
        shown = "; ".join(sizes) if len(sizes) <= 3 else f"{sizes[0]} … {sizes[-1]} ({len(sizes)} cases)"
        made.append(f"left out: {name}: {reason}: {shown}")
    return made


def _changes(baseline: Baseline) -> list[str]:
    allowed = baseline["max_ratio"]
    if not baseline["changes"]:
        return ["baseline: no case was timed then and now"]
    return [
        f"baseline: {one['implementation']}, {_words(one['direction'])}, "
        f"N={one['residues']} H={one['heads']} P={one['points']}: {one['ratio']:.2f}× the time relative to dense: "
        + ("ok" if one["ratio"] <= allowed else f"SLOWER than {allowed:g} allows")
        for one in baseline["changes"]
    ]
