"""Models of different vocabularies: what differs, the union, and token tables with the rows of another vocabulary."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aya_jax.config import UserError
from aya_jax.data.vocabulary import load
from aya_jax.merging.sources import Source

_BYTES = 259
_ROWS = 4096  # of a table, at a time


@dataclasses.dataclass(frozen=True)
class Rows:
    """Where each row of the result's token tables comes from.

    Attributes:
      count: rows of the result.
      of_source: for each source, int64 [count]: its row, or -1 where it has none; None where its table is taken as it is.
      base: which source gives the row that another lacks, where it has it; None: none.
    """

    count: int
    of_source: tuple[np.ndarray | None, ...]
    base: int | None

    def mapped(self, tables: Sequence[np.ndarray], folder: Path) -> list[np.ndarray]:
        """The tables with the result's rows, in files without a name in `folder` where they differ from what they were.

        A row that a model lacks is the base's; where that lacks it too, the average of the models that have it (mergekit's
        rule); where none has it, zeros.

        Args:
          tables: [rows, D] of each source.
          folder: on a disk with room for them.
        """
        dtype = np.result_type(*(table.dtype for table in tables))
        maps = [np.arange(self.count) if own is None else own for own in self.of_source]
        return [
            table if self.of_source[at] is None else self._write(at, tables, maps, dtype, folder)
            for at, table in enumerate(tables)
        ]

    def _write(
        self, at: int, tables: Sequence[np.ndarray], maps: Sequence[np.ndarray], dtype: np.dtype, folder: Path
    ) -> np.ndarray:
        with tempfile.TemporaryFile(dir=folder) as file:
            result = np.memmap(file, dtype, "w+", shape=(self.count, tables[at].shape[1]))
        for start in range(0, self.count, _ROWS):
            part = slice(start, start + _ROWS)
            own = maps[at][part]
            result[part] = np.where((own >= 0)[:, None], tables[at][own], 0).astype(dtype)
            if (lacks := np.flatnonzero(own < 0)).size:
                result[start + lacks] = self._others([each[part][lacks] for each in maps], tables).astype(dtype)
        return result

    def _others(self, maps: Sequence[np.ndarray], tables: Sequence[np.ndarray]) -> np.ndarray:
        """Rows that a model lacks, float32: one for each entry of the maps."""
        total = np.zeros((len(maps[0]), tables[0].shape[1]), np.float32)
        count = np.zeros((len(maps[0]), 1), np.float32)
        for own, table in zip(maps, tables, strict=True):
            there = own >= 0
            total[there] += table[own[there]].astype(np.float32)
            count += there[:, None]
        total /= np.maximum(count, 1)
        if self.base is not None:
            own = maps[self.base]
            total[own >= 0] = tables[self.base][own[own >= 0]].astype(np.float32)
        return total


def tokens_of(source: Source) -> Mapping[str, int] | None:
    """The ids of a model's tokens; None where it has no tokenizer.

    Raises:
      UserError: its tokenizer cannot be read.
    """
    spec = source.found.tokenizer
    if spec is None:
        return None
    if spec == "bytes":
        return {f"<byte vocabulary, {number}>": number for number in range(_BYTES)}
    file = tokenizer_file(source)
    if file.suffix == ".json":
        from tokenizers import Tokenizer

        try:
            return Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True)
        except Exception as error:  # the library raises Exception itself
            raise UserError(f"{file}: the tokenizers library cannot read this file: {error}") from error
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(file))
    return {model.id_to_piece(number): number for number in range(model.get_piece_size())}


def tokenizer_file(source: Source) -> Path:
    """The file of a model's tokenizer, which is not that of bytes."""
    path = Path(source.found.tokenizer)
    if path.is_file():
        return path
    return next(file for name in ("tokenizer.json", "tokenizer.model") if (file := path / name).is_file())


def first_differences(
    one: Mapping[str, int], other: Mapping[str, int], most: int = 3
) -> list[tuple[int, str | None, str | None]]:
    """(id, its token in one, its token in the other) of the first ids with different tokens."""
    ours, theirs = ({number: token for token, number in each.items()} for each in (one, other))
    differing = sorted(number for number in ours.keys() | theirs.keys() if ours.get(number) != theirs.get(number))
    return [(number, ours.get(number), theirs.get(number)) for number in differing[:most]]


def special_ids(source: Source) -> dict[str, int | None]:
    """The ids that pad, start and end a text, by a model's tokenizer; nothing where that names none."""
    try:
        known = load(source.found.tokenizer)
    except UserError:
        return {}
    return {"pad": known.pad_id, "bos": known.bos_id, "eos": known.eos_id}


def rows_for(
    wanted: Mapping[str, int],
    count: int,
    sources: Sequence[Source],
    tokens: Sequence[Mapping[str, int]],
    owner: int,
    base: int | None,
) -> Rows:
    """Where the rows for a vocabulary come from.

    Args:
      wanted: ids of the result's tokens.
      count: rows of the result, some of which may be of no token.
      sources: the models.
      tokens: of each.
      owner: the model whose rows of no token the result keeps.
      base: as `Rows.base`.
    """
    maps: list[np.ndarray | None] = []
    for at, (source, own) in enumerate(zip(sources, tokens, strict=True)):
        rows = np.full(count, -1, np.int64)
        if at == owner:
            shared = min(count, source.config.vocab_size)
            rows[:shared] = np.arange(shared)
            rows[[number for number in wanted.values() if number < count]] = -1
        for token, number in wanted.items():
            if number < count and own.get(token, source.config.vocab_size) < source.config.vocab_size:
                rows[number] = own[token]
        same = count == source.config.vocab_size and np.array_equal(rows, np.arange(count))
        maps.append(None if same else rows)
    return Rows(count, tuple(maps), base)


def union(first: Mapping[str, int], others: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The first vocabulary with its ids, then what the others have and it has not, in their order."""
    ids = dict(first)
    following = max(ids.values(), default=-1) + 1
    for other in others:
        for token in sorted(other, key=other.__getitem__):
            if token not in ids:
                ids[token] = following
                following += 1
    return ids


def union_tokenizer(owner: Source, others: Sequence[Source], ids: Mapping[str, int]) -> str:
    """A tokenizer.json for a union: the owner's, with the others' tokens appended.

    What is an added token (of control, most often) in one of the others is one here. The pieces of the others' models get ids,
    and no merges: text is cut as the owner cuts it.

    Raises:
      UserError: one of the tokenizers is no tokenizer.json.
    """
    described = [_described(source) for source in (owner, *others)]
    result = described[0]
    known = {token["content"] for token in result.get("added_tokens", ())}
    for other in described[1:]:
        for token in other.get("added_tokens", ()):
            if token["content"] not in known:
                known.add(token["content"])
                result.setdefault("added_tokens", []).append(token | {"id": ids[token["content"]]})
    vocab = result["model"]["vocab"]
    if not isinstance(vocab, dict):
        raise UserError(
            f"{tokenizer_file(owner)}: a {result['model'].get('type')} model; a union is made of BPE and WordLevel ones"
        )
    for token, number in ids.items():
        if token not in vocab and token not in known:
            vocab[token] = number
    result["added_tokens"] = sorted(result.get("added_tokens", []), key=lambda token: token["id"])
    return json.dumps(result, ensure_ascii=False, indent=2) + "\n"


def _described(source: Source) -> dict[str, Any]:
    if source.found.tokenizer in (None, "bytes") or tokenizer_file(source).suffix != ".json":
        raise UserError(f"{source.name}: a union is made of tokenizer.json files, and this model has none")
    return json.loads(tokenizer_file(source).read_bytes())
