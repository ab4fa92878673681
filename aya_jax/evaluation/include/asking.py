"""Putting INCLUDE's questions to a model, in every style and protocol that is asked for, and what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

from aya_jax.data.chat import Message
from aya_jax.evaluation.answers import Answers, question
from aya_jax.evaluation.include.config import IncludeConfig
from aya_jax.evaluation.include.prompts import LETTERS, Question, Style, has_words, prompt
from aya_jax.evaluation.include.rows import Exams
from aya_jax.evaluation.likelihoods import known_or_scored
from aya_jax.evaluation.scoring import Continuation, Likelihood, Scorer
from aya_jax.evaluation.subject import Subject
from aya_jax.evaluation.writing import write_texts
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import Prompt, Request
from aya_jax.training.console import Track

_LIKELIHOOD_ROOM = 4  # tokens that a letter may be


class Form(NamedTuple):
    """A way in which questions are put.

    Attributes:
      style: of the prompt.
      protocol: of `PROTOCOLS`.
    """

    style: str
    protocol: str

    @property
    def name(self) -> str:
        """Short, for families of results: "il", "reg_eng_reasoning"."""
        style = self.style.replace("+", "_").lower()
        return style if self.protocol == "few_shot" else f"{style}_{self.protocol}"


@dataclasses.dataclass
class Shortened:
    """Prompts that were longer than the model reads.

    Attributes:
      examples: those that had to do with fewer examples.
      questions: those that, without any example, still lost their beginning.
    """

    examples: int = 0
    questions: int = 0


@dataclasses.dataclass(frozen=True)
class Answered:
    """What the model made of one question in one form.

    Attributes:
      question: what was asked.
      text: what it wrote; "" where letters were compared.
      log_probs: of the four letters, where they were.
    """

    question: Question
    text: str = ""
    log_probs: tuple[float, ...] = ()


def forms(config: IncludeConfig) -> list[Form]:
    """What is asked for, protocol by protocol."""
    return [Form(style, protocol) for protocol in config.protocols for style in config.styles]


def asked_in(form: Form, exams: Sequence[Exams]) -> list[Exams]:
    """Languages that a form has words for."""
    return [exam for exam in exams if not form.style.endswith("IL") or has_words(exam.language)]


class Prompts:
    """Prompts that fit the model."""

    def __init__(self, config: IncludeConfig, subject: Subject):
        """Counts from now on what had to be shortened.

        Args:
          config: how questions are put.
          subject: the model.
        """
        self._chat, self._tokens = config.chat, subject.tokenizer
        self._longest = subject.max_length(config.max_length)
        self.shortened = Shortened()

    def fit(self, form: Form, asked: Question, shots: Sequence[Question], room: int) -> Prompt:
        """The prompt with as many of the examples as leave `room` tokens for the answer.

        The first examples go first. What is too long even without any loses its beginning, as in lm-evaluation-harness.
        """
        reasoning = form.protocol == "reasoning"
        shots = () if reasoning else shots
        for first in range(len(shots) + 1):
            text = prompt(asked, cast(Style, form.style), shots[first:], reasoning=reasoning)
            ids = self.ids(text)
            if len(ids) <= self._longest - room:
                self.shortened.examples += first > 0
                return (Message("user", text),) if self._chat else text
        self.shortened.questions += 1
        return tuple(ids[-max(1, self._longest - room) :])

    def ids(self, asked: Prompt) -> list[int]:
        """Token ids of a prompt, as the engine makes them."""
        if isinstance(asked, str):
            asked = (Message("user", asked),) if self._chat else asked
        if isinstance(asked, str):
            return self._tokens.encode_text(asked)
        if asked and isinstance(asked[0], Message):
            return self._tokens.encode_chat(cast(tuple[Message, ...], asked))
        return list(cast(tuple[int, ...], asked))

    def letter(self, asked: Prompt, letter: str) -> Continuation:
        """A letter after a prompt: after its cue and a space, or as the beginning of the assistant's turn."""
        context = self.ids(asked)
        if isinstance(asked, str):
            whole = self.ids(f"{asked} {letter}")
            if whole[: len(context)] == context and len(whole) > len(context):
                return Continuation(tuple(context), tuple(whole[len(context) :]))
        spaced = letter if self._chat else f" {letter}"
        return Continuation(tuple(context), tuple(self._tokens.encode_trusted(spaced, around=False)))


def written(
    config: IncludeConfig, exams: Sequence[Exams], subject: Subject, prompts: Prompts, answers: Answers, track: Track
) -> Iterator[tuple[Form, Answered]]:
    """Every question in every form in which an answer is written.

    Raises:
      UserError: the model has no room for an answer of the length that is asked for, or a request fails; it names it.
    """
    asked, requests = [], []
    for form in forms(config):
        if form.protocol == "likelihood":
            continue
        sampling = _sampling(config, form)
        for exam in asked_in(form, exams):
            for one in exam.questions:
                fitted = prompts.fit(form, one, exam.shots, sampling.max_tokens)
                key = question("include", config.chat, _plain(fitted), dataclasses.asdict(sampling))
                requests.append((key, Request(id=f"{form.name}/{one.id}", prompt=fitted, sampling=sampling)))
                asked.append((form, one))
    how = {"engine": config.engine, "max_length": config.max_length, "track": track, "label": "answers"}
    texts = write_texts(subject, requests, answers, **how)
    for (form, one), (text,) in zip(asked, texts, strict=True):
        yield form, Answered(one, text=text)


def likelihoods(
    config: IncludeConfig, exams: Sequence[Exams], subject: Subject, prompts: Prompts, answers: Answers, track: Track
) -> Iterator[tuple[Form, Answered]]:
    """Every question in every form in which letters are compared, a language at a time."""
    length = subject.max_length(config.max_length)
    scorer = Scorer(subject.model, subject.mesh, max_length=length, batch_tokens=config.batch_tokens)

    def score(asked: Sequence[Continuation], take: Callable[[dict[int, Likelihood]], None]) -> None:
        scorer.score(subject.params(), asked, take)

    for form in forms(config):
        if form.protocol != "likelihood":
            continue
        for exam in asked_in(form, exams):
            asked = []
            for one in exam.questions:
                fitted = prompts.fit(form, one, exam.shots, _LIKELIHOOD_ROOM)
                asked += [prompts.letter(fitted, letter) for letter in LETTERS]
            with track(f"{form.style}, {exam.language}", len(asked)) as advance:
                found = known_or_scored(asked, score, answers, max_length=length, advance=advance)
            log_probs = [one.log_prob for one in found]
            for one, begin in zip(exam.questions, range(0, len(asked), len(LETTERS)), strict=True):
                yield form, Answered(one, log_probs=tuple(log_probs[begin : begin + len(LETTERS)]))


def _sampling(config: IncludeConfig, form: Form) -> SamplingConfig:
    """The likeliest text. A base model goes on to a question of its own after a blank line, and is stopped there."""
    reasoning = form.protocol == "reasoning"
    stop = () if config.chat or reasoning else ("\n\n",)
    most = config.reasoning_tokens if reasoning else config.max_tokens
    return SamplingConfig(max_tokens=most, temperature=0.0, stop=stop)


def _plain(asked: Prompt) -> str | list[int]:
    """A prompt in a form that a key is made of."""
    if isinstance(asked, str):
        return asked
    if asked and isinstance(asked[0], Message):
        return cast(Message, asked[0]).content
    return list(cast(tuple[int, ...], asked))
