"""Everything that is looked at before a byte is written; what does not fit is told at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np

from aya_jax.config import UserError
from aya_jax.config.files import file_checksum
from aya_jax.interop.architectures import architecture_of
from aya_jax.interop.model_dir import common_dtype
from aya_jax.interop.tensors import TensorInfo
from aya_jax.merging.recipe import Recipe
from aya_jax.merging.scan import scan
from aya_jax.merging.sources import TABLES, Source, open_source
from aya_jax.merging.tensor import Settings
from aya_jax.merging.vocabularies import (
    Rows,
    first_differences,
    rows_for,
    special_ids,
    tokenizer_file,
    tokens_of,
    union,
    union_tokenizer,
)
from aya_jax.models.config import TransformerConfig

_COMPUTES_THE_SAME = ("vocab_size", "max_sequence_length", "initializer_range")
_DAMAGE = 5  # tensors that are named


@dataclasses.dataclass(frozen=True)
class Plan:
    """A merge that can be done.

    Attributes:
      recipe: what is merged.
      sources: all models, the base first where there is one.
      owner: whose small files the result has.
      config: the shape of the result.
      dtype: of its tensors.
      settings: the numbers of each tensor, in the order in which they are written.
      rows: where vocabularies differ: whence the rows of token tables come.
      tokenizer: a tokenizer.json in place of the owner's.
      template: a chat template in place of the owner's.
      notes: what a person should know.
    """

    recipe: Recipe
    sources: tuple[Source, ...]
    owner: Source
    config: TransformerConfig
    dtype: np.dtype
    settings: Mapping[str, Settings]
    rows: Rows | None
    tokenizer: str | None
    template: str | None
    notes: tuple[str, ...]

    def entries(self) -> dict[str, TensorInfo]:
        """The tensors of the result."""
        shapes = dataclasses.replace(self.owner, config=self.config).shapes()
        return {name: TensorInfo(shape, self.dtype) for name, shape in shapes.items()}

    def read(self, name: str, folder: Path) -> list[np.ndarray]:
        """A tensor of each source, the base's first; where vocabularies differ, made the same in files in `folder`."""
        arrays = [source.read(name) for source in self.sources]
        return self.rows.mapped(arrays, folder) if self.rows is not None and name in TABLES else arrays


def check(recipe: Recipe, warn: Callable[[str], None], *, look: bool = True) -> Plan:
    """Opens all models and compares them.

    Args:
      recipe: what is to be merged.
      warn: is told of damaged checkpoints that are passed over.
      look: look through all weights for NaN and infinity.

    Raises:
      UserError: with all that does not fit.
    """
    problems: list[str] = []
    opened: list[Source] = []
    for name in recipe.sources:
        try:
            opened.append(open_source(name, warn))
        except UserError as error:
            problems.append(str(error))
    notes: list[str] = []
    if opened:
        problems += _of_shapes(opened)
        problems += _given_twice(opened)
    found = None
    if len(opened) == len(recipe.sources):
        found = _Vocabulary(recipe, opened, notes)
        problems += found.problems
    template = _template(recipe, opened, problems, notes) if opened else None
    settings = _settings(recipe, opened[0], problems) if opened else {}
    if look:
        for source in opened:
            damage = list(scan(source))
            problems += damage[:_DAMAGE]
            problems += (
                [f"{source.name}: {len(damage) - _DAMAGE} more tensors are not finite"] if len(damage) > _DAMAGE else []
            )
    if problems or found is None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise UserError("\n".join([*problems, f"{count}; nothing was written."]))
    dtypes = [common_dtype(source.reader) for source in opened]
    dtype = (
        dtypes[0]
        if recipe.dtype is None
        else np.dtype(ml_dtypes.bfloat16 if recipe.dtype == "bfloat16" else recipe.dtype)
    )
    if len({*dtypes, dtype}) > 1:
        kinds = [f"{source.name} is {own.name}" for source, own in zip(opened, dtypes, strict=True)]
        models = ", ".join(kinds) if len(set(dtypes)) > 1 else f"the models are {dtypes[0].name}"
        notes.append(f"{models}; sums are made in float32, and the result is written as {dtype.name}")
    return Plan(
        recipe,
        tuple(opened),
        found.owner,
        found.config,
        dtype,
        settings,
        found.rows,
        found.tokenizer,
        None if template == template_of(found.owner) else template,
        tuple(notes),
    )


def _of_shapes(sources: Sequence[Source]) -> Iterator[str]:
    """Architecture and every field that decides what a model computes, then tensors that are not of that shape."""
    first = sources[0]
    for other in sources[1:]:
        kinds = [architecture_of(source.config) for source in (first, other)]
        if kinds[0] != kinds[1]:
            yield f"architecture: {first.name} is {kinds[0]}, and {other.name} {kinds[1]}"
            continue
        for field in dataclasses.fields(TransformerConfig):
            ours, theirs = (getattr(source.config, field.name) for source in (first, other))
            if ours != theirs and field.name not in _COMPUTES_THE_SAME:
                yield f"{field.name}: {ours} in {first.name}, and {theirs} in {other.name}"
    for source in sources:
        entries = source.reader.entries()
        for name, shape in source.shapes().items():
            there = entries[name].shape if name in entries else None
            if there is None or there[1:] != shape[1:] or there[0] < shape[0]:
                yield f"{source.name}: tensor {name} is {there or 'missing'}, and by its configuration {shape}"


def _given_twice(sources: Sequence[Source]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for source in sources:
        if source.digest in seen:
            yield f"{source.name}: the same weights as {seen[source.digest]}, bit for bit; give each model once"
        seen.setdefault(source.digest, source.name)


def _settings(recipe: Recipe, source: Source, problems: list[str]) -> dict[str, Settings]:
    found: dict[str, Settings] = {}
    for name in source.shapes():
        try:
            found[name] = recipe.settings(name, source.config.num_layers)
        except UserError as error:
            problems.append(str(error))
            break
    return found


class _Vocabulary:
    """Whether vocabularies agree, and what the result's is.

    Attributes:
      problems: what does not fit.
      owner: whose small files the result has.
      config: the shape of the result.
      rows, tokenizer: as in `Plan`.
    """

    def __init__(self, recipe: Recipe, sources: Sequence[Source], notes: list[str]):
        self.problems: list[str] = []
        self.rows: Rows | None = None
        self.tokenizer: str | None = None
        self._recipe, self._sources, self._notes = recipe, sources, notes
        wanted = recipe.tokenizer
        named = {"base": recipe.base or recipe.owner, "union": recipe.owner, None: self._with_template()}.get(
            wanted, wanted
        )
        found = [source for source in sources if source.name == named]
        self.owner = found[0] if found else sources[0]
        self.config = self.owner.config
        if not found:
            self.problems.append(f"tokenizer: {named} is not one of {', '.join(source.name for source in sources)}")
        elif wanted is None:
            self._compare()
        else:
            self._make_same(wanted)

    def _with_template(self) -> str:
        """The recipe's owner; where it has no chat template and another has, that one, which knows how turns end."""
        named = sorted(self._sources, key=lambda source: source.name != self._recipe.owner)
        return next((source.name for source in named if template_of(source) is not None), self._recipe.owner)

    def _compare(self) -> None:
        """Reports every difference from the owner's."""
        ours = tokens_of(self.owner)
        for other in self._sources:
            if other is self.owner:
                continue
            theirs = tokens_of(other)
            differences = first_differences(ours or {}, theirs or {}) if ours is not None and theirs is not None else []
            if (ours is None) != (theirs is None):
                without = other if theirs is None else self.owner
                self._notes.append(
                    f"{without.name} has no tokenizer; its rows are taken to be of the same tokens as the others'"
                )
            if differences:
                listed = "; ".join(f"{at} is {a!r} and {b!r}" for at, a, b in differences)
                self._refuse(other, f"vocabulary: ids of {self.owner.name} and {other.name} differ: {listed}")
                continue
            if other.config.vocab_size != self.owner.config.vocab_size:
                sizes = f"{self.owner.config.vocab_size} in {self.owner.name}, and {other.config.vocab_size} in {other.name}"
                self._refuse(other, f"vocab_size: {sizes}")
            if theirs is not None and ours is not None:
                self._compare_special(other)
                self._compare_files(other)

    def _compare_special(self, other: Source) -> None:
        ours, theirs = special_ids(self.owner), special_ids(other)
        for name in ours.keys() & theirs.keys():
            if ours[name] != theirs[name]:
                ids = f"{ours[name]} in {self.owner.name}, and {theirs[name]} in {other.name}"
                self._refuse(other, f"special ids: {name} is {ids}")

    def _compare_files(self, other: Source) -> None:
        if "bytes" in (self.owner.found.tokenizer, other.found.tokenizer):
            return
        ours, theirs = tokenizer_file(self.owner), tokenizer_file(other)
        if file_checksum(ours) != file_checksum(theirs):
            self._notes.append(f"{ours} and {theirs} have the same ids and differ elsewhere; the first one is kept")

    def _refuse(self, other: Source, text: str) -> None:
        self.problems.append(
            f"{text}; bind MergeConfig.tokenizer = 'union', 'base', or the model whose vocabulary is to stay"
        )

    def _make_same(self, wanted: str) -> None:
        """Rows of token tables by token."""
        tokens = [tokens_of(source) for source in self._sources]
        without = [source.name for source, own in zip(self._sources, tokens, strict=True) if own is None]
        if without:
            self.problems.append(f"tokenizer = {wanted!r}: {without[0]} has no tokenizer; put its tokenizer.json there")
            return
        at = self._sources.index(self.owner)
        ids, count = dict(tokens[at]), self.owner.config.vocab_size
        if wanted == "union":
            others = [each for number, each in enumerate(tokens) if number != at]
            ids = union(tokens[at], others)
            count = max(count, max(ids.values()) + 1)
            if len(ids) > len(tokens[at]):
                try:
                    self.tokenizer = union_tokenizer(self.owner, [s for s in self._sources if s is not self.owner], ids)
                except UserError as error:
                    self.problems.append(str(error))
                    return
        base = 0 if self._recipe.base is not None else None
        self.rows = rows_for(ids, count, self._sources, tokens, at, base)
        self.config = dataclasses.replace(self.config, vocab_size=count)


def template_of(source: Source) -> str | None:
    """A model's chat template; None where it has none."""
    home = source.found.home
    if home is None:
        return None
    if (home / "chat_template.jinja").is_file():
        return (home / "chat_template.jinja").read_text(encoding="utf-8")
    file = home / "tokenizer_config.json"
    found = json.loads(file.read_bytes()).get("chat_template") if file.is_file() else None
    if isinstance(found, list):  # several by name
        found = next((each["template"] for each in found if each.get("name") == "default"), None)
    return found


def _template(recipe: Recipe, sources: Sequence[Source], problems: list[str], notes: list[str]) -> str | None:
    """The chat template in place of the owner's; None where that is right, or nobody has one."""
    asked = recipe.chat_template
    if asked is not None and "{" in asked:
        return asked
    found = {source.name: template_of(source) for source in sources}
    if asked not in (None, "auto"):
        if found.get(asked) is None:
            problems.append(f"chat_template: {asked} has none; name a model that has one")
        return found.get(asked)
    there = [template for template in found.values() if template is not None]
    if not there:
        return None
    if asked is None and len(set(map(str.strip, there))) > 1:
        named = [name for name, template in found.items() if template is not None]
        other = next(name for name in named if found[name].strip() != found[named[0]].strip())
        problems.append(
            f"chat template: {named[0]} and {other} have different ones; bind MergeConfig.chat_template to the model whose is "
            "to stay"
        )
    without = [name for name, template in found.items() if template is None]
    if without:
        notes.append(f"{', '.join(without)}: without a chat template; the others' is kept")
    return max(there, key=there.count)
