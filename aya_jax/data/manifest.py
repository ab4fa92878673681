"""What a token store says about itself: `manifest.json`, and `shard.json` in each of its shards."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

from aya_jax.config import UserError
from aya_jax.data.vocabulary import Vocabulary

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SHARD = "shard.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabularyInfo:
    """The tokenizer that a store was made with.

    Attributes:
      digest: digest of what decides its ids (`Vocabulary.digest`).
      size: V; every id is below it.
      pad_id: fills rows; never in a document.
      bos_id: opens every document; None where the tokenizer has none.
      eos_id: ends every document.
      spec: what opens it again: "bytes", or the name of the file copied into the store's directory.
    """

    digest: str
    size: int
    pad_id: int
    bos_id: int | None
    eos_id: int
    spec: str

    @classmethod
    def of(cls, known: Vocabulary, spec: str) -> VocabularyInfo:
        """What is said of a vocabulary, which is opened again as `spec`."""
        return cls(
            digest=known.digest,
            size=known.size,
            pad_id=known.pad_id,
            bos_id=known.bos_id,
            eos_id=known.eos_id,
            spec=spec,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """Where the text came from.

    Attributes:
      description: for people.
      digest: changes when the source's content does.
    """

    description: str
    digest: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """Totals of one shard.

    Attributes:
      documents: how many there are.
      tokens: with bos and eos.
      bytes: UTF-8 bytes of text that the tokens stand for.
      sha256: of the documents themselves, whatever files hold them (`store.write_shard`).
    """

    documents: int
    tokens: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """A finished store.

    Attributes:
      task: name of the task.
      split: "train" or "validation".
      language: the task's language tag.
      domain: the task's domain tag.
      vocabulary: the tokenizer.
      source: where the text came from.
      loss_weights: whether every token has a weight of its own.
      group: how many documents that follow each other belong together; 2: the chosen and the rejected answer of a pair, each
        with a value, the pair's margin.
      shards: totals of shard-00000, shard-00001, ...
      format_version: of the files' layout.
    """

    task: str
    split: str
    language: str
    domain: str
    vocabulary: VocabularyInfo
    source: SourceInfo
    shards: tuple[ShardInfo, ...]
    loss_weights: bool = False
    group: int = 1
    format_version: int = FORMAT_VERSION

    @functools.cached_property
    def documents(self) -> int:
        """Documents of all shards."""
        return sum(shard.documents for shard in self.shards)

    @functools.cached_property
    def tokens(self) -> int:
        """Tokens of all shards, with bos and eos."""
        return sum(shard.tokens for shard in self.shards)

    @functools.cached_property
    def bytes(self) -> int:
        """UTF-8 bytes of text of all shards."""
        return sum(shard.bytes for shard in self.shards)

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the tokens and the tokenizer: two stores that share it give the same batches."""
        parts = [self.vocabulary.digest, *(shard.sha256 for shard in self.shards)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The object in `manifest.json`: the fields, and the totals for whoever reads the file."""
        fields = dataclasses.asdict(self)
        shards = list(fields.pop("shards"))
        if self.group == 1:
            del fields["group"]
        head = {"format_version": fields.pop("format_version")}
        totals = {"documents": self.documents, "tokens": self.tokens, "bytes": self.bytes}
        return head | fields | totals | {"shards": shards}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], path: str) -> Manifest:
        """The manifest that `to_json` gave.

        Args:
          value: the object.
          path: its file, for messages.

        Raises:
          UserError: another format version, or a field missing or unknown.
        """
        version = value.get("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path}: format_version {version}, this version of aya_jax reads {FORMAT_VERSION}; "
                "delete the store and run `aya prepare` again"
            )
        fields = {name: item for name, item in value.items() if name not in ("documents", "tokens", "bytes")}
        try:
            fields["vocabulary"] = VocabularyInfo(**fields["vocabulary"])
            fields["source"] = SourceInfo(**fields["source"])
            fields["shards"] = tuple(ShardInfo(**shard) for shard in fields["shards"])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{path}: not a store's manifest ({error}); delete it and run `aya prepare` again"
            ) from error
