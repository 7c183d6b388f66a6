"""Dataclasses from YAML and plain mappings, read, merged and checked by OmegaConf; every error is one line.

A key that does not exist and a value of another type are errors that name what does exist. A reference (`${…}`) to
another value or to the environment is refused, and so is a value that is left open (`???`).
"""

import functools
import typing
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

__all__ = ["built", "override", "parsed", "refuse_references"]

# What a field of each type holds, in the words of a message.
_KINDS = {
    int: "a whole number",
    float: "a number",
    float | None: "a number or null",
    bool: "true or false",
    str: "text",
    tuple[str, ...]: "a list of texts",
}
_T = TypeVar("_T")


def built(cls: type[_T], *parts: Any, source: str = "the settings") -> _T:
    """The dataclass `cls` from mappings, of which a later one wins, key by key.

    Raises ValueError of one line that names the key and what was expected there.
    """
    for part in parts:
        if not isinstance(part, Mapping):
            raise ValueError(f"{source} must be a mapping of keys to values, got {part!r}")
    try:
        configs = [OmegaConf.create(dict(part)) if isinstance(part, dict) else part for part in parts]
        for config in configs:
            _refuse_gaps(cls, config)
        tree = OmegaConf.merge(_template(cls), *configs)
        if missing := OmegaConf.missing_keys(tree):
            raise ValueError(f"{min(missing)} is missing; give it a value")
        return typing.cast(_T, OmegaConf.to_object(tree))
    except (OmegaConfBaseException, TypeError) as error:
        raise ValueError(_words(error, source)) from error


@functools.cache
def _template(cls: type) -> Any:
    return OmegaConf.structured(cls)


def _refuse_gaps(cls: type, config: Any) -> None:
    """ValueError for a value that is left open (`???`), which OmegaConf passes over, and for one where a section is."""
    if missing := OmegaConf.missing_keys(config):
        raise ValueError(f"{min(missing)} must not be ???; give it a value")
    for key, kind in typing.get_type_hints(cls).items():
        if is_dataclass(kind) and not isinstance(config.get(key, {}), Mapping):
            raise ValueError(f"{key} must be a mapping of keys to values, got {config[key]!r}")


def _words(error: Exception, source: str) -> str:
    """One line for an error of OmegaConf, or for its TypeError where a list meets a mapping."""
    first = str(error).partition("\n")[0]
    if not isinstance(error, OmegaConfBaseException):
        return f"{source}: {first}"
    key, owner = error.full_key or "", error.object_type
    known = typing.get_type_hints(owner) if is_dataclass(owner) else {}
    section, _, name = key.rpartition(".")
    if isinstance(error, ConfigKeyError):
        return f"unknown key {key!r}; keys of {section or source}: {', '.join(known)}"
    return (
        f"{key or source} must be {_KINDS[known[name]]}: {first}"
        if known.get(name) in _KINDS
        else f"{key or source}: {first}"
    )


def parsed(text: str, source: str) -> Any:
    """The mapping or list that YAML text holds. Raises ValueError that names `source` where it is none."""
    return _read(OmegaConf.create, text, source)


def override(text: str) -> Any:
    """The mapping that "KEY=VALUE" means, KEY dotted and VALUE in YAML. Raises ValueError where it is none."""
    key, separator, value = text.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not separator or not all(path):
        raise ValueError(f"an override must be KEY=VALUE, as training.lr=1e-3, got {text!r}")
    name = ".".join(path)
    return _read(OmegaConf.from_dotlist, [f"{name}={value}"], f"the value of {name}")


def refuse_references(text: str, source: str) -> None:
    """ValueError where `text` refers to another value or to the environment, which OmegaConf would look up."""
    if "${" in text:
        raise ValueError(f"{source}: a reference (${{…}}) is not followed; write the value that it stands for")


def _read(reader: Callable[[Any], Any], given: Any, source: str) -> Any:
    refuse_references(str(given), source)
    try:
        return reader(given)
    except Exception as error:  # OmegaConf hands on whatever its YAML parser raises
        words = " ".join(str(error).split()) or "neither a mapping nor a list"
        raise ValueError(f"{source} is no YAML: {words}") from error
