"""`parametrize_with_invariants`: the invariants of `iga verify` as the parameters of a test function of yours.

In the manner of scikit-learn's `parametrize_with_checks`: one test for each invariant, by its name. What a target
claims to break is marked as a strict expected failure, what does not apply is skipped with its reason. Collection
loads the target and looks no further; it is called when the first of its tests runs.
"""

import inspect
import shlex
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from iga.testing.checks import checks_of, require_known
from iga.testing.contract import PROFILES, Profile, the_profile
from iga.testing.result import Finding
from iga.testing.run import Run
from iga.testing.targets import OwnLayer, resolve
from iga.testing.verify import options_of_prepare, prepare

__all__ = ["InvariantBroken", "InvariantCheck", "Suite", "parametrize_with_invariants"]


class InvariantBroken(AssertionError):
    """An invariant is broken: the one failure that `expected_broken` expects. A vacuous check raises its parent."""


class Suite:
    """A target with everything that `iga.verify` takes beside it: its checks, and what they share.

    Arguments as for `iga.verify`. Raises ValueError for what can be told without calling the target: one that does not
    import or does not say its kind, an unknown profile or invariant.
    """

    def __init__(self, target: Any, **options: Any) -> None:
        inspect.signature(prepare).bind(target, **options)
        self.options = {"kind": None, "profile": "fast", "seed": 0, "structures": None} | options
        only = self.options.pop("only", None)
        the_profile(self.options["profile"])
        self.target = resolve(target, kind=self.options["kind"])
        kind, expected = self.target.kind, self.target.expected_broken
        require_known(only or (), kind)
        require_known(expected, kind, "expected_broken: ")
        self.name = self.target.name
        self._found: dict[str, Finding] = {}
        self.checks = [InvariantCheck(name, self, expected.get(name)) for name in only or checks_of(kind)]

    @cached_property
    def plan(self) -> Run:
        """What runs. ValueError for the misuse that calling the target or reading the structures brings to light."""
        return prepare(self.target, **self.options)

    def finding(self, name: str) -> Finding:
        """What a run of `name` alone finds; the checks of traces alone are made together, once."""
        if name not in self._found:
            checks = [one for one in self.plan.checks if one.name == name]
            if checks and checks[0].measure is None:
                checks = [one for one in self.plan.checks if one.measure is None]
            for finding in replace(self.plan, checks=checks).run().findings:
                self._found[finding.name] = finding
        return self._found[name]

    def parameters(self) -> list[Any]:
        """The checks as `pytest.param`, with their names as ids and a strict xfail on what is expected to be broken."""
        return [pytest.param(check, id=check.name, marks=check.marks) for check in self.checks]

    def command(self) -> str:
        """What reproduces the run: a command where the target can be named on one, else a line of Python."""
        options = {name: value for name, value in self.options.items() if value is not None and name != "on_progress"}
        profile = options["profile"]
        options["profile"] = profile = profile.name if isinstance(profile, Profile) else profile
        spec = self._spec()
        if spec is None or profile not in PROFILES or "layer" in options:
            return f"iga.verify({', '.join([self.name, *(f'{name}={value!r}' for name, value in options.items())])})"
        if "points" in options:
            options["points"] = ",".join(map(str, options["points"]))
        words = ["iga", "verify", *spec]
        for name, value in options.items():
            for one in value if name in ("structures", "only") else [value]:
                words += [f"--{name.replace('_', '-')}", str(one)]
        return shlex.join(words)

    def _spec(self) -> list[str] | None:
        """How the command line names the target; None for a function inside a function, a lambda or a config."""
        if isinstance(self.target, OwnLayer):
            return ["--preset", self.name] if self.target.preset else None
        if self.target.place is not None:
            return [self.target.place]
        function = self.target.function
        name = getattr(function, "__qualname__", "<no name>")
        try:
            file = inspect.getsourcefile(inspect.unwrap(function))
        except TypeError:  # a callable object, or one from a module without a file
            file = None
        if "<" in name or not file or not file.endswith(".py"):
            return None
        path = Path(file)
        return [f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{name}"]


class InvariantCheck:
    """One invariant of one target, as a callable: `check()` runs it alone.

    name      the invariant
    expected  why the target says that it is broken; None if it does not say so
    """

    def __init__(self, name: str, suite: Suite, expected: str | None = None) -> None:
        self.name, self.suite, self.expected = name, suite, expected

    def __repr__(self) -> str:
        return f"<{self.name} of {self.suite.name}>"

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        """A strict xfail, for verdict broken alone, if the target expects it."""
        if self.expected is None:
            return []
        return [pytest.mark.xfail(reason=self.expected, strict=True, raises=InvariantBroken)]

    def measure(self) -> Finding:
        """What the invariant's run found, whatever the verdict. KeyError if it does not apply."""
        return self.suite.finding(self.name)

    def __call__(self) -> Finding:
        """The finding, if the invariant holds.

        Raises InvariantBroken if it is broken, AssertionError for any other verdict, each with the finding and what
        reproduces it; skips, with the reason, what does not apply, or what the target claims not to support. ValueError
        if the target cannot be called at all.
        """
        __tracebackhide__ = True
        if reason := self.suite.plan.skipped.get(self.name):
            pytest.skip(f"{self.name} does not apply: {reason}")
        finding = self.measure()
        if finding.verdict == "not supported":
            pytest.skip(f"{self.name}: {finding.note}")
        if finding.verdict != "holds":
            raise (InvariantBroken if finding.verdict == "broken" else AssertionError)(self.message(finding))
        return finding

    def message(self, finding: Finding) -> str:
        """The finding in a few lines, the command that reproduces it last."""
        lines = [
            f"{finding.name} of {self.suite.name} is {finding.verdict}",
            f"  worst {finding.worst:.6g}, budget {finding.budget:.6g} ({finding.unit}); {finding.examples} examples",
        ]
        lines += [f"  at {finding.worst_example}"] if finding.worst_example else []
        lines += [f"  {finding.note}"] if finding.note else []
        return "\n".join([*lines, f"reproduce: {self.suite.command()}"])


@options_of_prepare(prepare)
def parametrize_with_invariants(*target: Any, **options: Any) -> pytest.MarkDecorator:
    """Decorator for a test function `def test_mine(invariant): invariant()`: one test for each invariant of `target`.

    Arguments as for `iga.verify`. The parameter is an `InvariantCheck`: calling it returns the finding if the invariant
    holds and raises AssertionError, with the finding and the command that reproduces it, if not. A failure that the
    target claims (`expected_broken`) is an expected one, and if it holds after all, the test fails. What does not apply
    is skipped.

    Raises ValueError for misuse that shows without calling the target; what shows only then is an error of each test.
    Source: docs/pytest.md.
    """
    return pytest.mark.parametrize("invariant", Suite(*target, **options).parameters())
