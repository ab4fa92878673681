"""What only the whole tells: values that do not fit each other, and bindings that nothing uses."""

from __future__ import annotations

import re
from collections.abc import Iterator

from aya_jax.config.build import Builder, Report, find_class, show_value
from aya_jax.config.errors import did_you_mean, near_names
from aya_jax.config.registry import CONFIGURABLES, Problem
from aya_jax.config.source import Binding, Source, macros_in
from aya_jax.config.tree import Node, find_entry, plain, walk
from aya_jax.config.types import classes_in, field_types, reachable
from aya_jax.config.unknown import MARK, NotKnown, assuming


def validation_reports(root: Node) -> list[Report]:
    """What the `validate()` of every object in the tree yields, each at the binding of the field at fault."""
    reports: list[Report] = []
    for _, node in walk(root):
        if not node.broken:
            reports += [_located(node, problem) for problem in _problems_of(node, root.broken or bool(reports))]
            continue
        with assuming(False):
            doubtful = _problems_of(node, True)
        with assuming(True):
            certain = [
                problem for problem in _problems_of(node, True) if problem in doubtful and MARK not in str(problem)
            ]
        reports += [_located(node, problem) for problem in certain]
    return reports


def _problems_of(node: Node, may_stumble: bool) -> list[Problem]:
    """What a node's `validate()` yields; up to the point where it stumbles over a mistake, if that may be."""
    problems: list[Problem] = []
    try:
        for problem in getattr(node.cls, "validate", lambda _: ())(node.value) or ():
            problems.append(problem)
    except NotKnown:
        pass  # it needs a value that is missing or wrong, which has been reported
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        if not may_stumble and not problems:
            raise  # else it stumbled over what has been reported: a zero that is divided by, say
    return problems


def _located(node: Node, problem: Problem) -> Report:
    path = tuple(re.sub(r"\[['\"]?([^\]'\"]*)['\"]?\]", r".\1", problem.field).split("."))
    said = f"expected {problem.expected}{did_you_mean(problem.near)}"
    found = find_entry(node, path)
    if found is None:
        return Report(None, f"{node.cls.__name__}.{problem.field}: {said}")
    holder, name, entry = found
    subject = f"{holder.cls.__name__}.{name}"
    if entry.binding is None:
        shown = "" if isinstance(entry.content, Node) else f" = {show_value(plain(entry.content))} (the default)"
        return Report(None, f"{subject}{shown}: {said}")
    if entry.macro is not None:
        return Report(
            entry.macro.where,
            f"{entry.macro.key} = {show_value(entry.macro.value)} (it is {subject}, {entry.binding.where}): {said}",
        )
    return Report(entry.binding.where, f"{subject} = {show_value(entry.binding.value)}: {said}")


def unused_reports(source: Source, builder: Builder, root: Node) -> Iterator[Report]:
    """Bindings of unknown classes and fields, and, where the source is complete, those that nothing reached."""
    unreached = {key: b for key, b in source.bindings.items() if key not in builder.used and not b.offered}
    wanted = {name for key, binding in unreached.items() if not key.is_macro for name in macros_in(binding.value)}
    hidden = _hidden_classes(root)
    for key, binding in unreached.items():
        if key.is_macro:
            # Overriding what used a file's macro is normal; a macro given as a flag is meant to have an effect.
            overridden = str(key) in source.overridden_macros and not binding.where.flag
            if source.complete and str(key) not in wanted and not overridden:
                yield Report(binding.where, _unused_macro(binding, builder))
            continue
        cls = find_class(key.name)
        if cls is None:
            near = did_you_mean(near_names(key.name.rpartition(".")[2], CONFIGURABLES))
            yield Report(
                binding.where,
                f"{key}: unknown configuration class {key.name} (or one that {root.cls.__name__} does not use){near}",
            )
        elif key.field not in field_types(cls):
            near = did_you_mean(near_names(key.field, field_types(cls)))
            yield Report(binding.where, f"{key} = {show_value(binding.value)}: unknown field{near}")
        elif cls.__name__ in source.overridden_classes and not binding.where.flag:
            continue  # a file bound what was to be built, and a later one builds something else in its place
        elif source.complete and cls not in hidden:
            yield Report(
                binding.where, f"{key} = {show_value(binding.value)}: {_why_unused(binding, cls, builder, root)}"
            )


def _hidden_classes(root: Node) -> set[type]:
    """The classes that fields with a wrong value might have held, and what those hold: they may not be unused."""
    hints = [field_types(node.cls)[n] for _, node in walk(root) for n, entry in node.entries.items() if entry.broken]
    return {held for hint in hints for cls in classes_in(hint) for held in reachable(cls)}


def _unused_macro(binding: Binding, builder: Builder) -> str:
    near = near_names(str(binding.key), builder.asked)
    text = f"{binding.key} = {show_value(binding.value)}: nothing uses this macro"
    return text + (did_you_mean(near) if near else "; remove it, or write %" + str(binding.key) + " where it belongs")


def _why_unused(binding: Binding, cls: type, builder: Builder, root: Node) -> str:
    scopes = builder.scopes.get(cls)
    if scopes:
        near = did_you_mean(near_names(binding.key.scope, filter(None, scopes)))
        return f"nothing is built in the scope {binding.key.scope}{near}"
    for _, node in walk(root):
        for name, hint in field_types(node.cls).items():
            if cls in classes_in(hint):
                return f"nothing uses it; bind {node.cls.__name__}.{name} = @{cls.__name__}() to build a {cls.__name__}"
    return f"nothing uses it: {root.cls.__name__} holds no {cls.__name__}"
