"""Does a value fit a field's annotation? Checking, converting and describing the types that configuration may have."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import types
import typing
from typing import Any, Literal, Union

from aya_jax.config.errors import near_names
from aya_jax.config.registry import CONFIGURABLES
from aya_jax.config.source import Reference
from aya_jax.config.tree import Node, plain

_PLAIN = {int: "int", float: "float", str: "str", bool: "bool", type(None): "None", Any: "any value"}
_MAPPINGS = (dict, collections.abc.Mapping)
_UNIONS = (Union, types.UnionType)


class Mismatch(Exception):
    """A value does not fit; `expected` says what would, `near` the names that may have been meant."""

    def __init__(self, expected: str, near: tuple[str, ...] = ()):
        super().__init__(expected)
        self.expected, self.near = expected, near


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """The annotation of each field of a configuration class that is set when it is built, in order."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def is_configurable(hint: Any) -> bool:
    """Whether an annotation is a configuration class itself (not a union that holds one)."""
    return isinstance(hint, type) and CONFIGURABLES.get(hint.__name__) is hint


def classes_in(hint: Any) -> set[type]:
    """The configuration classes that a value of this type may hold."""
    if is_configurable(hint):
        return {hint}
    return set().union(*(classes_in(arg) for arg in typing.get_args(hint)))


def reachable(root: type) -> list[type]:
    """A configuration class and all those that objects of it may hold, nearest first."""
    found = [root]
    for cls in found:
        for hint in field_types(cls).values():
            found += sorted(classes_in(hint) - set(found), key=lambda other: other.__name__)
    return found


def describe(hint: Any) -> str:
    """The type in words for a user: "int", "one of 'adamw', 'sgd'", "tuple of str", "@MeshConfig()"."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin in _UNIONS:
        return " or ".join(describe(arg) for arg in args)
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return f"tuple of {describe(args[0])}"
        return f"tuple ({', '.join(map(describe, args))})"
    if origin in _MAPPINGS:
        return f"dict of {describe(args[0])} to {describe(args[1])}"
    if is_configurable(hint):
        return f"@{hint.__name__}()"
    return getattr(hint, "__name__", str(hint))


def convert(value: Any, hint: Any) -> Any:
    """The value as the field holds it: an int becomes a float where a float is wanted, a list becomes a tuple.

    Raises:
      Mismatch: the value does not fit the type.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if isinstance(value, Reference):
        raise Mismatch(f"expected {describe(hint)}: write @{value.name}() with parentheses")
    if origin is Literal:
        return _convert_literal(value, args)
    if origin in _UNIONS:
        return _convert_union(value, hint, args)
    if origin is tuple or hint is tuple:
        return _convert_tuple(value, hint, args)
    if origin in _MAPPINGS or hint in _MAPPINGS:
        return _convert_dict(value, hint, args)
    if isinstance(value, Node):
        if isinstance(hint, type) and issubclass(value.cls, hint):
            return value
        raise Mismatch(f"expected {describe(hint)}, not a {value.cls.__name__}")
    if hint is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise Mismatch("expected a float, and this is too large for one") from None
    if type(value) is hint or (hint is None and value is None):
        return value
    if hint is float and isinstance(value, str) and value.strip("+-") == "inf":
        raise Mismatch("expected a float; infinity is written 1e999")
    if hint is str and isinstance(value, int | float):
        raise Mismatch(f"expected str: write '{value}' in quotes")
    if hint is int and isinstance(value, float) and value.is_integer():
        raise Mismatch(f"expected int: write {int(value)}")
    raise Mismatch(f"expected {describe(hint)}")


def _convert_literal(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if value == choice and type(value) is type(choice):
            return choice
    near = near_names(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else ()
    raise Mismatch(f"expected one of {', '.join(map(repr, choices))}", near)


def _convert_union(value: Any, hint: Any, members: tuple[Any, ...]) -> Any:
    """The first member that takes the value as it is, else the first that can convert it."""
    fits, mismatches = [], []
    for member in members:
        try:
            fits.append(convert(value, member))
        except Mismatch as mismatch:
            mismatches.append(mismatch)
    for fit in fits:
        if type(fit) is type(value):
            return fit
    if fits:
        return fits[0]
    containers = [m for m, member in zip(mismatches, members, strict=True) if _same_container(value, member)]
    if len(containers) == 1:
        raise containers[0]
    raise Mismatch(f"expected {describe(hint)}", next((m.near for m in mismatches if m.near), ()))


def _same_container(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint) or hint
    return (isinstance(value, dict) and origin in _MAPPINGS) or (isinstance(value, list | tuple) and origin is tuple)


def _convert_tuple(value: Any, hint: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        one = describe(args[0]) if args else "value"
        raise Mismatch(f"expected {describe(hint)}: write ({plain(value)!r},) for one {one}")
    if not args:
        return tuple(value)
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(value)
    if len(args) != len(value):
        raise Mismatch(f"expected {describe(hint)}, {len(args)} items and not {len(value)}")
    items = zip(value, args, strict=True)
    return tuple(_convert_item(item, arg, f"item {index}") for index, (item, arg) in enumerate(items))


def _convert_dict(value: Any, hint: Any, args: tuple[Any, ...]) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise Mismatch(f"expected {describe(hint)}")
    key_type, value_type = args or (Any, Any)
    return {
        _convert_item(key, key_type, f"key {key!r}"): _convert_item(item, value_type, f"{key!r}")
        for key, item in value.items()
    }


def _convert_item(value: Any, hint: Any, name: str) -> Any:
    try:
        return convert(value, hint)
    except Mismatch as mismatch:
        raise Mismatch(f"in {name}, {mismatch.expected}", mismatch.near) from None
