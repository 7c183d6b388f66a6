"""`iga fuzz`: a search for the inputs that break an overlap function or a layer, where no sample goes."""

import math
import os
import re
import signal
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from iga.cli.terminal import (
    Bars,
    Context,
    Reports,
    check_folder,
    check_names,
    check_outputs,
    console,
    finish,
    misuse,
    say,
)
from iga.fuzz.duration import seconds_of

__all__ = ["fuzz"]

EVERY = 10.0  # seconds between two lines in a log


def fuzz(
    context: Context,
    target: Annotated[
        str, typer.Argument(help="What to search: package.module:attribute or path/to/file.py:attribute.")
    ] = "",
    preset: Annotated[str | None, typer.Option(help="Search this package's own layer, by its preset's name.")] = None,
    implementation: Annotated[
        str | None, typer.Option(help="Which one computes the preset: reference, cpu or auto, which is the default.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="What TARGET is, unless it says so itself: overlap or layer.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this check or relation, or several with commas; repeats.")
    ] = None,
    structures: Annotated[
        list[str] | None,
        typer.Option(
            help="Begin with the residues of this PDB or mmCIF file (.gz or not), folder, or quoted glob; repeats."
        ),
    ] = None,
    max_time: Annotated[str, typer.Option(help="How long to search in all: 90s, 10m, 1h.")] = "10m",
    max_examples: Annotated[int | None, typer.Option(help="How many examples at most, in all.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    workers: Annotated[
        int | None, typer.Option(help="Searches side by side.", show_default="cores, of the cluster with --ray")
    ] = None,
    shard: Annotated[str, typer.Option(help="I/N: the I-th of N parts of the search, for as many machines.")] = "0/1",
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Search on a Ray cluster: auto, HOST:PORT, ray://HOST:PORT, or local."),
    ] = None,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Search on for what a check has broken by.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds in which TARGET must give a sign of life.")] = 120.0,
    replay: Annotated[
        list[Path] | None, typer.Option(help="Judge the cases of this folder again, and search nothing; repeats.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Keep state and counterexamples in this folder, and go on from what is there.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file too.")] = None,
    report: Reports = None,
) -> None:
    """Search for inputs on which an overlap function or an attention layer of yours breaks a check.

    Of an overlap function, pairs of Gaussians: sampling, climbing, and branch distance, which goes to the rarely taken
    sides of the function's own conditions. Of a layer, calls: sizes, batches, masks, memory and geometry, also moved to
    the sides of its conditions, of which relations between two calls and the checks of iga verify are asked. What is
    suspected is judged again from its inputs alone, in a process of its own, and made simple. A check that has been
    broken is searched no more, unless with --keep-going. Ends 0 if nothing was found, 1 if something was or nothing was
    judged, 2 on misuse; Ctrl-C ends with what there is.

    iga fuzz merge DIR... --out DIR joins the folders of several campaigns.
    """
    seconds, target = _duration(max_time), _named(target, preset, implementation)
    part, parts = _shard(shard)
    for name, value in (
        ("--workers", 1 if workers is None else workers),
        ("--max-examples", 1 if max_examples is None else max_examples),
    ):
        if value < 1:
            raise typer.BadParameter(f"must be at least 1, got {value}", param_hint=name)
    if not 0 < timeout < math.inf:
        raise typer.BadParameter(f"must be above 0, got {timeout}", param_hint="--timeout")
    check_outputs(report, json=json)
    check_folder(out=out)
    check_names(structures=structures or [])
    if ray is not None:
        from iga._ray_cluster import check_address

        with misuse():
            check_address(ray)
    from iga.fuzz.campaign import Campaign, Plan, campaign_folder
    from iga.fuzz.result import document
    from iga.report.fuzz import blocks
    from iga.testing.contract import check_seed
    from iga.testing.source import source_of

    with misuse():
        check_seed(seed)
    names = [name for words in only or () for name in words.split(",")]
    options: dict[str, Any] = {"kind": kind, "seed": seed, "only": names or None}
    if structures:
        options["structures"] = structures
    if preset is not None:
        options["implementation"] = implementation or "auto"
    if ray is not None and replay:
        raise typer.BadParameter("is for a search: --replay judges here", param_hint="--ray")
    if replay:
        _replay(target, options, replay, timeout, json, report)
    limit = math.inf if max_examples is None else float(max_examples)
    with ExitStack() as stack, misuse():
        kinds, more, cores = Campaign, {}, os.cpu_count() or 1
        if ray is not None:
            kinds, more, cores = _on_ray(stack, ray, workers)
        count = cores if workers is None else workers
        streams = tuple(range(part * count, (part + 1) * count))
        plan = Plan(target, options, seconds, limit, streams, parts * count, keep_going, timeout)
        place = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iga-fuzz-")))
        folder = stack.enter_context(campaign_folder(place, plan))
        bars = stack.enter_context(Bars())
        tell, interrupt = _telling(bars, seconds), _own_interrupt()

        def on_tick(campaign: Any) -> None:
            interrupt.heed()
            tell(campaign)

        campaign = kinds(plan, folder, on_news=lambda line: say(f"found: {line}"), on_tick=on_tick, **more)
        with suppress(KeyboardInterrupt), interrupt:
            campaign.run()
        if out is None:
            _keep(campaign, folder.path)
        made = document(campaign, context.obj, more.get("lacking", []))
        made["source"] = source_of(target)
    finish(made, blocks(made), json, report)


def _on_ray(stack: ExitStack, address: str, workers: int | None) -> tuple[Any, dict[str, Any], int]:
    """The campaign of a cluster, what it takes beside that of this machine, and the cores that it has."""
    from iga._ray_cluster import cluster, cores_of
    from iga.fuzz.ray_shards import RayCampaign

    connected, scratch = stack.enter_context(cluster(address, workers))
    cores = cores_of(connected)
    more = {
        "ray": connected,
        "cores": cores,
        "scratch": scratch,
        "lacking": [],
        "on_loss": lambda line: say(f"… {line}"),
    }
    return RayCampaign, more, cores


def _named(target: str, preset: str | None, implementation: str | None) -> str:
    """TARGET, or the preset."""
    if (target != "") == (preset is not None):
        raise typer.BadParameter("say what to search: TARGET or --preset NAME", param_hint="TARGET")
    if preset is not None and ":" in preset:
        raise typer.BadParameter(f"expected a preset's name, got {preset!r}", param_hint="--preset")
    if preset is None and ":" not in target:
        raise typer.BadParameter(
            f"expected package.module:attribute or path/to/file.py:attribute, got {target!r}", param_hint="TARGET"
        )
    if preset is None and implementation is not None:
        raise typer.BadParameter("is for a preset", param_hint="--implementation")
    return target if preset is None else preset


def _replay(
    target: str,
    options: dict[str, Any],
    folders: list[Path],
    timeout: float,
    json: Path | None,
    report: list[Path] | None,
) -> None:
    """A line a case; ends 1 if one is still broken or cannot be run, else 0."""
    for name, given in (("--json", json), ("--report", report)):
        if given:
            raise typer.BadParameter("is for a search: --replay prints a line a case", param_hint=name)
    from iga.fuzz.replay import cases_in, replayed
    from iga.report.console import show
    from iga.report.document import Items, Paragraph

    with misuse():
        found = replayed(target, options | {"only": None}, cases_in(folders), timeout)
    show([Items(tuple(_line(one) for one in found)), Paragraph(_counted(found))], console())
    raise typer.Exit(int(any(one["verdict"] != "fixed" for one in found)))


def _line(one: dict[str, Any]) -> str:
    return f"{one['verdict']}: {one['inputs']}" + "".join(f": {one[key]}" for key in ("check", "where") if one[key])


def _counted(found: list[dict[str, Any]]) -> str:
    count = [sum(one["verdict"] == name for one in found) for name in ("fixed", "broken", "cannot run")]
    return f"{len(found)} cases: {count[0]} fixed, {count[1]} still broken, {count[2]} cannot be run"


def _counted_as(campaign: Any) -> str:
    return "calls" if campaign.facts.get("kind") == "layer" else "pairs"


def _keep(campaign: Any, place: Path) -> None:
    """Without --out the counterexamples move out of the temporary folder, and the findings name where to."""
    if not any(one["inputs"] for one in campaign.findings):
        return
    kept = Path(tempfile.mkdtemp(prefix="iga-fuzz-found-"))
    for one in campaign.findings:
        if one["inputs"]:
            new = kept / Path(one["inputs"]).relative_to(place / "found")
            new.parent.mkdir(parents=True, exist_ok=True)
            Path(one["inputs"]).replace(new)
            one["inputs"] = str(new)


def _telling(bars: Bars, seconds: float) -> Any:
    """The bar, or a line every ten seconds."""
    last = [time.monotonic()]

    def tell(campaign: Any) -> None:
        now = time.monotonic()
        if now - last[0] < (EVERY if bars._bar is None else 0.5):
            return
        last[0] = now
        worst = {name: value for name, value in campaign.worst.items() if name not in campaign.found}
        name, value = max(worst.items(), key=lambda one: one[1], default=("", 0.0))
        rate = campaign.examples / max(campaign.seconds, 1e-9)
        near = f"nearest {name} {value:.3g}; found {len(campaign.found)}"
        count = sum(one.record["counts"].get("pair_points", 0) for one in campaign.streams)
        points = f", {count:.3g} pair-points" if count else ""
        words = f"{campaign.examples:,} {_counted_as(campaign)}, {rate:,.0f} a second{points}; {near}"
        if bars._bar is None:
            say(f"… {campaign.seconds:.0f} s: {words}")
        else:
            bars("search", min(int(campaign.seconds), int(seconds)), max(int(seconds), 1), words)

    return tell


class _own_interrupt:  # noqa: N801 - used like a function
    """Ctrl-C raises here and nowhere twice, so that what there is can be written. Where Python drops it, in a finalizer
    or as it forks, `heed` raises it."""

    asked = False

    def __enter__(self) -> None:
        self._before = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, self._once)

    def _once(self, number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.asked = True
        raise KeyboardInterrupt

    def heed(self) -> None:
        if self.asked:
            raise KeyboardInterrupt

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)


def _duration(text: str) -> float:
    try:
        return seconds_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--max-time") from error


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    part, parts = (-1, 0) if found is None else (int(found[1]), int(found[2]))
    if not 0 <= part < parts:
        raise typer.BadParameter(f"expected I/N with 0 ≤ I < N, such as 0/4; got {text!r}", param_hint="--shard")
    return part, parts
