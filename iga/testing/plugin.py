"""The pytest plugin: `pytest --iga-target my.py:f` judges a function or a layer as `iga verify` does, test by test.

Without `--iga-target` nothing is added to a run, and no fixture is used unless a test asks for it. Nothing heavy is
imported before a target is given: loading this module costs no torch.

    pytest --iga-target my.py:f                 the tests of the run, and iga::my.py:f::<invariant> for each invariant
    pytest iga::my.py:f::<invariant>            that item alone, by the id that pytest prints
    def test_mine(iga_invariant): …             if a collected test uses it, it takes the place of those items
"""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from iga.testing.contract import PROFILES

if TYPE_CHECKING:
    from iga.testing.parametrize import InvariantCheck, Suite
    from iga.testing.targets import Target

__all__ = ["iga_invariant", "iga_profile", "iga_seed", "iga_structures", "iga_target"]

_PREFIX = "iga::"
NONE_GIVEN = "no --iga-target given"

_suites = pytest.StashKey[list["Suite"]]()
_used = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("iga", "numerical invariants of geometric attention (iga)")
    group.addoption(
        "--iga-target",
        action="append",
        default=[],
        metavar="TARGET",
        help="judge package.module:attribute or path/to/file.py:attribute, one test for each invariant; repeats",
    )
    group.addoption(
        "--iga-kind",
        choices=("overlap", "layer"),
        help="what the targets are, unless they say so themselves (iga.testing.target)",
    )
    group.addoption(
        "--iga-profile", choices=tuple(PROFILES), default="fast", help="how much to examine (default: fast)"
    )
    group.addoption(
        "--iga-structures",
        action="append",
        metavar="PATH",
        help="a PDB or mmCIF file, a folder or a quoted glob; repeats (default: synthetic structures)",
    )
    group.addoption("--iga-seed", type=int, default=0, metavar="N", help="seed of the run (default: 0)")


def pytest_configure(config: pytest.Config) -> None:
    """The ids of our items among the arguments are taken out: pytest would look for a file of that name.

    They are kept in an option, which pytest-xdist hands on to its workers; what is left of the arguments it hands on
    too, and a worker without any would collect the whole folder.
    """
    ids = [argument for argument in config.args if argument.startswith(_PREFIX)]
    if ids:
        config.args = [argument for argument in config.args if argument not in ids]
        config.option.iga_ids, config.option.iga_alone = ids, not config.args
    elif getattr(config.option, "iga_alone", False):
        config.args = []


def _ids(config: pytest.Config) -> list[str]:
    return getattr(config.option, "iga_ids", [])


@pytest.fixture(scope="session")
def iga_profile(pytestconfig: pytest.Config) -> str:
    """The value of --iga-profile: fast, ci or nightly, as `iga.verify(profile=…)` takes it."""
    return pytestconfig.option.iga_profile


@pytest.fixture(scope="session")
def iga_structures(pytestconfig: pytest.Config) -> list[str] | None:
    """The values of --iga-structures, as `iga.verify(structures=…)` takes them; None: synthetic structures."""
    return pytestconfig.option.iga_structures


@pytest.fixture(scope="session")
def iga_seed(pytestconfig: pytest.Config) -> int:
    """The value of --iga-seed."""
    return pytestconfig.option.iga_seed


@pytest.fixture(scope="session")
def iga_target(request: pytest.FixtureRequest) -> "Target":
    """Each target of --iga-target in turn (iga.testing.Target: `function` is yours); skips if none is given."""
    return request.param


@pytest.fixture(scope="session")
def iga_invariant(request: pytest.FixtureRequest) -> "InvariantCheck":
    """Each invariant of each target in turn: `iga_invariant()` runs it and raises AssertionError unless it holds."""
    return request.param


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Load the targets before anything is collected, so that misuse is one line and not a test's error."""
    config = session.config
    by_id = [one.removeprefix(_PREFIX).partition("::")[0] for one in _ids(config)]
    specs: list[str] = [*config.option.iga_target, *by_id]
    config.stash[_suites] = []
    if not specs:
        return
    from iga.testing.parametrize import Suite
    from iga.testing.targets import load_target

    for spec in dict.fromkeys(specs):
        try:
            suite = Suite(
                load_target(spec, kind=config.option.iga_kind),
                kind=config.option.iga_kind,
                profile=config.option.iga_profile,
                seed=config.option.iga_seed,
                structures=config.option.iga_structures,
            )
            _ = suite.plan  # calls the target
        except (ValueError, OSError) as error:
            line = " ".join(str(error).split()).replace("--kind", "--iga-kind")
            raise pytest.UsageError(f"--iga-target: {line}") from error
        config.stash[_suites].append(suite)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The targets, or their invariants, as parameters of a test that asks for them."""
    names = [name for name in ("iga_target", "iga_invariant") if name in metafunc.fixturenames]
    if not names:
        return
    suites = metafunc.config.stash.get(_suites, [])
    if "iga_invariant" in names:
        metafunc.config.stash[_used] = True
        rows = [
            pytest.param(*[suite.target, check][-len(names) :], id=_id(suites, suite, check.name), marks=check.marks)
            for suite in suites
            for check in suite.checks
        ]
    else:
        rows = [pytest.param(suite.target, id=suite.name) for suite in suites]
    if not rows:
        rows = [pytest.param(*[None] * len(names), id="none", marks=pytest.mark.skip(reason=NONE_GIVEN))]
    metafunc.parametrize(names, rows, indirect=True, scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add an item for each invariant of each target, unless a collected test takes them as its parameters."""
    ids = _ids(config)
    if config.stash.get(_used, False) and not ids:
        return
    made: list[pytest.Item] = []
    for suite in config.stash.get(_suites, []):
        make = partial(TargetCollector.from_parent, nodeid=f"{_PREFIX}{suite.name}")
        made.extend(make(session, name=suite.name, suite=suite).collect())
    for one in ids:
        if not any(_named(item, one) for item in made):
            known = ", ".join(item.name for item in made if item.nodeid.startswith(one.rpartition("::")[0]))
            raise pytest.UsageError(f"not found: {one} (invariants: {known})")
    items.extend(item for item in made if not ids or any(_named(item, one) for one in ids))


def _named(item: pytest.Item, one: str) -> bool:
    """Whether an id is that of the item, or of its target."""
    return item.nodeid == one or item.nodeid.startswith(f"{one}::")


class TargetCollector(pytest.Collector):
    """The invariants of one target."""

    def __init__(self, *, suite: "Suite", **node: Any) -> None:
        super().__init__(**node)
        self.suite = suite

    def collect(self) -> "Iterable[InvariantItem]":
        for check in self.suite.checks:
            yield InvariantItem.from_parent(self, name=check.name, check=check)


class InvariantItem(pytest.Item):
    """One invariant of one target: passes if it holds."""

    def __init__(self, *, check: "InvariantCheck", **node: Any) -> None:
        super().__init__(**node)
        self.check = check
        for mark in check.marks:
            self.add_marker(mark)

    def runtest(self) -> None:
        self.check()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any) -> Any:
        """The finding alone: the suite's own lines tell a user nothing. Other errors keep their trace."""
        if isinstance(excinfo.value, AssertionError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, *args)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, f"{self.check.name} of {self.check.suite.name}"


def _id(suites: "list[Suite]", suite: "Suite", invariant: str) -> str:
    return invariant if len(suites) == 1 else f"{suite.name}-{invariant}"
