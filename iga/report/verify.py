"""A verification as blocks, in full or in brief: its structures, the table of its checks, the verdict in a line."""

from iga._text import one_line
from iga.report.document import Block, Items, Paragraph, Table
from iga.report.documents import Invariant, Verify
from iga.report.meaning import anchor, meaning

__all__ = ["PASSING", "blocks", "brief", "verdict"]

PASSING = ("holds", "broken, as expected", "not supported")


def blocks(document: Verify) -> list[Block]:
    """Structures that need a word, then the table, then the verdict in a line."""
    found = document["invariants"]
    return [
        Items((*_structures(document), *_taps(document))),
        Table(
            ("invariant", "verdict", "worst", "budget", "examples", "where the worst was · note"),
            tuple(_row(one) for one in found),
            words=(0, 1, 5),
            title=_claim(document),
            long=5,
        ),
        Items(_excepted(document)),
        *_again(found),
        Paragraph(_summary(document)),
        Paragraph(_how(document)),
    ]


def brief(document: Verify) -> list[Block]:
    """A line a check, that 80 columns hold; below, each check that does not hold, in full, with its command."""
    found = document["invariants"]
    reds = [one for one in found if verdict(one) not in PASSING]
    made: list[Block] = [
        Items((*_structures(document), *_taps(document)), folds=True),
        Table(
            ("check", "verdict", "worst", "budget"),
            tuple((one["name"], verdict(one), *_numbers(one)) for one in found),
            words=(0, 1),
            title=_claim(document),
            plain=True,
        ),
    ]
    for one in reds:
        made += _red(one)
    more = "--verbose: every check's worst example; --report FILE.html: a page"
    return [
        *made,
        Items(("", *_excepted(document)) if document["not_applicable"] or reds else _excepted(document), folds=True),
        Paragraph(_summary(document), folds=True),
        Paragraph(f"{_how(document)}; {more}", folds=True),
    ]


def _red(one: Invariant) -> list[Block]:
    """A check that does not hold: what that means, the numbers, where; and its command, on a line to be copied."""
    worst, budget = _numbers(one)
    says = [
        "",
        f"{one['name']}: {verdict(one)}",
        f"  {meaning(one['name'])} ({anchor(one['name'])})",
        f"  worst {worst}, budget {budget} [{one['unit']}], {one['examples']:,} examples",
        *(f"  {part}" for part in (one["worst_example"] and f"at {one['worst_example']}", one["note"]) if part),
    ]
    command = one.get("reproduce", "")
    return [Items(tuple(says), folds=True), *([Items((command,))] if command else [])]


def _claim(document: Verify) -> str:
    environment = document["environment"]
    claim = f"σ {environment['sigma_min_nm']:g} to {environment['sigma_max_nm']:g} nm"
    return f"{one_line(document['target'])}: {claim}"


def _excepted(document: Verify) -> tuple[str, ...]:
    """What did not apply, and what was expected to be broken, with the reasons."""
    return (
        *(f"not applicable: {one['name']}: {one['reason']}" for one in document["not_applicable"]),
        *(
            f"expected to be broken: {one['name']}: {one['expected_broken']}"
            for one in document["invariants"]
            if one["expected_broken"] is not None
        ),
    )


def _how(document: Verify) -> str:
    environment = document["environment"]
    by = "" if environment["implementation"] is None else f", implementation {environment['implementation']}"
    return f"{document['seconds']:.1f} s, seed {environment['seed']}, profile {environment['profile']}{by}"


def _again(found: list[Invariant]) -> list[Block]:
    """A command for each row that does not hold; on lines of their own, to be copied."""
    commands = tuple(one.get("reproduce", "") for one in found if one["verdict"] in ("broken", "vacuous"))
    commands = tuple(filter(None, commands))
    return [Paragraph("each alone:"), Items(commands)] if commands else []


def _structures(document: Verify) -> list[str]:
    made = [
        f"unreadable: {one_line(one['path'])}: {one['reason']}"
        for one in document["structures"]
        if one["status"] == "unreadable"
    ]
    read = [one for one in document["structures"] if one["status"] != "unreadable"]
    sampled = [one for one in read if one["status"] == "sampled"]
    residues, masked, breaks = (sum(one[name] for one in read) for name in ("residues", "masked", "chain_breaks"))
    made.append(
        f"{len(read)} structures, {residues} residues, {masked} masked, {breaks} chain breaks; "
        f"pairs sampled in {len(sampled)} of them"
    )
    if sampled:
        longest = max(sampled, key=lambda one: one["residues"])
        made.append(f"longest: {one_line(longest['path'])}: {longest['reason']} (every structure's sample: see --json)")
    return made


def _taps(document: Verify) -> list[str]:
    """What a layer showed, and what it did not, where that is not all."""
    taps = document.get("taps", {})
    if "missing" not in taps.values():
        return []
    by = {how: ", ".join(name for name in taps if taps[name] == how) for how in ("shown", "caught", "missing")}
    return ["taps: " + "; ".join(f"{how}: {names}" for how, names in by.items() if names)]


def _row(one: Invariant) -> tuple[str, ...]:
    where = " · ".join(part for part in (one["worst_example"], one["note"]) if part)
    return one["name"], verdict(one), *_numbers(one), f"{one['examples']:,}", f"{where} [{one['unit']}]"


def _numbers(one: Invariant) -> tuple[str, str]:
    """The worst value, and its budget, which may be a floor."""
    worst, budget = ("not finite" if value is None else f"{value:.4g}" for value in (one["worst"], one["budget"]))
    return worst, f"≥ {budget}" if one.get("lower") else budget


def verdict(one: Invariant) -> str:
    """The words for the table: an expected failure that holds is a failure of the gate."""
    if one["expected_broken"] is None:
        return one["verdict"]
    return "broken, as expected" if one["verdict"] == "broken" else f"{one['verdict']}, expected broken"


def _summary(document: Verify) -> str:
    found = [(one, verdict(one)) for one in document["invariants"]]
    failed = [f"{one['name']} ({words})" for one, words in found if words not in PASSING]
    unjudged = _not_judged(document)
    if failed:
        return f"{document['target']}: {len(failed)} of {len(found)} do not hold: {', '.join(failed)}{unjudged}"
    broken, lacking = (sum(words == passed for _, words in found) for passed in PASSING[1:])
    excepted = [f"{broken} expected to be broken"] if broken else []
    excepted += [f"{lacking} not supported, as it claims"] if lacking else []
    but = f", but for {' and '.join(excepted)}" if excepted else ""
    every = "" if unjudged else "all "
    return f"{document['target']}: {every}{len(found)} invariants hold{but}{unjudged}"


def _not_judged(document: Verify) -> str:
    """The laws that no tap lets judge, and what would; empty where there are none."""
    missing = {one["name"]: one.get("missing", []) for one in document["not_applicable"] if one.get("missing")}
    if not missing:
        return ""
    names = dict.fromkeys(name for one in missing.values() for name in one)
    return f"; not judged: {', '.join(missing)} (nothing shows {', '.join(names)}: iga.taps.show)"
