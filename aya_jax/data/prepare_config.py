"""What `aya prepare` is told: which tasks, from where, tokenised by what, into which store, on how many workers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from aya_jax.config.registry import Problem, configurable

if TYPE_CHECKING:
    from aya_jax.data.sources import Source

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """A task of the user's own, without Python: text from files, from a Hugging Face dataset or from TFDS.

    Give one of `files`, `huggingface` and `tfds`; or none, to tag a task that an imported module registers with SeqIO.
    A task without validation data of its own has documents held out, as the shipped tasks have.

    Attributes:
      name: what mixtures and stores call it; letters, digits, `_`, `.` and `-`.
      language: its language tag, ISO 639-1; `code` for code.
      languages: a task for each language in its place, called NAME_LANGUAGE: language → what `language_field` says for it. A
        record of another language is bad. Not for `text`.
      language_field: the field for `languages`.
      domain: its domain tag: `text`, `web_code`, `markup`, `quality_code`, `code_adjacent`, or another word.
      files: paths or URLs with `*`, `**`, `?`: JSONL, Parquet or text, plain, .gz or .zst.
      validation_files: the same for the validation split.
      format: `jsonl`, `parquet`, `text` (a file is a document) or `lines` (a line is one); None goes by file name.
      on_bad_record: `stop` at the first record without text, or `skip` and count them.
      huggingface: "owner/dataset", or a directory that `datasets` can load.
      huggingface_config: the dataset's configuration, where it has several.
      huggingface_revision: commit, tag or branch; pin it, for the hub's files can change.
      tfds: "dataset", "dataset/config" or "dataset/config:version", prepared beforehand.
      tfds_data_dir: where TFDS keeps it; None is TFDS's own default.
      splits: for `train`, and for `validation` if the dataset has its own, the dataset's name of the split.
      text_field: field, column or feature that holds the text.
      form: `text`; `chat`: records are conversations in one of the usual layouts (`sources.conversations`), rendered
        with the tokenizer's chat template; what the assistant says, and the token that ends it, is what a model learns;
        `preference`: records are a prompt with a chosen and a rejected answer (`sources.preferences`); `scored`: a prompt,
        an answer and its value, as online rounds write them.
      where: not for `text`: fields and the values that a record must have, or hold where they are lists:
        (("global_or_local", "local"), ("harm_category", "Profanity")).
      turns: in another layout, role and field of each turn: (("user", "question"), ("assistant", "answer")); of a preference
        the answers have the roles "chosen" and "rejected". Of ("assistant", "chosen|rejected") one field is drawn.
    """

    name: str
    language: str = ""
    languages: Mapping[str, str] = dataclasses.field(default_factory=dict)
    language_field: str = "language"
    domain: str = "text"
    files: tuple[str, ...] = ()
    validation_files: tuple[str, ...] = ()
    format: Literal["jsonl", "parquet", "text", "lines"] | None = None
    on_bad_record: Literal["stop", "skip"] = "stop"
    huggingface: str | None = None
    huggingface_config: str | None = None
    huggingface_revision: str | None = None
    tfds: str | None = None
    tfds_data_dir: str | None = None
    splits: tuple[tuple[str, str], ...] = (("train", "train"),)
    text_field: str = "text"
    form: Literal["text", "chat", "preference", "scored"] = "text"
    turns: tuple[tuple[str, str], ...] = ()
    where: tuple[tuple[str, str], ...] = ()

    def validate(self) -> Iterator[Problem]:
        """Yields a name that is no file name, sources that are missing or too many, and turns of nobody."""
        if not _NAME.fullmatch(self.name):
            yield Problem("name", "letters, digits, '_', '.' and '-' only: it names a directory")
        if sum(map(bool, (self.files, self.huggingface, self.tfds))) > 1:
            yield Problem("files", "only one of files, huggingface and tfds")
        if self.validation_files and not self.files:
            yield Problem("validation_files", "only beside files; a dataset's own split goes into splits")
        ours = [split for split, _ in self.splits]
        if "train" not in ours or not {"train", "validation"}.issuperset(ours):
            yield Problem("splits", "(('train', NAME),) or (('train', NAME), ('validation', NAME))")
        if bool(self.languages) == bool(self.language):
            yield Problem("language", "a language's tag, or else languages")
        for name in ("turns", "where", "languages"):
            if getattr(self, name) and self.form == "text":
                yield Problem(name, "only with form = 'chat' or 'preference'")
        roles = [role for role, _ in self.turns]
        answers = ("chosen", "rejected") if self.form == "preference" else ()
        if not {"system", "user", "assistant", *answers}.issuperset(roles):
            yield Problem("turns", "pairs of a role ('system', 'user' or 'assistant') and a field")
        elif roles and any(roles.count(side) != 1 for side in answers):
            yield Problem("turns", "a field for 'chosen' and one for 'rejected', beside those of the prompt")
        if self.form != "text" and self.format in ("text", "lines"):
            yield Problem("format", "'jsonl' or 'parquet' for conversations, or None")

    def by_language(self) -> tuple[TaskConfig, ...]:
        """The task, or one for each of its languages."""
        if not self.languages or self.language in self.languages:
            return (self,)
        return tuple(
            dataclasses.replace(
                self,
                name=f"{self.name}_{language}",
                language=language,
            )
            for language in self.languages
        )

    def source(self, split: str) -> Source | None:
        """The reader of a split; None where the task has no data of its own for it."""
        from aya_jax.data.sources import ConversationSource

        text_field = self.text_field if self.form == "text" else None
        records = self._records(split, text_field)
        if records is None or self.form == "text":
            return records
        where, among = self.where, None
        if self.languages:
            where = (*where, (self.language_field, self.languages[self.language]))
            among = (self.language_field, tuple(self.languages.values()))
        return ConversationSource(records, self.form, self.turns, where, among, self.on_bad_record)

    def _records(self, split: str, text_field: str | None) -> Source | None:
        from aya_jax.data.sources import FileSource, HuggingFaceSource, TfdsSource

        if self.files:
            files = self.files if split == "train" else self.validation_files
            return FileSource(files, text_field, self.format, self.on_bad_record) if files else None
        if split not in dict(self.splits) or not (self.tfds or self.huggingface):
            return None
        if self.tfds is not None:
            return TfdsSource(self.tfds, self.splits, text_field, self.tfds_data_dir, split)
        return HuggingFaceSource(
            name=self.huggingface or "",
            config=self.huggingface_config,
            split_map=self.splits,
            text_field=text_field,
            revision=self.huggingface_revision,
            split=split,
        )


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Root of `aya prepare`: writes each task once as token stores, `STORE_DIR/<task>/{train,validation}/`.

    Attributes:
      store_dir: directory or URL (gs://, s3://) of the stores.
      data_dir: `sample`, or a corpus: directory or URL with `corpus/<lang>.jsonl.gz` and `code/<kind>/*.jsonl.gz`.
      vocabulary: `bytes`, a tokenizer.json, or a SentencePiece .model.
      tasks: names and patterns (`text_*`) of the corpus, and names of tasks or mixtures that an imported module
        registers with SeqIO.
      extra_tasks: further tasks, described in gin; they are prepared as well.
      validation_permille: documents out of 1000 to hold out, where a task has no validation split of its own; None is
        80 for the sample and 20 for a corpus. A source's first document is held out besides.
      validation_fold: which `validation_permille` of 1000, from 0, for measuring on every document in turn by as many stores as
        there are folds; each document is held out in one of them. None is the first ones.
      num_shards: parts into which each split of each task is cut: the unit of resuming and of parallel work. A corpus
        of many files is best cut into a divisor of their number.
      num_workers: processes of the pool; 1 works in this process, with the tokenizer on every core; 0 is one per core.
      runner: `pool` on this machine, or `beam` on any runner of Apache Beam.
      beam_options: Beam's pipeline options ("--runner=DataflowRunner", "--project=..."); empty is its in-memory runner.
      verify: re-read finished shards and compare their checksums; without it their presence is enough.
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = ("store_dir", "num_workers", "runner", "beam_options", "verify")

    store_dir: str
    data_dir: str
    vocabulary: str
    tasks: tuple[str, ...] = ("text_*", "code_*")
    extra_tasks: tuple[TaskConfig, ...] = ()
    validation_permille: int | None = None
    validation_fold: int | None = None
    num_shards: int = 1
    num_workers: int = 1
    runner: Literal["pool", "beam"] = "pool"
    beam_options: tuple[str, ...] = ()
    verify: bool = True

    @property
    def described(self) -> tuple[TaskConfig, ...]:
        """`extra_tasks`, those of several languages taken apart."""
        return tuple(each for task in self.extra_tasks for each in task.by_language())

    def validate(self) -> Iterator[Problem]:
        """Yields empty paths, numbers out of range, and extra tasks that share a name."""
        for name in ("store_dir", "data_dir", "vocabulary"):
            if not getattr(self, name):
                yield Problem(name, "a path; it is empty")
        if not self.tasks and not self.extra_tasks:
            yield Problem("tasks", "at least one name or pattern: ('text_*',) is all text")
        if self.validation_permille is not None and not 1 <= self.validation_permille <= 999:
            yield Problem("validation_permille", "between 1 and 999 of 1000 documents")
        if self.validation_fold is not None:
            folds = 1000 // self.validation_permille if self.validation_permille else 0
            if not 0 <= self.validation_fold < folds:
                yield Problem("validation_fold", f"0 to {folds - 1}" if folds else "None without validation_permille")
        if not 1 <= self.num_shards <= 99_999:
            yield Problem("num_shards", "between 1 and 99999")
        if self.num_workers < 0:
            yield Problem("num_workers", "at least 1; 0 is one per core")
        if self.beam_options and self.runner != "beam":
            yield Problem("beam_options", "only with runner = 'beam'")
        names = [task.name for task in self.described]
        if len(set(names)) != len(names):
            yield Problem("extra_tasks", "each task a name of its own")
