"""`aya tokenizer`: trains a byte-level BPE like Cohere's on the documents of tasks, and measures it on each of them.

The tokenizer normalises with NFC, splits digits one by one and words by GPT-2's expression over bytes, and has Cohere's
special tokens at Cohere's places: `<PAD>` 0 to `<EOP_TOKEN>` 7, and the turn tokens at the end. The same documents and
configuration give the same bytes of `tokenizer.json`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import tokenizers
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from aya_jax.config import RunDirectory, UserError
from aya_jax.config.files import write_atomic
from aya_jax.data import fertility, tasks, vocabulary
from aya_jax.data.tokenizer_config import CHAT_TEMPLATE, FIRST_TOKENS, TURN_TOKENS, TokenizerConfig

if TYPE_CHECKING:
    from aya_jax.config import Resolved

TOKENIZER_FILE = "tokenizer.json"


def run(resolved: Resolved) -> None:
    """Trains (unless `vocabulary` names an existing one), writes, measures, and prints the table.

    Raises:
      UserError: no such task, no text, too little text for the size, or the output directory is of another
        configuration, in use, or cannot be written.
    """
    config: TokenizerConfig = resolved.config
    console = Console()
    names = _task_names(config)
    directory = RunDirectory.open(config.output_dir, resolved, {"tokenizers": tokenizers.__version__})
    try:
        spec = config.vocabulary
        if spec is None:
            tokenizer = _train_on_tasks(config, names, console)
            write_atomic(directory.path / "tokenizer_config.json", tokenizer_config_json())
            write_atomic(directory.path / "chat_template.jinja", CHAT_TEMPLATE)
            write_atomic(directory.path / TOKENIZER_FILE, tokenizer.to_str(pretty=True))
            spec = str(directory.path / TOKENIZER_FILE)
        measured = vocabulary.load(spec)
        rows = _measure_tasks(config, names, measured, console)
        _write_report(directory.path, config, measured, rows)
    finally:
        directory.close()
    console.print(fertility.terminal_table(_title(config, measured), rows))
    trained = "" if config.vocabulary else f"{TOKENIZER_FILE}, "
    console.print(f"{config.output_dir}: {trained}fertility.json, fertility.md", soft_wrap=True)


def _task_names(config: TokenizerConfig) -> tuple[str, ...]:
    """What the patterns match in `data_dir`; a name that is no pattern may be any registered SeqIO task's."""
    present = (*tasks.available(config.data_dir), *(task.name for task in config.extra_tasks))
    chosen: dict[str, None] = {}
    for pattern in config.tasks:
        found = tasks.match((pattern,), present) if any(c in pattern for c in "*?[") else (pattern,)
        chosen.update(dict.fromkeys(found))
    return tuple(chosen)


def _task_texts(config: TokenizerConfig, name: str, split: str) -> Iterator[str]:
    share = tasks.held_out_share(config.data_dir, config.validation_permille)
    documents = tasks.documents(name, split, config.data_dir, extra=config.extra_tasks, share=share)
    return (document["text"] for document in documents)


# ---- what to train on


def repeats(sizes: Mapping[str, int], *, train_bytes: int, temperature: float, max_repeats: float) -> dict[str, float]:
    """How often each task's documents count: 0.25 is a quarter of them, 2.5 all of them twice and half of them again.

    A task with n bytes gets the share n^(1/temperature) / (the sum of that over tasks) of `train_bytes`, or of all
    bytes where there are fewer, but no more than `max_repeats` times its own text. Temperature sampling: Arivazhagan et
    al. 2019, section 4.2.

    Args:
      sizes: UTF-8 bytes of each task's text, all positive.
    """
    weights = {name: size ** (1 / temperature) for name, size in sizes.items()}
    budget = min(train_bytes, sum(sizes.values())) / sum(weights.values())
    return {name: min(max_repeats, budget * weights[name] / size) for name, size in sizes.items()}


def sampled(texts: Iterable[str], *, task: str, times: float, seed: int) -> Iterator[str]:
    """Each text floor(times) times, and once more where a hash of (seed, task, number) falls below the rest."""
    whole, rest = int(times), times % 1
    for number, text in enumerate(texts):
        point = hashlib.blake2b(f"{seed}/{task}/{number}".encode(), digest_size=8).digest()
        extra = int.from_bytes(point, "little") < rest * 2**64
        yield from itertools.repeat(text, whole + extra)


def _train_on_tasks(config: TokenizerConfig, names: tuple[str, ...], console: Console) -> Tokenizer:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        counting = progress.add_task("counting bytes", total=None)
        sizes = dict.fromkeys(names, 0)
        for name in names:
            for text in _training_texts(config, name):
                sizes[name] += len(text.encode("utf-8"))
                progress.update(counting, completed=sum(sizes.values()))
        empty = [name for name, size in sizes.items() if not size]
        if empty:
            raise UserError(f"no text to train on in {', '.join(empty)} of {config.data_dir!r}; leave it out of tasks")
        times = repeats(
            sizes,
            train_bytes=config.train_bytes,
            temperature=config.temperature,
            max_repeats=config.max_repeats,
        )
        expected = sum(times[name] * sizes[name] for name in names)
        progress.update(counting, description="reading", completed=0, total=expected)

        def texts() -> Iterator[str]:
            for name in names:
                drawn = sampled(_training_texts(config, name), task=name, times=times[name], seed=config.seed)
                for text in drawn:
                    yield text
                    progress.update(counting, advance=len(text.encode("utf-8")))
            progress.update(counting, description="learning merges", completed=expected)

        return train(texts(), config.vocabulary_size)


def _training_texts(config: TokenizerConfig, task: str) -> Iterator[str]:
    """A task's texts, the first `train_bytes` of them."""
    left = config.train_bytes
    for text in _task_texts(config, task, "train"):
        yield text
        left -= len(text.encode("utf-8"))
        if left <= 0:
            return


# ---- training


def train(texts: Iterable[str], size: int) -> Tokenizer:
    """A byte-level BPE with exactly `size` entries, learned from texts in one pass.

    Entries: the 8 first special tokens, 256 bytes, merges, the 9 turn tokens. The order of the texts does not matter.

    Raises:
      UserError: the text has too few different words for so many entries.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(TURN_TOKENS),
        special_tokens=[_special(token) for token in FIRST_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    vocabulary.set_parallelism(True)
    tokenizer.train_from_iterator(texts, trainer)
    reached = tokenizer.get_vocab_size()
    if reached != size - len(TURN_TOKENS):
        most = reached + len(TURN_TOKENS)
        raise UserError(
            f"the training text gives only {most} entries, not {size}: lower TokenizerConfig.vocabulary_size to {most} "
            "or less, or add tasks or text"
        )
    tokenizer.add_special_tokens([_special(token) for token in TURN_TOKENS])
    bos = tokenizer.token_to_id("<BOS_TOKEN>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<BOS_TOKEN> $A", pair="<BOS_TOKEN> $A <BOS_TOKEN>:1 $B:1", special_tokens=[("<BOS_TOKEN>", bos)]
    )
    return tokenizer


def _special(token: str) -> AddedToken:
    return AddedToken(token, special=True, normalized=False)


def tokenizer_config_json() -> str:
    """The `tokenizer_config.json` from which transformers opens the tokenizer, with Cohere's roles and left padding."""
    content = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<PAD>",
        "unk_token": "<UNK>",
        "cls_token": "<CLS>",
        "sep_token": "<SEP>",
        "mask_token": "<MASK_TOKEN>",
        "bos_token": "<BOS_TOKEN>",
        "eos_token": "<EOS_TOKEN>",
        "additional_special_tokens": ["<EOP_TOKEN>", *TURN_TOKENS],
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2**31 - 1,
    }
    return json.dumps(content, indent=2) + "\n"


# ---- measuring


def _measure_tasks(
    config: TokenizerConfig, names: tuple[str, ...], measured: vocabulary.Vocabulary, console: Console
) -> dict[str, fertility.Fertility]:
    rows = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for name in progress.track(names, description="measuring"):
            tags = tasks.tags_of(name, config.extra_tasks)
            texts = _task_texts(config, name, config.measure_split)
            rows[name] = fertility.measure(
                measured, texts, language=tags.language, domain=tags.domain, max_bytes=config.measure_bytes
            )
    return rows


def _title(config: TokenizerConfig, measured: vocabulary.Vocabulary) -> str:
    kind = config.vocabulary or "byte-level BPE"
    return f"{kind}, {measured.size:,} entries, on the {config.measure_split} split"


def _write_report(
    output: Path, config: TokenizerConfig, measured: vocabulary.Vocabulary, rows: Mapping[str, fertility.Fertility]
) -> None:
    report = {
        "vocabulary": {"digest": measured.digest, "size": measured.size},
        "split": config.measure_split,
        "tasks": {name: row.to_dict() for name, row in rows.items()},
        "all": fertility.total(rows.values()).to_dict(),
    }
    write_atomic(output / "fertility.json", json.dumps(report, indent=2) + "\n")
    write_atomic(output / "fertility.md", fertility.markdown_table(_title(config, measured), rows))
