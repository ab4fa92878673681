"""Which variants of a study's stages go together: what each needs, and what "{stage}" in its bindings stands for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aya_jax.config.errors import near_names
from aya_jax.config.registry import Problem
from aya_jax.studies.sweeps import Variant, variants_of

if TYPE_CHECKING:
    from aya_jax.studies.config import StageConfig

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def job_key(stage: str, variant: Variant) -> str:
    """The name by which a stage's variant is known in logs, states and tables."""
    return f"{stage}/{variant.label}" if variant.label else stage


def all_needs(stage: StageConfig) -> tuple[str, ...]:
    """The stages that a stage needs directly, the one that it follows first."""
    return tuple(dict.fromkeys([stage.each_of, *stage.needs] if stage.each_of else stage.needs))


def stage_variants(stage: StageConfig, by_name: Mapping[str, StageConfig]) -> list[Variant]:
    """A stage's variants: those of the stage that it follows, without their bindings, times its own sweep's."""
    followed = stage_variants(by_name[stage.each_of], by_name) if stage.each_of else [Variant((), {})]
    return [
        Variant(variant.coordinates + own.coordinates, own.bindings)
        for variant in followed
        for own in variants_of(stage.sweep)
    ]


def bindings_of(stage: StageConfig, variant: Variant) -> dict[str, Any]:
    """All that one variant binds, placeholders and all; the sweep wins over `bindings`, and these over `shared`."""
    return stage.shared | stage.bindings | variant.bindings


def placeholders(value: Any) -> set[str]:
    """The names that a binding's value mentions as "{name}", however deep in tuples, lists and dicts."""
    if isinstance(value, str):
        return set(_PLACEHOLDER.findall(value))
    if isinstance(value, dict):
        return set().union(*(placeholders(item) for pair in value.items() for item in pair))
    if isinstance(value, tuple | list):
        return set().union(*(placeholders(item) for item in value))
    return set()


def substitute(value: Any, directories: dict[str, str]) -> Any:
    """The value with every "{name}" replaced by `directories[name]`, however deep."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: directories[match.group(1)], value)
    if isinstance(value, dict):
        return {substitute(key, directories): substitute(item, directories) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(substitute(item, directories) for item in value)
    return value


def find_cycle(needs: dict[str, tuple[str, ...]]) -> list[str]:
    """A circle of names, its first repeated at its end, or [] where the needs can be put in an order."""
    finished: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in finished:
            return []
        for needed in needs[name]:
            if cycle := visit(needed, [*path, name]):
                return cycle
        finished.add(name)
        return []

    for name in needs:
        if cycle := visit(name, []):
            return cycle
    return []


def upstream(stage: StageConfig, by_name: Mapping[str, StageConfig]) -> list[str]:
    """The stages that a stage needs, directly or through others, each once; what it needs itself comes first."""
    found: dict[str, None] = dict.fromkeys(all_needs(stage))
    for needed in all_needs(stage):
        found |= dict.fromkeys(upstream(by_name[needed], by_name))
    return list(found)


def partners(variant: Variant, stage: StageConfig, by_name: Mapping[str, StageConfig]) -> list[Variant]:
    """The variants of `stage` that `variant` goes with: those that agree with it on every axis that both have."""
    return [other for other in stage_variants(stage, by_name) if variant.agrees_with(other)]


def stage_named(placeholder: str) -> str:
    """The stage of which "sft" or "sft:mix=100" names a variant."""
    return placeholder.partition(":")[0]


def variants_named(placeholder: str, variant: Variant, by_name: Mapping[str, StageConfig]) -> list[Variant]:
    """The partners of `variant` that "sft", or "sft:mix=100,seed=1", names; one, where the study is valid."""
    wanted = {tuple(choice.split("=", 1)) for choice in placeholder.partition(":")[2].split(",") if choice}
    found = partners(variant, by_name[stage_named(placeholder)], by_name)
    return [other for other in found if wanted <= set(other.coordinates)]


def needed_variants(
    stage: StageConfig, variant: Variant, needed: str, by_name: Mapping[str, StageConfig]
) -> list[Variant]:
    """The variants of stage `needed` that a variant waits for: those that it names on an axis, or else all partners."""
    named = [
        found
        for placeholder in sorted(placeholders(bindings_of(stage, variant)))
        if ":" in placeholder and stage_named(placeholder) == needed
        for found in variants_named(placeholder, variant, by_name)
    ]
    of_stage = partners(variant, by_name[needed], by_name)
    return [other for other in of_stage if other in named] if named else of_stage


def partner_problems(where: str, stage: StageConfig, by_name: Mapping[str, StageConfig]) -> Iterator[Problem]:
    """Variants that lack what they need, and placeholders that name no single directory."""
    reported: set[tuple[str, str]] = set()
    reachable = upstream(stage, by_name)
    if stage.each_of:
        theirs = {
            axis for variant in stage_variants(by_name[stage.each_of], by_name) for axis, _ in variant.coordinates
        }
        ours = {axis for variant in variants_of(stage.sweep) for axis, _ in variant.coordinates}
        for axis in sorted(theirs & ours):
            yield Problem(f"{where}.sweep", f"axes that {stage.each_of!r} does not vary already; {axis!r} is one")
            return
    for variant in stage_variants(stage, by_name):
        for needed in all_needs(stage):
            if not partners(variant, by_name[needed], by_name):
                yield Problem(
                    f"{where}.needs", f"a variant of {needed!r} that agrees with {stage.name}'s {variant.label!r}"
                )
        for placeholder in sorted(placeholders(bindings_of(stage, variant)) - {"study"}):
            name = stage_named(placeholder)
            if name not in reachable:
                if (name, "needs") not in reported:
                    reported.add((name, "needs"))
                    yield Problem(
                        f"{where}.bindings",
                        f"{{study}} or a stage that this one needs between braces; {{{placeholder}}} is neither",
                        near_names(name, reachable),
                    )
                continue
            count = len(variants_named(placeholder, variant, by_name))
            if count != 1 and (placeholder, "many") not in reported:
                reported.add((placeholder, "many"))
                there = [other.label for other in partners(variant, by_name[name], by_name)]
                yield Problem(
                    f"{where}.bindings",
                    f"one directory for {{{placeholder}}}; stage {name!r} has {count or 'no'} variants to choose from"
                    + (f" (there are {', '.join(there[:6])}{', ...' if len(there) > 6 else ''})" if there else ""),
                )
