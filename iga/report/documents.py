"""The types of the documents: the result of every command as JSON of schema 1.

A number that is not finite is null, and so is one that was not measured. A key that came later is NotRequired where
files that are older have to be read. The JSON Schemas in the folder `schemas` are made of these types and their words.
"""

from typing import Annotated, Literal, NotRequired, TypedDict

from iga.report.common import Environment, Invariant, Machine
from iga.report.found import Counterexample, Engine, Reached, Site
from iga.report.inspected import Inspect
from iga.report.measured import Source
from iga.report.replayed import Replay
from iga.report.swept import Sweep

__all__ = [
    "DOCUMENTS",
    "Bench",
    "Compare",
    "Document",
    "Environment",
    "Exponent",
    "Fault",
    "Faults",
    "Fuzz",
    "Inspect",
    "Interval",
    "Invariant",
    "Machine",
    "Replay",
    "Sweep",
    "Timing",
    "Verify",
]

Interval = Annotated[list[float], 2]  # its lower and its upper end


class VerifyEnvironment(Environment):
    """The environment of a verification, and its contract."""

    profile: str
    implementation: str | None
    sigma_min_nm: float
    sigma_max_nm: float
    digits: int
    points: list[int]


class NotApplicable(TypedDict):
    """A check that did not run, and why; the taps whose lack left it unjudged."""

    name: str
    reason: str
    missing: NotRequired[list[str]]


class StructureRecord(TypedDict):
    """A structure that was read, sampled, or could not be read."""

    path: str
    residues: int
    masked: int
    chain_breaks: int
    status: str
    reason: str


class Verify(TypedDict):
    """The result of `iga verify`; `taps` says of each tap of a layer whether it was shown, caught, or is missing."""

    schema: Literal[1]
    document: Literal["verify"]
    command: str
    target: str
    kind: str
    exit_code: int
    seconds: float
    environment: VerifyEnvironment
    invariants: list[Invariant]
    not_applicable: list[NotApplicable]
    taps: NotRequired[dict[str, str]]
    structures: list[StructureRecord]
    source: NotRequired[Source | None]


class Fault(TypedDict):
    """A planted fault, the region where it shows, and the checks that saw it; `missed` says why none is expected to."""

    name: str
    bench: str
    kind: str
    region: str
    missed: str
    size: float
    caught_by: list[str]
    expected: list[str]
    not_run: list[str]


class FalseAlarm(TypedDict):
    """A check that does not hold on a clean target."""

    target: str
    seed: int
    invariant: str


class Detection(TypedDict):
    """What a check detects: the smallest size, of which fault, and the faults that it alone catches."""

    name: str
    bench: str
    smallest_detected: float | None
    of_fault: str | None
    alone: list[str]


class Faults(TypedDict):
    """The result of `iga faults`: of a sample, or of all faults that the catalogue has."""

    schema: Literal[1]
    document: Literal["faults"]
    command: str
    exit_code: int
    seconds: float
    environment: Environment
    profile: str
    catalogue: int
    faults: list[Fault]
    false_alarms: list[FalseAlarm]
    clean_runs: int
    invariants: list[Detection]


class Fuzz(TypedDict):
    """The result of `iga fuzz`. `findings` are broken; `doubtful` were not, once judged again. `cells` of `of_cells`
    cells of κ × angle × distance were met; `blind` is what could not be followed. `seeds`: of campaigns that
    were joined, where there are several; `seconds` are those of the longest then. `pair_points`: of a layer's calls,
    b · h · P · n² each."""

    schema: Literal[1]
    document: Literal["fuzz"]
    command: str
    target: str
    kind: str
    exit_code: int
    seconds: float
    environment: Environment
    examples: int
    pair_points: NotRequired[int]
    streams: list[str]
    seeds: NotRequired[list[int]]
    findings: list[Counterexample]
    doubtful: list[Counterexample]
    worst: list[Reached]
    engines: list[Engine]
    sites: list[Site]
    cells: int
    of_cells: int
    blind: list[str]
    source: NotRequired[Source | None]


class Size(TypedDict):
    """What is timed: N residues, H heads and P points, "forward" or "forward_backward"."""

    direction: str
    residues: int
    heads: int
    points: int


class Limit(TypedDict):
    """float32 operations a second that the machine reached, how they were measured, and the scaling over threads."""

    goperations_per_s: float
    how: str
    scaling: float


class LeftOut(Size):
    """A case that was not run, and why."""

    implementation: str
    reason: str


class BenchEnvironment(Machine):
    """The machine, the settings of the run, and what was not timed."""

    operations_per_pairpoint: dict[str, float]
    device: str
    threads: int
    seed: int
    repeats: int
    limit: Limit | None
    absent: dict[str, str]
    left_out: list[LeftOut]


class Noise(Size):
    """A/A: an implementation against itself."""

    implementation: str
    repeats: int
    ratio: float
    interval: Interval
    deviation: float


class Timing(Size):
    """A row of the table; null where the implementation failed its gate, or where nothing was measured."""

    implementation: str
    median_ms: float | None
    interval_ms: Interval | None
    mpairpoints_per_s: float | None
    peak_mb: float | None
    share_of_limit: float | None
    error: float | None
    error_budget: float


class Ratio(Size):
    """How many times as long `of` takes as `to`."""

    of: str
    to: str
    median: float
    interval: Interval


class Exponent(TypedDict):
    """The exponent of the time in P at fixed N, or in N at fixed P."""

    implementation: str
    direction: str
    heads: int
    residues: NotRequired[int]
    points: NotRequired[int]
    over: list[int]
    exponent: float
    interval: Interval | None


class Exponents(TypedDict):
    """All exponents, by what grows."""

    points: list[Exponent]
    residues: list[Exponent]


class Change(Size):
    """`ratio`: (ours / yardstick now) / (ours / yardstick then), above 1 where ours became slower."""

    implementation: str
    ratio: float


class Baseline(TypedDict):
    """The comparison with an earlier result."""

    max_ratio: float
    changes: list[Change]


class Bench(TypedDict):
    """The result of `iga bench`; `implementations` says what each of them is."""

    schema: Literal[1]
    document: Literal["bench"]
    command: str
    exit_code: int
    environment: BenchEnvironment
    implementations: dict[str, str]
    noise: Noise
    rows: list[Timing]
    ratios: list[Ratio]
    exponents: Exponents
    baseline: Baseline | None


class CompareEnvironment(Environment):
    """The environment of a comparison."""

    threads_a_run: int


class Settings(TypedDict):
    """What all runs of a comparison share."""

    size: str
    steps: int
    seeds: int
    seed: int
    gaussians: str
    stress: bool
    structures: str
    arms: list[str]
    overrides: list[str]


class Chains(TypedDict):
    """The chains that were trained on and held out."""

    training_chains: int
    held_out_chains: int
    chains_with_breaks: NotRequired[int]
    chain_breaks: NotRequired[int]
    skipped: dict[str, int]
    unreadable: int
    fingerprint: str


class Run(TypedDict):
    """One run of an arm: a number a step in each series, null where it was not finite."""

    arm: str
    label: str
    seed: int
    status: Literal["finished", "non-finite", "running"]
    steps_done: int
    first_non_finite: int | None
    what_non_finite: str | None
    seconds_a_step: float | None
    peak_mb: float | None
    parameters: int
    samples_not_written: NotRequired[int]
    steps: dict[str, list[float | None]]
    held_out: list[dict[str, float | None]]


class Compare(TypedDict):
    """The result.json of `iga compare`."""

    schema: Literal[1]
    document: Literal["compare"]
    command: str
    exit_code: int
    environment: CompareEnvironment
    settings: Settings
    data: Chains
    baselines: dict[str, dict[str, float | None]]
    runs: list[Run]


Document = Verify | Faults | Bench | Compare | Sweep | Fuzz | Inspect | Replay
DOCUMENTS: dict[str, type] = {
    "verify": Verify,
    "faults": Faults,
    "bench": Bench,
    "compare": Compare,
    "sweep": Sweep,
    "fuzz": Fuzz,
    "inspect": Inspect,
    "replay": Replay,
}
