"""The pytest plugin: `pytest --iga-target my.py:f` judges a function or a layer as `iga verify` does, test by test.

Without `--iga-target` nothing is added to a run, and no fixture is used unless a test asks for it. Nothing heavy is
imported before a target is given: loading this module costs no torch.

    pytest --iga-target my.py:f                 the tests of the run, and iga::my.py:f::<invariant> for each invariant
    pytest iga::my.py:f::<invariant>            that item alone, by the id that pytest prints
    pytest --iga-target my.py:f --iga-fuzz 60s  the tests of the run, and iga::my.py:f::fuzz, a search, instead
    def test_mine(iga_invariant): …             if a collected test uses it, it takes the place of those items
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from iga.testing.contract import PROFILES

if TYPE_CHECKING:
    from iga.testing.parametrize import InvariantCheck, Suite
    from iga.testing.targets import Target

__all__ = ["iga_invariant", "iga_profile", "iga_seed", "iga_structures", "iga_target"]

_PREFIX = "iga::"
NONE_GIVEN = "no --iga-target given"
FUZZED = ".iga-fuzz"  # below the root of the tests, as pytest's own cache is

_suites = pytest.StashKey[list["Suite"]]()
_used = pytest.StashKey[bool]()
_fuzz = pytest.StashKey["Fuzz"]()


@dataclass
class Fuzz:
    """What --iga-fuzz asks for: seconds of all targets together, a folder, and what is known of each target."""

    seconds: float
    base: Path
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)


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
    group.addoption(
        "--iga-fuzz",
        metavar="TIME",
        help="search the targets for what breaks them, as iga fuzz does, in place of judging their invariants; "
        "60s, 10m or 1h, for all targets together",
    )
    group.addoption(
        "--iga-save",
        metavar="DIR",
        help="write the smallest failing example of a test with gaussian_pairs() to DIR/TEST/case.json, which "
        "iga fuzz --replay DIR judges",
    )
    group.addoption(
        "--iga-fuzz-out",
        metavar="DIR",
        help=f"where each search goes on from and keeps what it finds (default: {FUZZED} in the root of the tests)",
    )


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
    for name in ("iga_fuzz_out", "iga_save"):
        given = config.option.__dict__[name]
        place = None if given is None else config.invocation_params.dir / given
        if place is not None and place.exists() and not place.is_dir():
            raise pytest.UsageError(f"--{name.replace('_', '-')}: {given} is no folder")
    if config.option.iga_fuzz is not None:
        config.stash[_fuzz] = _asked(config)


def _asked(config: pytest.Config) -> Fuzz:
    from iga.fuzz.duration import seconds_of

    out = config.option.iga_fuzz_out
    base = config.rootpath / FUZZED if out is None else config.invocation_params.dir / out
    if not _specs(config):
        raise pytest.UsageError("--iga-fuzz: nothing to search: name a target with --iga-target")
    try:
        return Fuzz(seconds_of(config.option.iga_fuzz), base)
    except ValueError as error:
        raise pytest.UsageError(f"--iga-fuzz: {error}") from error


def _ids(config: pytest.Config) -> list[str]:
    return getattr(config.option, "iga_ids", [])


def _specs(config: pytest.Config) -> list[str]:
    """The targets, by option or by the id of an item."""
    by_id = [one.removeprefix(_PREFIX).partition("::")[0] for one in _ids(config)]
    return list(dict.fromkeys([*config.option.iga_target, *by_id]))


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


def pytest_sessionstart(session: pytest.Session) -> None:
    """Ask children about the targets of a search, before pytest-xdist starts its workers, which are told."""
    config = session.config
    if _fuzz not in config.stash:
        return
    fuzz = config.stash[_fuzz]
    told = getattr(config, "workerinput", {}).get("iga_fuzz_plans")
    if told is not None:
        fuzz.plans = told
        return
    from iga.fuzz.in_pytest import planned

    for spec in _specs(config):
        try:
            options = config.option
            fuzz.plans[spec] = planned(spec, options.iga_kind, options.iga_seed, options.iga_structures)
        except ValueError as error:
            raise _misuse(error) from error


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Of pytest-xdist: a worker is about to start."""
    if _fuzz in node.config.stash:
        node.workerinput["iga_fuzz_plans"] = node.config.stash[_fuzz].plans


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Load the targets before anything is collected, so that misuse is one line and not a test's error. Those of a
    search are loaded by children alone, and here only if a test asks for them."""
    if _fuzz not in session.config.stash:
        _load(session.config)


def _load(config: pytest.Config) -> "list[Suite]":
    """The targets with what is judged of each, loaded once."""
    if _suites in config.stash:
        return config.stash[_suites]
    config.stash[_suites] = []
    for spec in _specs(config):
        from iga.testing.parametrize import Suite
        from iga.testing.targets import load_target

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
            raise _misuse(error) from error
        config.stash[_suites].append(suite)
    return config.stash[_suites]


def _misuse(error: Exception) -> pytest.UsageError:
    line = " ".join(str(error).split()).replace("--kind", "--iga-kind")
    return pytest.UsageError(f"--iga-target: {line}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The targets, or their invariants, as parameters of a test that asks for them."""
    names = [name for name in ("iga_target", "iga_invariant") if name in metafunc.fixturenames]
    if not names:
        return
    suites = _load(metafunc.config)
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
    """Add an item for each invariant of each target, unless a collected test takes them as its parameters; or for the
    search of each."""
    ids, searches = _ids(config), _fuzz in config.stash
    if config.stash.get(_used, False) and not ids and not searches:
        return
    made = _searches(session) if searches else _invariants(session)
    for one in ids:
        if not any(_named(item, one) for item in made):
            known = ", ".join(item.name for item in made if item.nodeid.startswith(one.rpartition("::")[0]))
            raise pytest.UsageError(f"not found: {one} ({'searches' if searches else 'invariants'}: {known})")
    items.extend(item for item in made if not ids or any(_named(item, one) for one in ids))


def _invariants(session: pytest.Session) -> list[pytest.Item]:
    made: list[pytest.Item] = []
    for suite in session.config.stash.get(_suites, []):
        make = partial(TargetCollector.from_parent, nodeid=f"{_PREFIX}{suite.name}")
        made.extend(make(session, name=suite.name, suite=suite).collect())
    return made


def _searches(session: pytest.Session) -> list[pytest.Item]:
    from iga.fuzz.in_pytest import SearchCollector

    fuzz, made = session.config.stash[_fuzz], list[pytest.Item]()
    for spec, facts in fuzz.plans.items():
        search = {
            "facts": facts,
            "seconds": fuzz.seconds,
            "base": fuzz.base,
            "seed": session.config.option.iga_seed,
        }
        of = SearchCollector.from_parent(session, name=spec, nodeid=f"{_PREFIX}{spec}", search=search)
        made.extend(of.collect())
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """With --iga-save a test under `@given` is watched."""
    config, test = item.config, getattr(item, "obj", None)
    if config.option.iga_save is None or not getattr(test, "is_hypothesis_test", False):
        return (yield)
    from iga.testing.failing import saving

    with saving(item, Path(config.option.iga_save), _specs(config)):
        return (yield)


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
