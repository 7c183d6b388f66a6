"""Proteins that went through a layer as blocks: the bounds of each, its heads, and the pairs that drive extremes."""

from iga._text import one_line
from iga.report.common import Invariant
from iga.report.document import Block, Items, Paragraph, Table
from iga.report.inspected import Extreme, Head, Inspect, Protein

__all__ = ["blocks", "numbers_of"]

FEW = 3  # pairs of each quantity; the page and --json have more


def blocks(document: Inspect) -> list[Block]:
    """A line a bound and a head, that 80 columns hold; what is longer folds."""
    made: list[Block] = [Paragraph(one_line(document["layer"]), folds=True)]
    for protein in document["proteins"]:
        made += _protein(protein)
    over = sum(one["verdict"] == "broken" for protein in document["proteins"] for one in protein["invariants"])
    words = f"{over} numbers are over their bounds" if over != 1 else "1 number is over its bound"
    within = "every number that has a bound lies within it"
    if not any(protein["invariants"] for protein in document["proteins"]):
        within = "no number that has a bound is shown: nothing was judged"
    missing = [name for name, how in document["taps"].items() if how == "missing"]
    return [
        *made,
        Items(tuple(f"unreadable: {one_line(one)}" for one in document["unreadable"]), folds=True),
        *([Paragraph(f"nothing shows {', '.join(missing)} (iga.taps.show)", folds=True)] if missing else []),
        Paragraph(words if over else within),
        Paragraph(f"{document['seconds']:.1f} s; --report FILE.html: maps, ellipsoids, growth with P", folds=True),
    ]


def numbers_of(one: Invariant) -> tuple[str, str]:
    """The value that comes nearest to its bound, and the bound, which may be a floor."""
    worst, budget = ("not finite" if value is None else f"{value:.4g}" for value in (one["worst"], one["budget"]))
    return worst, f"{'≥' if one.get('lower') else '≤'} {budget}"


def _protein(protein: Protein) -> list[Block]:
    head = f"{one_line(protein['path'])}: {protein['residues']} residues, {protein['masked']} masked, "
    head += f"{protein['chain_breaks']} chain breaks; {protein['how']}"
    bounds = tuple((one["name"], one["verdict"], *numbers_of(one), one["unit"]) for one in protein["invariants"])
    over = tuple(
        f"{one['name']}: {one['worst_example']}" for one in protein["invariants"] if one["verdict"] == "broken"
    )
    made: list[Block] = [
        Items(("", head, *(f"  {note}" for note in protein["notes"])), folds=True),
        Table(("bound", "verdict", "worst", "bound is", "unit"), bounds, words=(0, 1, 4), plain=True),
        Items(over, folds=True),
    ]
    if protein["heads"]:
        heads = ("head", "saturated", "entropy", "on contacts", "by chance", "largest |logit|")
        made.append(Table(heads, tuple(map(_head, protein["heads"])), words=(), plain=True))
    made.append(Items(("drives the extremes:", *_extremes(protein)), folds=True))
    written = tuple(f"wrote {one_line(file)}" for file in protein["files"])
    return [*made, Items(written)]


def _head(one: Head) -> tuple[str, ...]:
    ends = [abs(x) for x in (one["lowest_logit"], one["highest_logit"]) if x is not None]
    largest = f"{max(ends):.3g}" if len(ends) == 2 else "not finite"
    shares = (one["saturated"], one["on_contacts"], one["by_chance"])
    saturated, on, chance = ("–" if x is None else f"{x:.1%}" for x in shares)
    entropy = "not finite" if one["entropy"] is None else f"{one['entropy']:.2f} nat"
    return str(one["head"]), saturated, entropy, on, chance, largest


def _pair(one: Extreme) -> str:
    value = "not finite" if one["value"] is None else f"{one['value']:.4g}"
    point = "" if one["point"] < 0 else f", point {one['point']}"
    return f"{value} ({one['query']} to {one['key']}, {one['distance']:.2f} nm, head {one['head']}{point})"


def _extremes(protein: Protein) -> list[str]:
    made = []
    for quantity in dict.fromkeys(one["quantity"] for one in protein["extremes"]):
        worst = [one for one in protein["extremes"] if one["quantity"] == quantity][:FEW]
        shown = "; ".join(map(_pair, worst))
        residues = [f"{one['residue']} ({one['count']})" for one in protein["often"] if one["quantity"] == quantity]
        of = next((one["of"] for one in protein["often"] if one["quantity"] == quantity), 0)
        made.append(f"  {quantity}: {shown}; of the worst {of} pairs most hold {', '.join(residues[:FEW])}")
    return made or ["  nothing varies, or nothing is shown"]
