"""The list of checks: whole, without a name twice, and in the order of the folders."""

import importlib
import pkgutil

import iga.testing.layer
import iga.testing.library
import iga.testing.overlap
from iga.testing.check import Check
from iga.testing.checks import CHECKS, LIBRARIES, checks_of


def test_every_check_that_is_written_is_listed_once() -> None:
    written = set()
    for folder in (iga.testing.layer, iga.testing.overlap, iga.testing.library):
        for module in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
            written |= {id(x) for x in vars(importlib.import_module(module.name)).values() if isinstance(x, Check)}
    assert [id(check) for check in CHECKS if id(check) not in written] == []
    assert len(written) == len(CHECKS) == len({(check.kind, check.name) for check in CHECKS})
    assert {check.kind for check in CHECKS} == {"layer", "overlap", *LIBRARIES}


def test_a_layer_is_judged_with_the_functions_of_the_package_and_an_overlap_alone() -> None:
    assert set(checks_of("layer")) > set(checks_of("frames")) | set(checks_of("diagnostics"))
    assert {check.kind for check in checks_of("overlap").values()} == {"overlap"}
