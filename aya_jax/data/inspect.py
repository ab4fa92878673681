"""`aya inspect`: the rows of a batch as text, with their segments and loss weights, and the table of tokens."""

from __future__ import annotations

import itertools
import os
import posixpath
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.text import Text

from aya_jax.config import UserError
from aya_jax.data import arrays, vocabulary
from aya_jax.data.batches import Batch, BatchLoader
from aya_jax.data.config import InspectConfig
from aya_jax.data.store import TokenStore
from aya_jax.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    from aya_jax.config import Resolved

_COLOURS = ("bright_cyan", "bright_yellow", "bright_green", "bright_magenta")
_ESCAPES = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\", "\x1b": "\\x1b"})
_PLAIN = "|", "{", "}"


def run(resolved: Resolved[InspectConfig]) -> None:
    """Shows the table, then the rows: in colours on a terminal, with marks elsewhere.

    Raises:
      UserError: a store or its tokenizer is missing or damaged.
    """
    show(resolved.config, Console(soft_wrap=True))


def show(config: InspectConfig, console: Console) -> None:
    """`run` on any console."""
    loader = BatchLoader(config.data, steps=config.steps)
    vocab = open_vocabulary(loader.stores[0])
    batch = loader.batch(config.step)
    loader.print_table(console)
    coloured = console.is_terminal and not console.no_color
    console.print(legend(coloured))
    for row in range(min(config.rows, config.data.global_batch)):
        console.print(heading(batch, row, loader, config.step))
        console.print(render(list(runs(batch, row, vocab, config.max_tokens)), coloured))


@dataclass(frozen=True)
class Run:
    """Neighbouring tokens of one kind, decoded.

    Attributes:
      segment: their segment; 0 is padding.
      weighted: whether what follows them counts in the loss.
      text: newlines escaped; special tokens by name.
    """

    segment: int
    weighted: bool
    text: str


def runs(batch: Batch, row: int, vocab: Vocabulary, max_tokens: int = 0) -> Iterator[Run]:
    """The runs of one row, [S], of which at most `max_tokens` are shown (0: all)."""
    shown = max_tokens or batch["tokens"].shape[1]
    fields = (batch[name][row, :shown].tolist() for name in ("tokens", "segment_ids", "loss_weights"))
    tokens = [(token, segment, weight > 0) for token, segment, weight in zip(*fields, strict=True)]
    for (segment, weighted), group in itertools.groupby(tokens, lambda token: token[1:]):
        ids = [token for token, _, _ in group]
        yield Run(segment, weighted, f"<pad> x {len(ids)}" if segment == 0 else decode(ids, vocab))


def decode(ids: list[int], vocab: Vocabulary) -> str:
    """Text of ids on one line: what would break it is escaped, special tokens show as <bos>, <eos> or <id>."""
    names = {vocab.pad_id: "<pad>", vocab.eos_id: "<eos>"} | ({} if vocab.bos_id is None else {vocab.bos_id: "<bos>"})
    parts = []
    for special, group in itertools.groupby(ids, lambda i: i in vocab.special_ids):
        if special:
            parts += [names.get(i, f"<{i}>") for i in group]
        else:
            parts.append(vocab.decode(list(group)).translate(_ESCAPES))
    return "".join(parts)


def render(row: list[Run], coloured: bool) -> Text:
    """A row for a terminal, or for a file where `coloured` is false."""
    between, opening, closing = _PLAIN
    text, segment = Text(), None
    for part in row:
        if not coloured and segment not in (None, part.segment):
            text.append(between)
        segment = part.segment
        style = _COLOURS[segment % len(_COLOURS)] if segment else "bright_black"
        if coloured:
            text.append(part.text, style if part.weighted else f"dim underline {style}")
        else:
            text.append(part.text if part.weighted else f"{opening}{part.text}{closing}")
    return text


def legend(coloured: bool) -> Text:
    """What the marks mean."""
    if not coloured:
        between, opening, closing = _PLAIN
        return Text(f"Segments are divided by {between}; after what stands in {opening}{closing} nothing is learned.")
    text = Text("Segments change colour; after what is ")
    text.append("dim and underlined", "dim underline")
    return text.append(" nothing is learned (loss weight 0).")


def heading(batch: Batch, row: int, loader: BatchLoader, step: int) -> Text:
    """The task of a row and its numbers."""
    task = int(batch["task_ids"][row, 0])
    language, domain = loader.task_tags[task]
    segments, weights = batch["segment_ids"][row], batch["loss_weights"][row]
    plural = "" if segments.max() == 1 else "s"
    counts = f"{segments.max()} segment{plural}, {np.count_nonzero(weights)} of {len(weights)} tokens predict, "
    mean = f"mean weight {weights[weights > 0].mean():.3g}" if weights.any() else "no weight"
    text = Text(f"\nbatch {step} row {row}  ")
    text.append(loader.task_names[task], "bold")
    return text.append(f"  ({language}, {domain})  {counts}{mean}")


def open_vocabulary(store: TokenStore) -> Vocabulary:
    """The tokenizer that lies with a store, of a local one or of one in a bucket.

    Raises:
      UserError: it is not there, or is not the one that the store was made with.
    """
    info = store.manifest.vocabulary
    if info.spec == "bytes":
        return vocabulary.load(info.spec)
    if not arrays.is_remote(store.directory):
        return _checked(vocabulary.load(os.path.normpath(arrays.join(store.directory, info.spec))), store)
    scheme, path = store.directory.split("://", 1)
    folder, name = posixpath.split(posixpath.normpath(posixpath.join(path, info.spec)))
    with tempfile.TemporaryDirectory() as local:
        for file in (name, "tokenizer_config.json"):
            content = arrays.read_bytes(f"{scheme}://{folder}", file)
            if content is not None:
                arrays.write_bytes(local, file, content)
        return _checked(vocabulary.load(os.path.join(local, name)), store)


def _checked(vocab: Vocabulary, store: TokenStore) -> Vocabulary:
    if vocab.digest != store.manifest.vocabulary.digest:
        raise UserError(f"{vocab.spec}: not the tokenizer that {store.directory} was made with; put that one back")
    return vocab
