"""Printing configurations for people: what is set and where, what differs, and what there is to set."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aya_jax.config.snapshot import CLASS, Difference, leaves
from aya_jax.config.text import literal
from aya_jax.config.types import describe, field_types, is_configurable, reachable

_FIELD_DOC = re.compile(r"^(\w+): (.*)$")


def show(snapshot: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> str:
    """One line for each value of a plain snapshot: dotted name, value, and where it was written ("default" if nowhere).

    Args:
      snapshot: the plain snapshot.
      origins: dotted field → place, as `Resolved.origins`; None (a run directory) leaves the places out.
    """
    rows = [(field, _literal(value), origin_of(field, origins)) for field, value in leaves(snapshot)]
    names = max((len(field) for field, _, _ in rows), default=0)
    values = max((len(value) for _, value, _ in rows if len(value) <= 40), default=0)
    return "".join(f"{f'{field:<{names}}  {value:<{values}}  {place}'.rstrip()}\n" for field, value, place in rows)


def origin_of(field: str, origins: Mapping[str, str] | None) -> str:
    """Where a dotted field, or the field that it is a part of, was written."""
    if origins is None or field == CLASS:
        return ""
    parts = field.split(".")
    prefixes = (".".join(parts[:depth]) for depth in range(len(parts), 0, -1))
    return next((f"# {origins[prefix]}" for prefix in prefixes if prefix in origins), "# default")


def show_differences(differences: Sequence[Difference], old: str, new: str) -> str:
    """The differing fields with both values, under a heading that names both sides."""
    if not differences:
        return f"{old} and {new}: no difference\n"
    lines = [f"--- {old}", f"+++ {new}"]
    for difference in differences:
        lines += [difference.field, f"  - {_literal(difference.old)}", f"  + {_literal(difference.new)}"]
    fields = "1 field differs" if len(differences) == 1 else f"{len(differences)} fields differ"
    return "\n".join([*lines, fields, ""])


def _literal(value: Any) -> str:
    try:
        return re.sub(r"\s*\n\s*", " ", literal(value))
    except TypeError:
        return repr(value)


def describe_class(root: type) -> str:
    """The fields of a root class and of every class it may hold: type, default and documentation."""
    return "\n".join(_section(cls) for cls in reachable(root))


def _section(cls: type) -> str:
    summary = inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    docs = field_docs(cls)
    lines = [cls.__name__, *_wrapped(summary, "  ")]
    for field in dataclasses.fields(cls):
        if field.init:
            hint = field_types(cls)[field.name]
            lines.append(f"  {field.name}: {describe(hint)}{_default_text(field, hint)}")
            lines += _wrapped(docs.get(field.name, ""), "      ")
    return "\n".join(lines) + "\n"


def _default_text(field: dataclasses.Field, hint: Any) -> str:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if default is dataclasses.MISSING:
        return "" if is_configurable(hint) else "  (required)"
    if is_configurable(type(default)):
        return ""
    return f" = {_literal(default)}"


def _wrapped(text: str, indent: str) -> Iterator[str]:
    yield from textwrap.wrap(text, 110, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def field_docs(cls: type) -> dict[str, str]:
    """Field → its sentence in the class's `Attributes:` section, on one line."""
    _, _, section = inspect.cleandoc(cls.__doc__ or "").partition("\nAttributes:\n")
    docs: dict[str, str] = {}
    name = None
    for line in textwrap.dedent(section.partition("\n\n")[0]).splitlines():
        if match := _FIELD_DOC.match(line):
            name, docs[match[1]] = match[1], match[2]
        elif name:
            docs[name] += f" {line.strip()}"
    return docs
