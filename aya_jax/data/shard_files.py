"""One shard of a token store on a disk or in a bucket: written whole or not at all, described, and verified."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from aya_jax.config import UserError
from aya_jax.data import arrays
from aya_jax.data.arrays import ArrayWriter
from aya_jax.data.manifest import FORMAT_VERSION, SHARD, ShardInfo

_GROUP_TOKENS = 1 << 16  # tokens that are checked, digested and appended at a time


@dataclass(frozen=True)
class Document:
    """One document as it is stored.

    Attributes:
      tokens: int32 [n], n >= 1, `[bos] tokens eos`.
      loss_weights: float32 [n], weight of predicting each token; None where the task has none. All documents of a store
        have them, or none has.
      value: a number of the document's own, such as its pair's margin; all documents of a store have one, or none has.
    """

    tokens: np.ndarray
    loss_weights: np.ndarray | None = None
    value: float | None = None


def shard_path(directory: str, shard: int) -> str:
    """The directory of one shard."""
    return arrays.join(directory, f"shard-{shard:05d}")


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest unsigned type for ids below `vocab_size` and one value more, which marks a missing chunk."""
    return next(np.dtype(kind) for kind in (np.uint8, np.uint16, np.uint32) if vocab_size <= np.iinfo(kind).max)


class ShardWriter:
    """Writes one shard, replacing what is there: a pure function of the documents, byte for byte.

    Memory stays within a few tens of megabytes whatever the number of documents. On a local disk the files are written
    beside and renamed by `finish`; in a bucket `shard.json`, written last, is what makes the shard exist.
    """

    def __init__(self, directory: str, shard: int, *, token_bytes: np.ndarray):
        """Begins shard number `shard` of the store in `directory`.

        Args:
          directory: the store's.
          shard: its number.
          token_bytes: int32 [V], UTF-8 bytes of text behind each id (`Vocabulary.token_bytes()`).
        """
        self._final = shard_path(directory, shard)
        if arrays.is_remote(self._final):
            self._path = self._final
            arrays.remove_files(self._path)
        else:
            self._path = f"{self._final}.partial"
            shutil.rmtree(self._path, ignore_errors=True)
        self._token_bytes = token_bytes
        self._tokens = self._array("tokens", token_dtype(len(token_bytes)))
        self._offsets = self._array("offsets", np.dtype(np.int64))
        self._offsets.append(np.zeros(1, np.int64))
        self._content = hashlib.sha256()
        self._documents = self._end = self._bytes = 0
        self._group: list[Document] = []
        self._group_tokens = 0
        self._weights: ArrayWriter | None = None  # known when the first document is
        self._values: ArrayWriter | None = None

    def append(self, document: Document) -> None:
        """Adds a document.

        Raises:
          UserError: it is empty, has an id outside the vocabulary, or weights that do not fit; the disk is full. Which
            document it was is counted from 0; it may be an earlier one, for many are checked together.
        """
        self._group.append(document)
        self._group_tokens += len(document.tokens)
        if self._group_tokens >= _GROUP_TOKENS:
            self._write_group()

    def finish(self) -> ShardInfo:
        """Makes the shard exist, and returns its totals.

        `sha256` covers, document by document, the int32 tokens and the float32 weights, little-endian, each preceded by
        its length as int64 (a document without weights has length 0 there), then its value where it has one.

        Raises:
          UserError: as `append`.
        """
        if self._group:
            self._write_group()
        for writer in (self._tokens, self._offsets, self._weights, self._values):
            if writer is not None:
                writer.close()
        info = ShardInfo(
            documents=self._documents, tokens=self._end, bytes=self._bytes, sha256=self._content.hexdigest()
        )
        totals = {"format_version": FORMAT_VERSION, **asdict(info), "files": _digests(self._path)}
        arrays.write_json(self._path, SHARD, totals)
        if self._path != self._final:
            shutil.rmtree(self._final, ignore_errors=True)
            os.replace(self._path, self._final)
        return info

    def _array(self, name: str, dtype: np.dtype) -> ArrayWriter:
        return ArrayWriter(arrays.join(self._path, name), dtype)

    def _write_group(self) -> None:
        """Many small documents at a time: NumPy's price is by the call."""
        if self._documents == 0 and self._group[0].loss_weights is not None:
            self._weights = self._array("loss_weights", np.dtype(np.float32))
        if self._documents == 0 and self._group[0].value is not None:
            self._values = self._array("values", np.dtype(np.float32))
        weighted = self._weights is not None
        checked = [
            _checked(document, self._documents + k, weighted, self._path) for k, document in enumerate(self._group)
        ]
        tokens = np.concatenate([part for part, _ in checked])
        lengths = [len(part) for part, _ in checked]
        _check_ids(tokens, lengths, self._documents, len(self._token_bytes), self._path)
        values = [np.array([] if each.value is None else [each.value], "<f4") for each in self._group]
        for (ids, weights), value in zip(checked, values, strict=True):
            self._content.update(_described(ids) + _described(weights) + value.tobytes())
        if self._values is not None:
            self._values.append(np.concatenate(values))
        self._tokens.append(tokens)
        if self._weights is not None:
            self._weights.append(np.concatenate([part for _, part in checked]))
        self._offsets.append(self._end + np.cumsum(lengths))
        self._end += len(tokens)
        self._documents += len(checked)
        self._bytes += int(self._token_bytes[tokens].sum(dtype=np.int64))
        self._group, self._group_tokens = [], 0


def write_shard(directory: str, shard: int, documents: Iterable[Document], *, token_bytes: np.ndarray) -> ShardInfo:
    """Writes one shard from its documents in order, read once; arguments, result and errors as `ShardWriter`'s."""
    writer = ShardWriter(directory, shard, token_bytes=token_bytes)
    for document in documents:
        writer.append(document)
    return writer.finish()


def _described(part: np.ndarray) -> bytes:
    return len(part).to_bytes(8, "little", signed=True) + part.tobytes()


def _check_ids(ids: np.ndarray, lengths: Sequence[int], first: int, vocab_size: int, directory: str) -> None:
    """Refuses ids outside the vocabulary; names the document, counted from `first`, that has one."""
    if ids.min() >= 0 and ids.max() < vocab_size:
        return
    position = int(np.flatnonzero((ids < 0) | (ids >= vocab_size))[0])
    number = first + int(np.searchsorted(np.cumsum(lengths), position, side="right"))
    raise UserError(
        f"{directory}: document {number} has a token id outside 0 to {vocab_size - 1}; is it from another tokenizer?"
    )


def _checked(document: Document, number: int, weighted: bool, directory: str) -> tuple[np.ndarray, np.ndarray]:
    ids = np.asarray(document.tokens, "<i4")
    weights = np.asarray([] if document.loss_weights is None else document.loss_weights, "<f4")
    where = f"{directory}: document {number}"
    if not len(ids):
        raise UserError(f"{where} has no tokens; a document has at least its eos")
    if weighted != (document.loss_weights is not None):
        raise UserError(f"{where}: either every document of a task has loss weights, or none has")
    if weighted and (len(weights) != len(ids) or not np.all(np.isfinite(weights) & (weights >= 0))):
        raise UserError(f"{where}: loss weights must be {len(ids)} finite numbers of 0 or more, one per token")
    return ids, weights


def _digests(directory: str) -> dict[str, str]:
    """File name → sha256 of its bytes, for every file of a shard but its `shard.json`."""
    files = (name for name in arrays.list_files(directory) if name != SHARD)
    return {name: hashlib.sha256(arrays.read_bytes(directory, name) or b"").hexdigest() for name in files}


def read_shard_info(directory: str, shard: int) -> ShardInfo | None:
    """Totals of a shard that is finished, else None: what a resumed `aya prepare` need not write again."""
    value = arrays.read_json(shard_path(directory, shard), SHARD)
    if value is None or value.get("format_version") != FORMAT_VERSION:
        return None
    return ShardInfo(**{name: value[name] for name in ShardInfo.__dataclass_fields__})


def verify_shard(directory: str, shard: int) -> None:
    """Compares every file of a shard with the digest written beside it.

    Raises:
      UserError: a file is missing, changed or new; names it.
    """
    path = shard_path(directory, shard)
    written = arrays.read_json(path, SHARD)
    if written is None:
        raise UserError(f"{path}/{SHARD}: missing; {arrays.REMEDY}")
    found = _digests(path)
    for name in sorted(written["files"].keys() | found.keys()):
        if written["files"].get(name) != found.get(name):
            raise UserError(f"{path}/{name}: not as it was written; {arrays.REMEDY}")
