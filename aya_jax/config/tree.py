"""The tree of configuration objects as it was built: each field with the place that its value came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from aya_jax.config.source import Binding


@dataclasses.dataclass(frozen=True)
class Entry:
    """One field of a node.

    Attributes:
      content: plain data, a `Node`, or tuples and dicts of these.
      binding: what gave the value; None for a default.
      macro: the binding of the macro that the value was, or None.
      broken: whether the value is missing or wrong (and has been reported).
    """

    content: Any
    binding: Binding | None = None
    macro: Binding | None = None
    broken: bool = False

    @property
    def written(self) -> Binding | None:
        """The binding in which the value itself was written."""
        return self.macro or self.binding


@dataclasses.dataclass(frozen=True)
class Node:
    """One configuration object: its class, its fields in order, and the object itself.

    `broken` says that something in it or below it is wrong; `value` then lacks what is wrong.
    """

    cls: type
    entries: dict[str, Entry]
    value: Any
    broken: bool = False


def plain(content: Any) -> Any:
    """The content with each node replaced by its object."""
    if isinstance(content, Node):
        return content.value
    if isinstance(content, tuple | list):
        return type(content)(plain(item) for item in content)
    if isinstance(content, dict):
        return {key: plain(item) for key, item in content.items()}
    return content


def children(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
    """The nodes directly in a content, with their path below it."""
    if isinstance(content, Node):
        yield path, content
    elif isinstance(content, tuple | list):
        for index, item in enumerate(content):
            yield from children(item, (*path, str(index)))
    elif isinstance(content, dict):
        for key, item in content.items():
            yield from children(item, (*path, str(key)))


def walk(node: Node, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
    """Every node of the tree with its path, leaves before what holds them."""
    for name, entry in node.entries.items():
        for below, child in children(entry.content, (*path, name)):
            yield from walk(child, below)
    yield path, node


def find_entry(node: Node, path: tuple[str, ...]) -> tuple[Node, str, Entry] | None:
    """The deepest field on the way along `path` with the node that holds it, or None if not even the first is one."""
    if not path or path[0] not in node.entries:
        return None
    entry = node.entries[path[0]]
    for below, child in children(entry.content):
        if path[1 : 1 + len(below)] == below:
            deeper = find_entry(child, path[1 + len(below) :])
            if deeper is not None:
                return deeper
    return node, path[0], entry
