"""YAML as settings are written in it: PyYAML's safe loader, with numbers as YAML 1.2 reads them.

PyYAML follows YAML 1.1, in which 1e-3 is text, on and off are truth values, and a key may stand twice. Here 1e-3 is a
number, and a key that stands twice is an error.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

__all__ = ["dump", "parse", "parse_mapping"]

_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INT = re.compile(r"[-+]?[0-9]+")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")


class _Loader(yaml.SafeLoader):
    """Builds plain values only, as SafeLoader does."""

    # The resolvers of YAML 1.1 for null and the merge key stay; those for numbers and truth values are replaced.
    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[-1] in ("null", "merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would read as something else."""

    yaml_implicit_resolvers = {first: list(found) for first, found in yaml.SafeDumper.yaml_implicit_resolvers.items()}


for _kind in (_Loader, _Dumper):
    # In this order: the first that matches the whole text wins, and every whole number matches _FLOAT too.
    _kind.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(f"^({_BOOL.pattern})$"), list("tTfF"))
    _kind.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(f"^({_INT.pattern})$"), list("-+0123456789"))
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^({_FLOAT.pattern})$"), list("-+.0123456789"))


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    loader.flatten_mapping(node)
    seen: dict[Hashable, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise ValueError(f"a key must be a plain value, got {key!r} in line {key_node.start_mark.line + 1}")
        if key in seen:
            raise ValueError(f"the key {key!r} stands twice, the second time in line {key_node.start_mark.line + 1}")
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


def _whole(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(node.value)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
# YAML 1.1 reads 010 as eight and 1_000 as a thousand; a whole number here is its decimal digits.
_Loader.add_constructor("tag:yaml.org,2002:int", _whole)


def parse(text: str, source: str) -> Any:
    """The value of `text`; empty text is null. Raises ValueError that names `source` where it is no YAML."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: plain values only
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is no YAML: {' '.join(str(error).split())}") from error


def parse_mapping(text: str, source: str) -> dict[str, Any]:
    """`parse`, where only a mapping will do."""
    value = parse(text, source)
    if not isinstance(value, dict):
        raise ValueError(f"{source} must be a mapping of keys to values, got {value!r}")
    return value


def dump(value: Any) -> str:
    """Plain values as YAML, keys in their order; `parse` gives them back exactly, tuples as lists."""
    return yaml.dump(_plain(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
