"""Proteins that went through a layer as sections of the page, a group of them a protein."""

from collections.abc import Sequence

from iga._text import one_line
from iga.report.inspect import numbers_of
from iga.report.inspected import Grown, Head, Inspect, Protein
from iga.report.measured import Curve
from iga.report.page import drawings, shapes
from iga.report.page.model import Cell, Drawing, Grid, Note, Part, Section, cells, number
from iga.report.page.verify import bounds_of

__all__ = ["sections"]

TONES = {"holds": "good", "broken": "bad"}
FULL = 2  # proteins with drawings: each takes up to 1.2 MB of a page, which stays under 3
CELLS = 48  # of a map: the largest, in its table
NOTHING = "The layer shows nothing of it: iga.taps.show in its forward would."


def sections(document: Inspect) -> list[Section]:
    made = []
    several = len(document["proteins"]) > 1
    drawn = _drawn(document["proteins"])
    for place, protein in enumerate(document["proteins"]):
        name = f"{one_line(protein['path']).rpartition('/')[2]}: " if several else ""
        for title, parts in _of_protein(protein, drawn=place in drawn):
            made.append(Section(f"{name}{title}" if several else title[:1].upper() + title[1:], parts))
    if document["unreadable"]:
        rows = tuple(cells(one) for one in document["unreadable"])
        made.append(Section("Files that could not be read", [Grid(("file, and why",), rows)]))
    taps = tuple(cells(*one) for one in document["taps"].items())
    return [*made, Section("What the layer shows", [Grid(("tap", "was"), taps, words=(0, 1))])]


def _drawn(proteins: Sequence[Protein]) -> set[int]:
    """The places of the `FULL` that are shown in full: those with most numbers over their bounds, else the first."""
    over = [sum(row["verdict"] == "broken" for row in one["invariants"]) for one in proteins]
    return set(sorted(range(len(proteins)), key=lambda place: -over[place])[:FULL])


def _of_protein(protein: Protein, *, drawn: bool) -> list[tuple[str, list[Part]]]:
    where = f"{one_line(protein['path'])}: {protein['residues']} residues, {protein['masked']} masked, "
    where += f"{protein['chain_breaks']} chain breaks. Through the layer went {protein['how']}."
    told: list[Part] = [Note(one) for one in (where, *protein["notes"])]
    if protein["files"]:
        told.append(Note(f"Written: {', '.join(map(one_line, protein['files']))}."))
    if not drawn:
        told.append(Note(f"A page shows {FULL} proteins in full; give this one alone, or see --json."))
        return [("numbers beside their bounds", [*told, _findings(protein)])]
    return [
        ("numbers beside their bounds", [*told, _findings(protein), *bounds_of(protein["invariants"])]),
        ("the Gaussians", _gaussians(protein)),
        ("attention beside the contact map", _attention(protein)),
        ("what drives the extremes", _extremes(protein)),
        ("growth with the number of points", _growth(protein["grown"])),
    ]


def _findings(protein: Protein) -> Grid:
    rows = tuple(
        (
            Cell(one["name"]),
            Cell(one["verdict"], tone=TONES.get(one["verdict"], "open")),
            number(one["worst"]),
            Cell(numbers_of(one)[1], one["budget"]),
            Cell(one["unit"]),
            number(one["examples"]),
            Cell(" · ".join(part for part in (one["worst_example"], one["note"]) if part)),
        )
        for one in protein["invariants"]
    )
    heads = ("bound", "verdict", "worst", "the bound", "unit", "numbers", "where · note")
    return Grid(heads, rows, words=(0, 1, 4, 6), stacked=True)


def _gaussians(protein: Protein) -> list[Part]:
    residues = protein["shown"]
    words = (
        "Side chains as they stand in the file, before the layer moves and scales them; each ellipsoid holds half of "
        "its Gaussian, and lines join the residues of a chain in order."
    )
    rows = tuple(
        cells(one["name"], *one["sigma"], max(one["sigma"]) / min(one["sigma"]), *one["mean"], one["contacts"])
        for one in residues
    )
    heads = ("residue", "σ₁, nm", "σ₂", "σ₃", "κ", "mean x, nm", "y", "z", "contacts")
    made: list[Part] = []
    for said, svg, numbers in shapes.ellipsoids(residues):
        outlines = tuple(cells(one["name"], *four) for one, four in zip(residues, numbers, strict=True))
        columns = ("residue", "across, nm", "up", "longer semi-axis", "shorter")
        made.append(Drawing(svg, said, Grid(columns, outlines, dense=True, tall=True)))
    return [Note(words), *made, Grid(heads, rows, dense=True, tall=True, title="Residues")]


def _attention(protein: Protein) -> list[Part]:
    heads = protein["heads"]
    if not heads:
        return [Note(NOTHING)]
    rows = tuple(_head(one) for one in heads)
    names = ("head", "saturated rows", "mean entropy, nat", "largest weight", "weight on contacts", "by chance")
    names += ("lowest logit, nat", "highest logit", "largest |geometry logit|")
    residues, cell = [one["name"] for one in protein["shown"]], protein["cell"]
    said = (
        "A contact: two Cα within 0.8 nm. Weight on contacts is a row's mean; by chance is what equal weights would "
        "put there. Features are drawn, so that a pattern here is the geometry's alone."
    )
    each = "" if cell == 1 else f"; a cell is {cell} by {cell} residues"
    title = "Contacts: Cα within 0.8 nm"
    maps: list[Part] = [_map(protein["contacts"], cell, residues, title, f"{title}{each}")]
    for one in heads:
        title = f"Head {one['head']}: weights"
        most = max(map(max, one["map"]), default=0.0)
        words = f"{title}, darkest {most:.3g}, by the root of the weight{each}"
        maps.append(_map(one["map"], cell, residues, title, words))
    made: list[Part] = [Note(said), Grid(names, rows, words=(), dense=True), *maps]
    full = tuple(
        cells(one["head"], one["query"], one["key"], one["weight"], one["distance"]) for one in protein["saturated"]
    )
    if full:
        heads_of = ("head", "query", "key", "weight", "distance, nm")
        made.append(Grid(heads_of, full, words=(1, 2), title="Saturated rows, the heaviest"))
    else:
        made.append(Note("No row is saturated: no key holds more than 0.9 of one."))
    return made


def _map(values: Sequence[Sequence[float]], cell: int, names: Sequence[str], title: str, words: str) -> Drawing:
    """The map, and its largest cells, each by its first residues; all of them are in --json."""
    order = sorted(((x, q, k) for q, row in enumerate(values) for k, x in enumerate(row)), key=lambda one: -one[0])
    rows = tuple(cells(names[q * cell], names[k * cell], number(x, ".3g")) for x, q, k in order[:CELLS] if x > 0)
    grid = Grid(("query", "key", "mean of the cell"), rows, words=(0, 1), dense=True, tall=True)
    return Drawing(shapes.matrix(values, cell, names, title, words), words, grid)


def _head(one: Head) -> tuple[Cell, ...]:
    return cells(
        one["head"],
        Cell(f"{one['saturated']:.1%}", one["saturated"]),
        number(one["entropy"]),
        number(one["largest"]),
        *(_share(one["on_contacts"]), _share(one["by_chance"])),
        *(number(one["lowest_logit"]), number(one["highest_logit"])),
        "–" if one["largest_geometry"] is None else number(one["largest_geometry"]),
    )


def _share(value: float | None) -> Cell:
    return Cell("–", -1.0) if value is None else Cell(f"{value:.1%}", value)


def _extremes(protein: Protein) -> list[Part]:
    if not protein["extremes"]:
        return [Note("Nothing varies, or the layer shows nothing of it.")]
    rows = tuple(
        cells(
            *(one["quantity"], number(one["value"]), one["unit"], one["query"], one["key"], one["distance"]),
            *(one["head"], "–" if one["point"] < 0 else one["point"]),
        )
        for one in protein["extremes"]
    )
    heads = ("quantity", "value", "unit", "query", "key", "distance, nm", "head", "point")
    often = tuple(cells(one["quantity"], one["residue"], one["count"], one["of"]) for one in protein["often"])
    title = "Residues that stand in most of the worst pairs"
    return [
        Grid(heads, rows, words=(0, 2, 3, 4), title="The worst pairs, each with its worst head and point"),
        Grid(("quantity", "residue", "in so many", "of the worst pairs"), often, words=(0, 1), title=title),
    ]


def _growth(grown: Sequence[Grown]) -> list[Part]:
    if not grown:
        return [
            Note(
                "A checkpoint has parameters of one number of points, and a layer that shows no logits shows no growth."
            )
        ]
    made: list[Part] = []
    for quantity in dict.fromkeys(one["quantity"] for one in grown):
        rows = [one for one in grown if one["quantity"] == quantity]
        title = f"largest |{quantity.replace('_', ' ')}|"
        curves = [(state, _curve(state, title, rows)) for state in dict.fromkeys(one["state"] for one in rows)]
        numbers = tuple(
            cells(one["state"], one["points"], number(one["largest"]), _share(one["saturated"])) for one in rows
        )
        grid = Grid(("state", "P", f"{title}, nat", "saturated rows"), numbers, dense=True)
        # a logarithmic axis needs a number to begin with
        if any(one["largest"] for one in rows):
            made.append(Drawing(drawings.along(curves, title), f"The {title} of new layers with P points", grid))
        else:
            made.append(grid)
    said = "One protein and one draw of parameters show a trend; `growth_with_points` of `iga verify` judges it."
    return [*made, Note(said)]


def _curve(state: str, title: str, rows: Sequence[Grown]) -> Curve:
    points = [
        {"at": float(one["points"]), "value": one["largest"], "limit": None, "examples": 1}
        for one in rows
        if one["state"] == state
    ]
    return {"title": title, "along": "P", "unit": f"{title}, nat", "points": points}  # pyright: ignore[reportReturnType]
