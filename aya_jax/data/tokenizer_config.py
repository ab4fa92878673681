"""What `aya tokenizer` is told: which documents, how large a vocabulary, and where the result goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

from aya_jax.config.registry import Problem, configurable
from aya_jax.data.prepare_config import TaskConfig

# In the order and at the ids of Cohere's tokenizers (Aya 23, Aya Expanse, Command R).
FIRST_TOKENS = ("<PAD>", "<UNK>", "<CLS>", "<SEP>", "<MASK_TOKEN>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<EOP_TOKEN>")
# At the end of the vocabulary, as there.
TURN_TOKENS = (
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|YES_TOKEN|>",
    "<|NO_TOKEN|>",
    "<|GOOD_TOKEN|>",
    "<|BAD_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
)
CHAT_TEMPLATE = """\
{{ bos_token }}
{%- for message in messages %}
    {%- set speaker = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT'}[message['role']] %}
    {{- '<|START_OF_TURN_TOKEN|><|' + speaker + '_TOKEN|>' + message['content'] | trim + '<|END_OF_TURN_TOKEN|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}
"""
"""The chat template of a trained tokenizer: turns between Cohere's tokens, nothing added to what is said."""
SMALLEST_SIZE = len(FIRST_TOKENS) + 256 + len(TURN_TOKENS)


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Trains a byte-level BPE on the documents of tasks, or takes an existing vocabulary, and measures it on each task.

    Attributes:
      output_dir: gets `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` (unless `vocabulary` is set),
        `fertility.json`, `fertility.md` and the configuration; one that another configuration made is refused.
      data_dir: where the tasks read: 'sample', or a directory in the layout of docs/architecture.md.
      tasks: names and patterns (`text_*`) of the corpus's and the extra tasks, and names of text tasks that an imported
        module registers with SeqIO, to train on and to measure.
      extra_tasks: tasks that are described in gin, as for `aya prepare`; `tasks` names those that take part.
      validation_permille: documents out of 1000 to hold out of training, as for `aya prepare`.
      vocabulary: an existing vocabulary ('bytes', a tokenizer.json, a SentencePiece .model) that is only measured;
        None trains one.
      vocabulary_size: entries of the trained tokenizer, special tokens included; it gets exactly as many.
      train_bytes: UTF-8 bytes to train on, over all tasks; of one task at most its first `train_bytes` are read.
      temperature: a task's share of the training text is in proportion to its bytes ^ (1 / temperature): 1 leaves the
        shares as they are, a large one makes all tasks equal. 3.3 is mT5's choice (Xue et al. 2021, section 3.1).
      max_repeats: how often a small task's documents count at most, to reach its share.
      measure_split: which split the table of fertility measures: `validation` documents are not trained on.
      measure_bytes: UTF-8 bytes of each task to measure at most.
      seed: of the choice of documents where a task gives only a part of its text.
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = ("output_dir", "measure_split", "measure_bytes")

    output_dir: str
    data_dir: str
    tasks: tuple[str, ...] = ("text_*", "code_*")
    extra_tasks: tuple[TaskConfig, ...] = ()
    validation_permille: int | None = None
    vocabulary: str | None = None
    vocabulary_size: int = 8192
    train_bytes: int = 1_000_000_000
    temperature: float = 3.3
    max_repeats: float = 4.0
    measure_split: Literal["train", "validation"] = "validation"
    measure_bytes: int = 10_000_000
    seed: int = 0

    def validate(self) -> Iterator[Problem]:
        """Yields what is out of range; whether tasks and files exist is checked when they are opened."""
        if not self.tasks:
            yield Problem("tasks", "at least one task name or pattern, such as ('text_*',)")
        if self.vocabulary_size <= SMALLEST_SIZE:
            yield Problem("vocabulary_size", f"more than {SMALLEST_SIZE}: 256 bytes, the special tokens and one merge")
        if self.temperature < 1:
            yield Problem("temperature", "at least 1 (1 leaves the tasks' shares as they are)")
        if self.max_repeats < 1:
            yield Problem("max_repeats", "at least 1 (a task's own text once)")
        for field in ("train_bytes", "measure_bytes"):
            if getattr(self, field) < 1:
                yield Problem(field, "a positive number of bytes")
