"""From bindings to a tree of configuration objects, going on after every mistake so that all are reported."""

from __future__ import annotations

import dataclasses
from typing import Any

from aya_jax.config.errors import did_you_mean, near_names
from aya_jax.config.registry import CONFIGURABLES
from aya_jax.config.source import UNREADABLE, Binding, Key, Macro, Reference, Source, Where
from aya_jax.config.tree import Entry, Node, plain
from aya_jax.config.types import Mismatch, convert, describe, field_types, is_configurable
from aya_jax.config.unknown import UNKNOWN, NotKnown

_REQUIRED = ("gin.REQUIRED", "REQUIRED")


@dataclasses.dataclass(frozen=True)
class Report:
    """One problem: where it stands (None: nowhere in particular) and what is the matter."""

    where: Where | None
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


class _Missing(Exception):
    """A value cannot be had; why has been reported, or will be."""


def find_class(selector: str) -> type | None:
    """The configuration class of a gin selector: its name, or its name after (part of) its module's."""
    module, _, name = selector.rpartition(".")
    cls = CONFIGURABLES.get(name)
    if cls is None or not module:
        return cls
    return cls if f".{cls.__module__}".endswith(f".{module}") else None


def show_value(value: Any) -> str:
    """A value as gin writes it, shortened for a message."""
    if isinstance(value, Reference):
        text = "@" + "/".join(filter(None, [value.scope, value.name])) + ("()" if value.called else "")
    elif isinstance(value, Macro):
        text = f"%{value.name}"
    elif isinstance(value, Node):
        text = f"@{value.cls.__name__}()"
    elif isinstance(value, tuple | list):
        inside = ", ".join(map(show_value, value)) + ("," if isinstance(value, tuple) and len(value) == 1 else "")
        text = f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{show_value(key)}: {show_value(item)}" for key, item in value.items()) + "}"
    else:
        text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


class Builder:
    """Builds configuration objects from a source's bindings.

    Attributes:
      reports: the problems met, in order.
      used: keys that something was looked up under.
      asked: the macros that were looked up, bound or not.
      scopes: scopes in which each class was built.
    """

    def __init__(self, source: Source):
        self.used: set[Key] = set()
        self._by_class: dict[tuple[str, type], dict[str, Binding]] = {}
        self._macros: dict[str, Binding] = {}
        for key, binding in source.bindings.items():
            if key.is_macro:
                self._macros["/".join(filter(None, [key.scope, key.name]))] = binding
            elif cls := find_class(key.name):
                fields = self._by_class.setdefault((key.scope, cls), {})
                if key.field in fields:  # the same class under a longer name: `config.MeshConfig.data`
                    self.used.add(fields[key.field].key)
                fields[key.field] = binding
        self.reports: list[Report] = []
        self.asked: dict[str, None] = {}
        self.scopes: dict[type, set[str]] = {}
        self._building: list[tuple[type, str]] = []
        self._expanding: list[str] = []

    def build(self, cls: type, scope: str = "", base: Any = None) -> Node:
        """The object of `cls` in a gin scope; what nothing binds is as in `base`, else the class's default."""
        self.scopes.setdefault(cls, set()).add(scope)
        self._building.append((cls, scope))
        entries = {field.name: self._entry(cls, field, scope, base) for field in dataclasses.fields(cls) if field.init}
        self._building.pop()
        return self._make(cls, entries)

    def _make(self, cls: type, entries: dict[str, Entry]) -> Node:
        broken = frozenset(name for name, entry in entries.items() if entry.broken)
        values = {name: plain(entry.content) for name, entry in entries.items() if not entry.broken}
        if not broken:
            try:
                return Node(
                    cls, entries, cls(**values), any(_holds_broken(entry.content) for entry in entries.values())
                )
            except (ValueError, TypeError) as error:
                self.reports.append(Report(None, f"{cls.__name__}: {error}"))
            except NotKnown:
                pass  # its __post_init__ looks at something below that has been reported
        return Node(cls, entries, _partial(cls, values, broken), True)

    def _entry(self, cls: type, field: dataclasses.Field, scope: str, base: Any) -> Entry:
        binding = self._bound(cls, field.name, scope)
        if binding is None:
            return self._unbound(cls, field, scope, base)
        hint, macro, value = field_types(cls)[field.name], None, binding.value
        name = f"{cls.__name__}.{field.name}"
        try:
            if isinstance(value, Macro):
                macro = self._macro(value, binding.where, f"{name} = %{value.name}")
                value = macro.value
            content = self._evaluate(value, scope, binding.where, f"{name} = {show_value(binding.value)}", name)
            content = convert(content, hint)
        except _Missing:
            return Entry(None, binding, macro, broken=True)
        except Mismatch as mismatch:
            self._mismatch(name, binding, macro, mismatch)
            return Entry(None, binding, macro, broken=True)
        return Entry(content, binding, macro)

    def _bound(self, cls: type, field: str, scope: str) -> Binding | None:
        """The binding that holds in a scope: the innermost of those in it and in the scopes around it."""
        found = None
        parts = scope.split("/") if scope else []
        for depth in range(len(parts) + 1):
            binding = self._by_class.get(("/".join(parts[:depth]), cls), {}).get(field)
            if binding is not None:
                self.used.add(binding.key)
                found = binding
        return found

    def _unbound(self, cls: type, field: dataclasses.Field, scope: str, base: Any) -> Entry:
        hint, name = field_types(cls)[field.name], f"{cls.__name__}.{field.name}"
        default = getattr(base, field.name) if base is not None else _default(field)
        if is_configurable(type(default)):
            return self._nested(type(default), scope, default, name)
        if default is not dataclasses.MISSING:
            return Entry(self._default_content(default))
        if is_configurable(hint):
            return self._nested(hint, scope, None, name)
        bind = f"{'/'.join(filter(None, [scope, name]))}"
        self.reports.append(Report(None, f"{bind} is required ({describe(hint)}): bind it, or add --gin.{bind}=..."))
        return Entry(None, broken=True)

    def _nested(self, cls: type, scope: str, base: Any, owner: str) -> Entry:
        if (cls, scope) in self._building:
            self.reports.append(Report(None, f"{owner}: a {cls.__name__} that holds itself; bind {owner}"))
            return Entry(None, broken=True)
        return Entry(self.build(cls, scope, base))

    def _default_content(self, value: Any) -> Any:
        """A default as content: configuration objects in it become nodes of their own."""
        if is_configurable(type(value)):
            names = field_types(type(value))
            return self._make(type(value), {n: Entry(self._default_content(getattr(value, n))) for n in names})
        if isinstance(value, tuple | list):
            return tuple(map(self._default_content, value))
        if isinstance(value, dict):
            return {key: self._default_content(item) for key, item in value.items()}
        return value

    def _macro(self, macro: Macro, where: Where, usage: str) -> Binding:
        """The binding that gives a macro its value, followed through macros of macros."""
        seen = []
        while True:
            if macro.name in _REQUIRED:
                name, binding = (seen[-1], self._macros[seen[-1]]) if seen else (usage.partition(" = ")[0], None)
                place = binding.where if binding else where
                self.reports.append(Report(None, f"{name} is required: add --gin.{name}=... ({place})"))
                raise _Missing
            self.asked[macro.name] = None
            binding = self._macros.get(macro.name)
            if binding is None:
                near = did_you_mean(near_names(macro.name, self._macros))
                self.reports.append(
                    Report(None, f"{macro.name} is required: add --gin.{macro.name}=... ({where}: {usage}){near}")
                )
                raise _Missing
            self.used.add(binding.key)
            if not isinstance(binding.value, Macro):
                return binding
            seen.append(macro.name)
            if binding.value.name in seen:
                self.reports.append(Report(binding.where, f"macros go in a circle: {' > '.join([*seen, seen[0]])}"))
                raise _Missing
            macro, where, usage = binding.value, binding.where, f"{binding.key} = {show_value(binding.value)}"

    def _evaluate(self, value: Any, scope: str, where: Where, usage: str, owner: str) -> Any:
        """The value with its macros and references replaced by what they stand for."""
        if value is UNREADABLE:
            raise _Missing
        if isinstance(value, Macro):
            binding = self._macro(value, where, usage)
            if value.name in self._expanding:
                self.reports.append(Report(binding.where, f"{value.name} holds itself"))
                raise _Missing
            self._expanding.append(value.name)
            try:
                usage = f"{binding.key} = {show_value(binding.value)}"
                return self._evaluate(binding.value, scope, binding.where, usage, owner)
            finally:
                self._expanding.pop()
        if isinstance(value, Reference):
            return self._referred(value, scope, where, owner)
        if isinstance(value, tuple | list):
            return type(value)(self._evaluate_all(value, scope, where, usage, owner))
        if isinstance(value, dict):
            keys = self._evaluate_all(value, scope, where, usage, owner)
            items = self._evaluate_all(value.values(), scope, where, usage, owner)
            return dict(zip(keys, items, strict=True))
        return value

    def _evaluate_all(self, values: Any, scope: str, where: Where, usage: str, owner: str) -> list[Any]:
        """Evaluates every item before giving up on one, so that each is reported."""
        contents, missing = [], False
        for value in values:
            try:
                contents.append(self._evaluate(value, scope, where, usage, owner))
            except _Missing:
                missing = True
        if missing:
            raise _Missing
        return contents

    def _referred(self, reference: Reference, scope: str, where: Where, owner: str) -> Any:
        cls = find_class(reference.name)
        if cls is None:
            near = did_you_mean(near_names(reference.name, CONFIGURABLES))
            self.reports.append(Report(where, f"{owner} = {show_value(reference)}: unknown configuration class{near}"))
            raise _Missing
        if not reference.called:
            return reference
        inner = reference.scope or scope
        if (cls, inner) in self._building:
            self.reports.append(Report(where, f"{owner} = {show_value(reference)}: holds itself; give it a scope"))
            raise _Missing
        return self.build(cls, inner)

    def _mismatch(self, name: str, binding: Binding, macro: Binding | None, mismatch: Mismatch) -> None:
        written = macro or binding
        used_by = f" (it is {name}, {binding.where})" if macro else ""
        taken = ", and this is no gin literal but text" if written.as_string else ""
        self.reports.append(
            Report(
                written.where,
                f"{macro.key if macro else name} = {show_value(written.value)}{used_by}: "
                f"{mismatch.expected}{taken}{did_you_mean(mismatch.near)}",
            )
        )


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _holds_broken(content: Any) -> bool:
    if isinstance(content, Node):
        return content.broken
    if isinstance(content, tuple | list):
        return any(map(_holds_broken, content))
    return isinstance(content, dict) and any(map(_holds_broken, content.values()))


def _partial(cls: type, values: dict[str, Any], broken: frozenset[str]) -> Any:
    """An object of `cls` whose broken fields are unknown, so that the rest of it can be validated."""
    partial = object.__new__(cls)
    for name, value in (values | dict.fromkeys(broken, UNKNOWN)).items():
        object.__setattr__(partial, name, value)
    return partial
