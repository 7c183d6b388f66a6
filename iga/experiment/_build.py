"""Frozen dataclasses from nested mappings: every key and every type checked, every error with the dotted name."""

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

__all__ = ["built", "merge", "nested", "refuse_unknown", "typed_field"]

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def built(cls: type, tree: object, section: str) -> Any:
    """`cls` from a mapping; dataclasses among its fields are sections. ValueError names what does not fit."""
    if not isinstance(tree, Mapping):
        raise ValueError(f"{section or 'the settings'} must be a mapping of keys to values, got {tree!r}")
    values = {key: typed_field(cls, key, value, section) for key, value in tree.items()}
    for entry in fields(cls):
        if entry.name not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise ValueError(f"{_dotted(section, entry.name)} is missing; give it a value")
    return cls(**values)


def typed_field(cls: type, key: Any, value: Any, section: str) -> Any:
    """`value` as the field `key` of `cls` has it, or ValueError that names section.key."""
    hints = typing.get_type_hints(cls)
    if key not in hints:
        raise ValueError(_unknown(cls, key, section))
    return _typed(hints[key], value, _dotted(section, key))


def refuse_unknown(cls: type, path: Sequence[str]) -> None:
    """ValueError where a dotted key names nothing in `cls`. What a field of mappings may hold is its owner's to say."""
    current: Any = cls
    for depth, key in enumerate(path):
        section = ".".join(path[:depth])
        if typing.get_origin(current) is dict:
            return
        if not is_dataclass(current):
            raise ValueError(f"unknown key {'.'.join(path)!r}: {section} is a value, not a section")
        hints = typing.get_type_hints(current)
        if key not in hints:
            raise ValueError(_unknown(typing.cast(type, current), key, section))
        current = hints[key]


def merge(tree: dict[str, Any], other: Mapping[str, Any]) -> None:
    """`other` into `tree`, key by key, in place; a mapping is merged, anything else replaces what was there."""
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            merge(tree[key], value)
        else:
            tree[key] = dict(value) if isinstance(value, Mapping) else value


def nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for the path ("a", "b")."""
    for key in reversed(path):
        value = {key: value}
    return value


def _typed(expected: Any, value: Any, name: str) -> Any:
    """A whole number is a number too; true and false are neither; null stands where the field may be None."""
    if is_dataclass(expected):
        return built(typing.cast(type, expected), value, name)
    origin, options = typing.get_origin(expected), typing.get_args(expected)
    if origin is types.UnionType:
        (inner,) = [option for option in options if option is not types.NoneType]
        return None if value is None else _typed(inner, value, name)
    if origin is typing.Literal:
        if value not in options:
            raise ValueError(f"{name} must be one of {', '.join(map(str, options))}; got {value!r}")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_typed(options[0], part, f"{name}[{i}]") for i, part in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if expected is float and type(value) in (int, float):
        return float(value)
    if origin is None and type(value) is expected:
        return value
    kind = _KINDS.get(expected) or ("a list" if origin is tuple else "a mapping")
    raise ValueError(f"{name} must be {kind}, got {value!r}")


def _unknown(cls: type, key: Any, section: str) -> str:
    known = ", ".join(entry.name for entry in fields(cls))
    return f"unknown key {_dotted(section, key)!r}; keys of {section or 'the settings'}: {known}"


def _dotted(section: str, key: Any) -> str:
    return f"{section}.{key}" if section else str(key)
