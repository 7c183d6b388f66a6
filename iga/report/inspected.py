"""The types of the document of `iga inspect`: proteins, and their way through a layer. Lengths are nm."""

from typing import Literal, NotRequired, TypedDict

from iga.report.common import Environment, Invariant
from iga.report.measured import Source

__all__ = ["Extreme", "Grown", "Head", "Inspect", "Often", "Protein", "Residue", "Saturated"]


class Residue(TypedDict):
    """A residue and its Gaussian: chain and number, mean, standard deviations along the frame's axes, and covariance
    as 11, 22, 33, 12, 13, 23 in nm²; `contacts` are the others whose frames lie near."""

    name: str
    chain: str
    mean: list[float]
    sigma: list[float]
    covariance: list[float]
    contacts: int


class Head(TypedDict):
    """A head's weights: the share of its rows that are saturated, their mean entropy in nats, the largest weight; the
    share of weight that lies on contacts, and what equal weights would put there, null without contacts or heads;
    extremes of its logits and of its geometry term, null where they are not finite or not shown. `map`: mean weight in
    cells of several residues."""

    head: int
    saturated: float
    entropy: float | None
    largest: float | None
    on_contacts: float | None
    by_chance: float | None
    lowest_logit: float | None
    highest_logit: float | None
    largest_geometry: float | None
    map: list[list[float]]


class Extreme(TypedDict):
    """One of the pairs in which a quantity is worst; a point of −1 is of none, null a number that is not finite."""

    quantity: str
    unit: str
    value: float | None
    head: int
    point: int
    query: str
    key: str
    distance: float


class Often(TypedDict):
    """A residue that stands in many of the worst pairs of a quantity: in `count` of `of`."""

    quantity: str
    residue: str
    count: int
    of: int


class Saturated(TypedDict):
    """A row that is saturated: nearly all its weight lies on one key."""

    head: int
    query: str
    key: str
    weight: float
    distance: float


class Grown(TypedDict):
    """A new layer with P points, of a `state` (as initialised, or all points equal): the largest magnitude of
    `quantity` in nats, null where it is not finite, and the share of rows that are saturated."""

    state: str
    points: int
    quantity: str
    largest: float | None
    saturated: float


class Protein(TypedDict):
    """A structure that went through the layer: `residues` of the file, of which `looked_at` (without the masked) did;
    `how` says which. `files` are the ellipsoids that were written, `notes` what was not and why. Cells of `contacts`
    and of the heads' maps are of `cell` residues: shares of pairs, and mean weights."""

    path: str
    residues: int
    masked: int
    chain_breaks: int
    looked_at: int
    how: str
    files: list[str]
    notes: list[str]
    invariants: list[Invariant]
    shown: list[Residue]
    cell: int
    contacts: list[list[float]]
    heads: list[Head]
    extremes: list[Extreme]
    often: list[Often]
    saturated: list[Saturated]
    grown: list[Grown]


class Inspect(TypedDict):
    """The result of `iga inspect`: exit code 1 where a number is over its bound, or none has one. `layer` says whose
    parameters these are, `taps` how each of its inner tensors was seen; `unreadable` are files that gave no structure,
    and why."""

    schema: Literal[1]
    document: Literal["inspect"]
    command: str
    target: str
    kind: str
    exit_code: int
    seconds: float
    environment: Environment
    layer: str
    points: int
    sigma_min_nm: float
    sigma_max_nm: float
    taps: dict[str, str]
    proteins: list[Protein]
    unreadable: list[str]
    source: NotRequired[Source | None]
