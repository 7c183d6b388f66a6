"""The pytest plugin and `parametrize_with_invariants`, in runs of pytest inside this one."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import iga
from iga.testing.contract import PROFILES
from iga.testing.parametrize import InvariantBroken, InvariantCheck, Suite
from iga.testing.tally import Tally
from iga.testing.targets import Target

pytest_plugins = ["pytester"]

PLUGIN = ("-p", "iga.testing.plugin", "-p", "no:cacheprovider")

MINE = """
import iga
import torch
from iga.testing import target

def right(*pair):
    return iga.gaussian_overlap(*pair)

def wrong(*pair):
    dist_sq, log_det = right(*pair)
    return dist_sq * 1.001, log_det

seen = ("accuracy", "gradient_values", "reduced_precision")
broken = {name: "a thousandth too large" for name in seen}

@target(kind="overlap", expected_broken=broken, dtypes=(torch.float32,))
def known(*pair):
    return wrong(*pair)

@target(kind="overlap", dtypes=(torch.float64,))
def double(*pair):
    return right(*pair)

@target(kind="overlap", expected_broken={"determinism": "no, it repeats itself"})
def better_than_it_says(*pair):
    return right(*pair)

@target(kind="overlap", expected_broken={"no_such_name": "nothing"})
def misnamed(*pair):
    return right(*pair)

@target(kind="overlap")
def one_argument(pair):
    return pair
"""

QUICK = ("accuracy", "score_laws", "determinism")


SMALL = {
    "synthetic": 4,
    "perturb_every": 6,
    "residues": 12,
    "degenerate": 8,
    "focus": 1,
    "focus_residues": 16,
    "pairs": 2000,
}


@pytest.fixture(scope="module", autouse=True)
def compilers_are_loaded() -> None:
    """Their modules register themselves once, and runs inside this one put sys.modules back."""
    torch.compile(torch.sin, backend="aot_eager")(torch.ones(1, requires_grad=True)).backward()
    torch.export.export(torch.nn.Linear(1, 1), (torch.ones(1),)).module()


@pytest.fixture(autouse=True)
def inner_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inner runs are of this plugin alone, installed or not; and small."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setitem(PROFILES, "fast", replace(PROFILES["fast"], **SMALL))


@pytest.fixture
def mine(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder with the targets above, where pytest runs with the plugin and nothing of this repository's settings."""
    pytester.makepyfile(mine=MINE)
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return pytester


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess(*PLUGIN, *arguments)


def test_a_correct_function_is_green_and_what_does_not_apply_is_skipped_with_its_reason(mine: pytest.Pytester) -> None:
    result = run(mine, "--iga-target", "mine.py:double", "-v", "-rs", "-k", "not calls_agree")
    assert result.ret == 0
    outcomes = result.parseoutcomes()
    assert outcomes.keys() == {"passed", "skipped", "deselected"} and outcomes["passed"] >= 7
    result.stdout.fnmatch_lines(
        ["iga::mine.py:double::accuracy PASSED*", "*reduced_precision does not apply: needs float32*"]
    )


def test_a_wrong_function_is_red_and_says_what_where_and_how_to_see_it_again(mine: pytest.Pytester) -> None:
    result = run(mine, "--iga-target", "mine.py:wrong", "--iga-kind", "overlap", "--iga-seed", "3", "-k", "accuracy")
    assert result.ret == 1
    result.assert_outcomes(failed=1, deselected=len(Suite(iga.gaussian_overlap, kind="overlap").checks) - 1)
    result.stdout.fnmatch_lines(
        [
            "accuracy of mine.py:wrong is broken",
            "  worst *, budget *",
            "  at *sigma*",
            "reproduce: iga verify mine.py:wrong --kind overlap --profile fast --seed 3*",
            "FAILED iga::mine.py:wrong::accuracy*",
        ]
    )
    result.stdout.no_fnmatch_line("*parametrize.py*")


def test_expected_failures_are_expected_and_one_that_holds_fails(mine: pytest.Pytester) -> None:
    result = run(mine, "--iga-target", "mine.py:known", "-rx", "-k", "not calls_agree")
    assert result.ret == 0
    assert result.parseoutcomes()["xfailed"] == 3
    result.stdout.fnmatch_lines(["XFAIL*accuracy*a thousandth too large"])
    result = run(mine, "--iga-target", "mine.py:better_than_it_says", "-k", "determinism")
    assert result.ret == 1 and result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(["*XPASS(strict)*no, it repeats itself"])


def test_an_id_that_pytest_prints_runs_that_item_and_no_other(mine: pytest.Pytester) -> None:
    """Alone, as all of a target, beside a test file, and beside other targets."""
    mine.makepyfile(test_other="def test_other(): pass")
    kind = ("--iga-kind", "overlap")
    printed = run(mine, "--iga-target", "mine.py:wrong", *kind, "-k", "accuracy").stdout.str()
    (one,) = re.findall(r"^FAILED (iga::\S+)", printed, flags=re.MULTILINE)
    result = run(mine, one, *kind, "-v")
    result.assert_outcomes(failed=1)
    result = run(mine, "iga::mine.py:right::determinism", "test_other.py", "--iga-target", "mine.py:known", *kind)
    result.assert_outcomes(passed=2)
    assert run(mine, "iga::mine.py:right", *kind, "-k", "determinism").parseoutcomes()["passed"] == 1


def test_the_id_of_a_fixture_s_item_runs_that_item(mine: pytest.Pytester) -> None:
    mine.makepyfile(test_mine="def test_gate(iga_target, iga_invariant): iga_invariant()")
    targets = ("--iga-target", "mine.py:right", "--iga-target", "mine.py:wrong", "--iga-kind", "overlap")
    result = run(mine, *targets, "test_mine.py::test_gate[mine.py:wrong-accuracy]")
    result.assert_outcomes(failed=1)
    assert "test_mine.py::test_gate[mine.py:wrong-accuracy]" in result.stdout.str()


def test_an_id_that_is_none_names_those_there_are(mine: pytest.Pytester) -> None:
    result = run(mine, "iga::mine.py:known::accurcy")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: not found: iga::mine.py:known::accurcy (invariants: *accuracy*)"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--iga-target", "mine.py:right"], "say what it is, --iga-kind overlap or --iga-kind layer"),
        (["--iga-target", "mine.py:one_argument"], "cannot be called as an overlap"),
        (["--iga-target", "mine.py:misnamed"], "unknown invariant 'no_such_name'"),
        (["--iga-target", "bounded"], "names no target"),
        (["--iga-target", "mine.py:known", "--iga-structures", "nowhere/"], "nowhere"),
    ],
)
def test_misuse_is_one_line_and_exit_code_4(mine: pytest.Pytester, arguments: list[str], said: str) -> None:
    result = run(mine, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if line.strip()]
    assert line.startswith("ERROR: --iga-target: ") and said in line


def test_the_fixtures_take_the_place_of_the_ready_made_items(mine: pytest.Pytester) -> None:
    mine.makepyfile(
        """
        def test_gate(iga_target, iga_invariant):
            assert iga_target.kind == "overlap"
            assert iga_invariant().verdict == "holds"

        def test_options(iga_profile, iga_seed, iga_structures):
            assert (iga_profile, iga_seed, iga_structures) == ("fast", 7, None)
        """
    )
    targets = ("--iga-target", "mine.py:right", "--iga-target", "mine.py:wrong", "--iga-kind", "overlap")
    result = run(mine, *targets, "--iga-seed", "7", "-v", "-k", "accuracy or determinism or options")
    result.assert_outcomes(
        passed=4, failed=1, deselected=2 * (len(Suite(iga.gaussian_overlap, kind="overlap").checks) - 2)
    )
    result.stdout.fnmatch_lines(["*::test_gate?mine.py:wrong-accuracy? FAILED*"])
    result.stdout.no_fnmatch_line("iga::*")


def test_without_a_target_nothing_is_added_and_what_needs_one_is_skipped(mine: pytest.Pytester) -> None:
    mine.makepyfile("def test_gate(iga_invariant): iga_invariant()\ndef test_other(): pass")
    result = run(mine, "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*no --iga-target given"])


def test_the_decorator_makes_a_test_of_each_invariant(mine: pytest.Pytester) -> None:
    mine.makepyfile(
        f"""
        import mine
        from iga.testing import parametrize_with_invariants

        @parametrize_with_invariants(mine.right, kind="overlap", only={QUICK})
        def test_right(invariant):
            assert invariant().worst <= 1

        @parametrize_with_invariants(mine.wrong, kind="overlap", only=["accuracy"])
        def test_wrong(invariant):
            invariant()

        @parametrize_with_invariants(mine.known, only=["accuracy"])
        def test_known(invariant):
            invariant()

        @parametrize_with_invariants(mine.double, only=["reduced_precision"])
        def test_double(invariant):
            invariant()

        @parametrize_with_invariants(mine.better_than_it_says, only=["determinism"])
        def test_better(invariant):
            invariant()
        """
    )
    result = run(mine, "-v")
    result.assert_outcomes(passed=3, failed=2, xfailed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*::test_right?accuracy? PASSED*",
            "*::test_wrong?accuracy? FAILED*",
            "*::test_known?accuracy? XFAIL*",
            "*::test_double?reduced_precision? SKIPPED*",
            "*::test_better?determinism? FAILED*",
            "E *InvariantBroken: accuracy of wrong is broken",
            "E *reproduce: iga verify mine.py:wrong --kind overlap --profile fast --seed 0*",
        ]
    )


def test_misuse_of_the_decorator_is_told_at_once() -> None:
    parametrize = iga.testing.parametrize_with_invariants
    with pytest.raises(ValueError, match="say what it is"):
        parametrize(iga.gaussian_overlap)
    with pytest.raises(ValueError, match="unknown invariant 'speed'; invariants: accuracy"):
        parametrize(iga.gaussian_overlap, kind="overlap", only=["speed"])
    with pytest.raises(ValueError, match="unknown profile 'slow'"):
        parametrize(iga.gaussian_overlap, kind="overlap", profile="slow")


def test_one_invariant_alone_finds_what_the_whole_run_finds() -> None:
    names = ["log_det_floor", "dist_sq_bound", "determinism", "small_sizes"]
    report = iga.verify("bounded", only=names, seed=1, points=(1,))
    suite = Suite("bounded", only=names, seed=1, points=(1,))
    assert [check.measure() for check in suite.checks] == report.findings


def test_an_expected_failure_is_a_broken_one_and_not_a_vacuous_one() -> None:
    target = Target("f", "overlap", iga.gaussian_overlap, expected_broken={"accuracy": "known"})
    (check,) = Suite(target, only=["accuracy"]).checks
    (mark,) = check.marks
    assert mark.kwargs == {"reason": "known", "strict": True, "raises": InvariantBroken}
    vacuous, broken = Tally("accuracy", "1"), Tally("accuracy", "1")
    broken.add(2.0, 1.0, "here")
    assert _raised(check, vacuous) is AssertionError
    assert _raised(check, broken) is InvariantBroken


def _raised(check: InvariantCheck, tally: Tally) -> type[BaseException]:
    check.suite._found[check.name] = tally.finding()
    with pytest.raises(AssertionError) as raised:
        check()
    return raised.type


def test_the_line_that_reproduces_a_finding_is_a_command_where_there_is_one() -> None:
    def inner(*pair: object) -> object:
        return iga.gaussian_overlap(*pair)

    assert (
        Suite(inner, kind="overlap").command().startswith("iga.verify(")
        and "kind='overlap'" in Suite(inner, kind="overlap").command()
    )
    assert Suite("bounded", seed=2).command() == "iga verify --preset bounded --profile fast --seed 2"
    suite = Suite("bounded", points=(1, 8), structures=["a b.pdb", "c/"], sigma_min=0.05)
    words = shlex.split(suite.command())
    assert words[words.index("--structures") + 1] == "a b.pdb" and words.count("--structures") == 2
    assert words[-4:] == ["--points", "1,8", "--sigma-min", "0.05"]


@pytest.mark.process
def test_the_plugin_is_light_until_a_target_is_given(tmp_path: Path) -> None:
    code = (
        "import sys, pytest, iga.testing.plugin\n"
        "for arguments in (['--version'], ['-p', 'iga.testing.plugin', '--collect-only', '-q']):\n"
        "    pytest.main(arguments)\n"
        "print(*sorted(sys.modules), sep='\\n')"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.splitlines())
    assert not {name.split(".")[0] for name in loaded} & {"torch", "numpy", "hypothesis", "jaxtyping", "gemmi", "typer"}
    own = {"iga", "iga.testing", "iga.testing.contract", "iga.testing.plugin"}
    assert {name for name in loaded if name.startswith("iga")} == own


@pytest.fixture
def few_examples() -> Iterator[None]:
    name = settings.get_current_profile_name()
    settings.register_profile("few", settings.get_profile(name), max_examples=8)
    settings.load_profile("few")
    yield
    settings.load_profile(name)


def test_what_the_guide_shows_runs(pytester: pytest.Pytester, few_examples: None) -> None:
    guide = (Path(__file__).resolve().parents[3] / "docs" / "pytest.md").read_text(encoding="utf-8")
    for name, code in re.findall(r"```python\n# (\S+\.py)\n(.*?)```", guide, flags=re.DOTALL):
        pytester.path.joinpath(name).write_text(code, encoding="utf-8")
    commands = [line for block in re.findall(r"```sh\n(.*?)```", guide, flags=re.DOTALL) for line in block.splitlines()]
    assert len(commands) >= 7
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "pytest"
        quick = [] if "accuracy" in command else ["-k", "determinism or not_negative or bias or finite"]
        result = run(pytester, *arguments, *quick)
        assert result.ret == 0, command
        assert "passed" in result.parseoutcomes(), command
