"""Frames and Gaussians as torch pytrees, so that torch.export and torch.func look inside them."""

from dataclasses import fields
from typing import Any

from torch.utils import _pytree

__all__ = ["as_pytree"]


def as_pytree(cls: type) -> None:
    """Register a dataclass: its fields are its children, in order.

    Putting it together again skips the constructor and its checks: a transform may hold anything in place of a tensor.
    """
    names = [field.name for field in fields(cls)]

    def flatten(value: Any) -> tuple[list[Any], None]:
        return [getattr(value, name) for name in names], None

    def flatten_with_keys(value: Any) -> tuple[list[tuple[Any, Any]], None]:
        return [(_pytree.GetAttrKey(name), getattr(value, name)) for name in names], None

    def unflatten(children: Any, context: None) -> Any:
        value = object.__new__(cls)
        for name, child in zip(names, children, strict=True):
            object.__setattr__(value, name, child)
        return value

    _pytree.register_pytree_node(
        cls,
        flatten,
        unflatten,
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        flatten_with_keys_fn=flatten_with_keys,
    )
