"""Writing a configuration down as gin: the operative text from which the same configuration is built again."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

from aya_jax.config.source import Macro, Reference
from aya_jax.config.tree import Node, children

_WIDTH = 110


def literal(value: Any, indent: str = "") -> str:
    """Plain data as a gin literal, over several lines where it is long.

    Raises:
      TypeError: the value cannot be written in gin: not a number (NaN), or no plain data.
    """
    one_line = _one_line(value)
    if len(indent) + len(one_line) <= _WIDTH or not isinstance(value, tuple | list | dict):
        return one_line
    deeper = indent + "    "
    if isinstance(value, dict):
        items = [f"{_one_line(key)}: {literal(item, deeper)}" for key, item in value.items()]
        opening, closing = "{", "}"
    else:
        items = [literal(item, deeper) for item in value]
        opening, closing = ("(", ")") if isinstance(value, tuple) else ("[", "]")
    return f"{opening}\n" + "".join(f"{deeper}{item},\n" for item in items) + f"{indent}{closing}"


def _one_line(value: Any) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            raise TypeError("gin has no way to write NaN")
        return repr(value) if math.isfinite(value) else ("1e999" if value > 0 else "-1e999")
    if value is None or isinstance(value, bool | int | str):
        return repr(value)
    if isinstance(value, Reference):
        return "@" + "/".join(filter(None, [value.scope, value.name])) + "()"
    if isinstance(value, Macro):
        return f"%{value.name}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_one_line, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(_one_line, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_one_line(key)}: {_one_line(item)}" for key, item in value.items()) + "}"
    raise TypeError(f"no gin literal for {type(value).__name__}")


class _Writer:
    """Writes every object's bindings: under the class name alone, or in a scope where two of a class differ."""

    def __init__(self, root: Node):
        self._root = root
        self._scopes: set[str] = set()
        self.macros: dict[str, str] = {}
        self.blocks: dict[tuple[str, str], list[tuple[str, str]]] = {}

    def reference(self, node: Node, path: tuple[str, ...]) -> Reference:
        """Writes a node, what it holds first, and returns how gin refers to it."""
        lines = [(name, self._field(node, name, (*path, name))) for name in node.entries]
        name = node.cls.__name__
        scope = self._scope_for(node, lines, path)
        self._scopes.add(scope)
        self.blocks[scope, name] = lines
        return Reference(scope, name, called=True)

    def _scope_for(self, node: Node, lines: list[tuple[str, str]], path: tuple[str, ...]) -> str:
        name = node.cls.__name__
        for scope, other in self.blocks:
            if other == name and self.blocks[scope, other] == lines:
                return scope
        if node is self._root or (name != self._root.cls.__name__ and ("", name) not in self.blocks):
            return ""
        wanted = "at_" + "_".join(re.sub(r"[^A-Za-z0-9]", "_", part) for part in path)
        numbered = (f"{wanted}_{number}" for number in itertools.count(2))
        return next(scope for scope in itertools.chain([wanted], numbered) if scope not in self._scopes)

    def _field(self, node: Node, name: str, path: tuple[str, ...]) -> str:
        entry = node.entries[name]
        if entry.macro is not None and not any(children(entry.content)) and not _mentions(entry.macro.value):
            macro = str(entry.macro.key)
            self.macros[macro] = literal(entry.macro.value)
            return f"%{macro}"
        return literal(self._content(entry.content, path), "    ")

    def _content(self, content: Any, path: tuple[str, ...]) -> Any:
        if isinstance(content, Node):
            return self.reference(content, path)
        if isinstance(content, tuple | list):
            return tuple(self._content(item, (*path, str(index))) for index, item in enumerate(content))
        if isinstance(content, dict):
            return {key: self._content(item, (*path, str(key))) for key, item in content.items()}
        return content


def _mentions(value: Any) -> bool:
    """Whether a value holds references or further macros."""
    if isinstance(value, tuple | list):
        return any(map(_mentions, value))
    if isinstance(value, dict):
        return any(map(_mentions, value)) or any(map(_mentions, value.values()))
    return isinstance(value, Reference | Macro)


def operative_text(root: Node, imports: Sequence[str] = ()) -> str:
    """Gin text that binds every field of every object in the tree, with the macros that gave values where they did."""
    writer = _Writer(root)
    writer.reference(root, ())
    parts = [
        f"# Every value of one {root.cls.__name__}, defaults included. Written by aya; it repeats the run by itself."
    ]
    if imports:
        parts.append("\n".join(f"import {module}" for module in imports))
    if writer.macros:
        parts.append("\n".join(f"{name} = {text}" for name, text in writer.macros.items()))
    root_block = ("", root.cls.__name__)
    for key in [root_block, *(key for key in reversed(writer.blocks) if key != root_block)]:
        scope, name = key
        prefix = f"{scope}/{name}" if scope else name
        lines = writer.blocks[key]
        parts.append(
            "\n".join([f"# {name}{f' ({scope})' if scope else ''}", *(f"{prefix}.{f} = {text}" for f, text in lines)])
        )
    return "\n\n".join(parts) + "\n"


def text_of(config: Any) -> str:
    """Gin text of a configuration object that was put together in Python; `resolve` with its class gives it again.

    Raises:
      ValueError: objects of one class within it differ, which takes scopes that this does not write.
    """
    written: dict[str, list[str]] = {}

    def value_of(value: Any) -> Any:
        if not dataclasses.is_dataclass(value):
            return value
        name = type(value).__name__
        fields = [each for each in dataclasses.fields(value) if each.init]
        lines = [f"{name}.{each.name} = {literal(value_of(getattr(value, each.name)))}\n" for each in fields]
        if written.setdefault(name, lines) != lines:
            raise ValueError(f"two different {name} in one {type(config).__name__}")
        return Reference("", name, True)

    value_of(config)
    return "\n".join("".join(lines) for lines in reversed(written.values()))
