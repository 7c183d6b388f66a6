"""The suite behind `iga verify` and `iga faults`: judges, checks, planted faults, and the run over all of them.

The public names load on first use, so that the pytest plugin never waits for torch. `target` is the decorator; the
module behind it is `iga.testing.targets`. `verify` is a module here; the function is `iga.verify`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# name → the module that defines it; none has a module's name, which the module would take over when it is imported
_PUBLIC = {
    "Target": "iga.testing.targets",
    "parametrize_with_invariants": "iga.testing.parametrize",
    "target": "iga.testing.targets",
}

__all__ = sorted(_PUBLIC)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from iga.testing.parametrize import parametrize_with_invariants as parametrize_with_invariants
    from iga.testing.targets import Target as Target
    from iga.testing.targets import target as target


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'iga.testing' has no attribute {name!r}; public names: {', '.join(sorted(_PUBLIC))}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
