"""Documents as JUnit XML, which every CI service reads: a suite a document, a case an outcome. Needs junitparser (extra
`report`)."""

from collections.abc import Sequence
from typing import Any

from iga._text import one_line, visible
from iga.report.outcomes import Outcome, outcomes, title

__all__ = ["as_junit", "check_junitparser"]


def check_junitparser() -> None:
    """Raises ValueError where junitparser is missing, naming the extra that brings it."""
    try:
        import junitparser  # noqa: F401 - asked for only to see whether it is there
    except ImportError as error:
        extra = "pip install 'invariant-gaussian-attention[report]'"
        raise ValueError(f"a JUnit file needs junitparser: install iga with its extra, {extra}") from error


def as_junit(documents: Sequence[Any]) -> bytes:
    """The XML. What a name holds that XML cannot is written as an escape."""
    from junitparser import JUnitXml, TestSuite

    whole = JUnitXml("iga")
    known: dict[str, int] = {}
    for document in documents:
        name = one_line(title(document))
        known[name] = known.get(name, 0) + 1  # of two suites with one name readers make one
        suite = TestSuite(name if known[name] == 1 else f"{name} ({known[name]})")
        versions = document["environment"]
        suite.add_property("command", one_line(document["command"]))
        suite.add_property("exit_code", str(document["exit_code"]))
        for name in ("iga", "torch", "seed", "profile"):
            if name in versions:
                suite.add_property(name, one_line(versions[name]))
        suite.add_testcases([_case(document, one) for one in outcomes(document)])
        suite.time = float(document.get("seconds", 0.0))
        whole.add_testsuite(suite)
    whole.update_statistics()
    return b"<?xml version='1.0' encoding='UTF-8'?>\n" + whole.tostring()


def _case(document: Any, one: Outcome) -> Any:
    from junitparser import Failure, Skipped, TestCase

    case = TestCase(one_line(one.name), one_line(f"iga.{document['document']}.{one.rule}"))
    lines = [one.says, one.where and f"where: {one.where}", one.command and f"alone: {one.command}"]
    if one.state == "fails":
        failure = Failure(one_line(f"{one.verdict}: {one.says}"), one_line(one.rule))
        failure.text = visible("\n".join([*filter(None, lines), f"meaning: {one.meaning}", f"more: {one.anchor}"]))
        case.result = [failure]
    elif one.state == "skipped":
        case.result = [Skipped(one_line(f"{one.verdict}: {one.says}"))]
    else:
        case.system_out = visible("\n".join(filter(None, lines)))
    return case
