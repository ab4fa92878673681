"""Training text: the documents of token stores, decoded, one block after another and none twice."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aya_jax.config import UserError
from aya_jax.data import store, tasks
from aya_jax.data.inspect import open_vocabulary
from aya_jax.data.store import TokenStore
from aya_jax.data.vocabulary import Vocabulary
from aya_jax.evaluation.answers import Answers, question
from aya_jax.evaluation.contamination.config import ContaminationConfig
from aya_jax.evaluation.contamination.overlap import Search
from aya_jax.training.console import Track

_DOCUMENTS, _TOKENS = 4096, 1 << 20  # of a block, at most; one document is a block, however long it is


class Place(NamedTuple):
    """A document.

    Attributes:
      store: the task whose store it is in.
      number: its place in that store.
    """

    store: str
    number: int


class Corpus:
    """The documents of several stores, numbered through in the stores' order."""

    def __init__(self, stores: Mapping[str, TokenStore]):
        """Opens the stores' tokenizers.

        Args:
          stores: by the name of their task.

        Raises:
          UserError: a tokenizer is not there, or is another.
        """
        self.stores = dict(stores)
        self._vocabularies: dict[str, Vocabulary] = {}
        for opened in self.stores.values():
            digest = opened.manifest.vocabulary.digest
            if digest not in self._vocabularies:
                self._vocabularies[digest] = open_vocabulary(opened)
        self._begins = np.cumsum([0, *(opened.num_documents for opened in self.stores.values())]).tolist()
        self.tokens = sum(opened.num_tokens for opened in self.stores.values())
        self.documents = self._begins[-1]

    def place(self, number: int) -> Place:
        """Where a document is, by its number among all."""
        at = bisect.bisect_right(self._begins, number) - 1
        return Place(list(self.stores)[at], number - self._begins[at])

    def text(self, place: Place) -> str:
        """One document. Raises as `TokenStore.read_windows` does."""
        opened = self.stores[place.store]
        [ids] = opened.read_documents(np.array([place.number]))
        return self._decode(opened, ids)

    def begins(self) -> Iterator[tuple[TokenStore, int]]:
        """Each store, with the number of its first document."""
        yield from zip(self.stores.values(), self._begins[:-1], strict=True)

    def block(self, opened: TokenStore, first: int) -> tuple[list[str], int]:
        """The documents of a store from a place on, as many as are worked on at once, and their tokens."""
        bounds = opened.document_bounds(first, min(first + _DOCUMENTS, opened.num_documents))
        count = max(1, int(np.searchsorted(bounds, bounds[0] + _TOKENS, side="right")) - 1)
        [ids] = opened.read_ranges("tokens", bounds[:1], bounds[count : count + 1])
        parts = np.split(ids, bounds[1:count] - bounds[0])
        return [self._decode(opened, part) for part in parts], len(ids)

    def _decode(self, opened: TokenStore, ids: np.ndarray) -> str:
        return self._vocabularies[opened.manifest.vocabulary.digest].decode(ids.tolist())


def open_corpus(config: ContaminationConfig) -> Corpus:
    """The stores that are asked for.

    Raises:
      UserError: a pattern means none, or a store is damaged.
    """
    there = store.names(config.store_dir, config.split)
    if not there:
        raise UserError(
            f"{config.store_dir}: no token store of the split {config.split!r} is there; run `aya prepare` first"
        )
    chosen = tasks.match(config.stores, there)
    return Corpus({name: TokenStore.open(store.store_path(config.store_dir, name, config.split)) for name in chosen})


def look_through(corpus: Corpus, search: Search, known: Answers, track: Track) -> None:
    """Reads every document; blocks that `known` has were read by a run that was killed, and are not read again.

    Raises:
      UserError: a file of a store is corrupt or missing; names it.
    """
    with track("tokens", corpus.tokens) as advance:
        for opened, begin in corpus.begins():
            first = 0
            while first < opened.num_documents:
                first = _look_at_block(corpus, opened, first, begin, search, known, advance)


def _look_at_block(
    corpus: Corpus,
    opened: TokenStore,
    first: int,
    begin: int,
    search: Search,
    known: Answers,
    advance: Callable[[int], None],
) -> int:
    """Takes in the block that begins at a document of a store; gives where the next begins."""
    key = question(opened.manifest.digest, begin, first)
    read = known.get(key)
    if read is None:
        texts, tokens = corpus.block(opened, first)
        found = search.look(texts, begin + first)
        known.put({key: [len(texts), tokens, list(found), list(found.values())]})
        advance(tokens)
        return first + len(texts)
    documents, tokens, ngrams, numbers = read
    search.know(dict(zip(ngrams, numbers, strict=True)))
    advance(tokens)
    return first + documents


def known_blocks(file: Path, digest: str) -> Answers:
    """What was read already for these rows, beside the results."""
    return Answers(file.parent / "answers" / f"contamination-{digest[:16]}.jsonl")
