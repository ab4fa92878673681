"""Answers to prompts on disk: sampled, then scored; each step is done once, whatever interrupts it.

Of several processes, all of which do all of it, process 0 reads and writes the files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.data.mixture import permutation
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.local import LocalGenerator
from aya_jax.inference.prompts import Row, read_rows, row_seed
from aya_jax.inference.protocol import Completion, Request, Response
from aya_jax.inference.shared_journal import SharedJournal
from aya_jax.parallel import shared_files
from aya_jax.synthesis.config import OnlineConfig, PromptsConfig
from aya_jax.synthesis.scorers import Answer, Scorer

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Asked:
    """A prompt of the file.

    Attributes:
      number: of its row, from 0.
      language: what the row says, or the configuration.
      messages: the conversation to answer.
      fields: the row.
    """

    number: int
    language: str
    messages: tuple[Message, ...]
    fields: dict[str, Any]


def read_prompts(config: PromptsConfig) -> list[Asked]:
    """All prompts of the file, in the order of `PromptsConfig.seed`.

    Raises:
      UserError: rows are wrong, or there are none left to train on.
    """
    rows = read_rows(config.file, SamplingConfig(), chat=True)
    if len(rows) <= config.held_out:
        raise UserError(
            f"{config.file}: {len(rows)} rows, and {config.held_out} are held out (PromptsConfig.held_out), so that none is "
            "left to train on"
        )
    order = permutation(f"prompts:{config.seed}", len(rows))
    return [_asked(number, rows[number], config) for number in order.tolist()]


def _asked(number: int, row: Row, config: PromptsConfig) -> Asked:
    language = row.fields.get(config.language_field, config.language)
    if not isinstance(language, str) or not language:
        raise UserError(
            f"{config.file}: row {number + 1}: {config.language_field} = {language!r}; a language is a word (PromptsConfig."
            "language_field)"
        )
    return Asked(number, language, tuple(row.request.prompt), dict(row.fields))


def of_round(prompts: Sequence[Asked], config: PromptsConfig, number: int) -> list[Asked]:
    """The prompts that round `number` (from 1) is trained on."""
    trained = prompts[config.held_out :]
    count = min(config.per_round, len(trained))
    return [trained[((number - 1) * count + place) % len(trained)] for place in range(count)]


def sample(
    generator: LocalGenerator,
    asked: Sequence[Asked],
    config: OnlineConfig,
    file: Path,
    *,
    samples: int,
    draw: str,
    weights: str,
    console: Console,
) -> list[Record]:
    """Answers to each prompt, in order; those that an earlier session has drawn are not drawn again.

    Args:
      generator: with the weights.
      asked: the prompts.
      config: of the run.
      file: where the answers are kept.
      samples: answers to each.
      draw: what the seeds follow from, beside the configuration's and the row's number.
      weights: which weights these are, in words that differ where they do.
      console: shows progress.
    """
    if not shared_files.exists(file):
        sampling = dataclasses.replace(config.sampling, n=samples, log_probs=0)
        settings = [dataclasses.asdict(sampling), draw, weights, [each.number for each in asked]]
        question = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        requests = [
            Request(
                id=str(place),
                prompt=each.messages,
                sampling=dataclasses.replace(sampling, seed=row_seed(sampling.seed, f"{draw}/{each.number}")),
            )
            for place, each in enumerate(asked)
        ]
        with SharedJournal(file, question) as journal:
            left = [request for request in requests if int(request.id) not in journal.done]
            for request in [request for request in left if _too_long(request, generator)]:
                left.remove(request)
                journal.add(int(request.id), _unanswered(asked[int(request.id)], console))
            found = generator.generate(left)
            label = f"sampling {samples} answers to {len(asked):,} prompts"
            if left:
                console.print(f"{label}: {file}", highlight=False, soft_wrap=True)
            for response in track(
                found, label, len(left), console=console, transient=True, disable=not console.is_terminal
            ):
                journal.add(int(response.id), _record(asked[int(response.id)], response, generator))
            journal.finish()
    return read_records(file)


def _too_long(request: Request, generator: LocalGenerator) -> bool:
    return len(generator.tokenizer.encode_chat(request.prompt)) >= generator.max_length


def _unanswered(asked: Asked, console: Console) -> Record:
    console.print(
        f"prompt {asked.number + 1} is longer than EngineConfig.max_length allows, and is left out",
        highlight=False,
        soft_wrap=True,
    )
    return {"row": asked.number, "language": asked.language, "prompt": [], "answers": []}


def _record(asked: Asked, response: Response, generator: LocalGenerator) -> Record:
    prompt = generator.tokenizer.encode_chat(asked.messages)
    return {
        "row": asked.number,
        "language": asked.language,
        "prompt": prompt,
        "answers": [_answer(completion) for completion in response.completions],
    }


def _answer(completion: Completion) -> dict[str, Any]:
    return {
        "text": completion.text,
        "finished": completion.finish_reason == "stop",
        "tokens": [token.id for token in completion.tokens],
        "log_prob": math.fsum(token.log_prob or 0.0 for token in completion.tokens),
    }


def score(
    scorer: Scorer, asked: Sequence[Asked], records: Sequence[Record], penalty: float, file: Path
) -> list[Record]:
    """The records with a `reward` of each answer; None where one is empty or cannot be judged.

    Args:
      scorer: judges.
      asked: the prompts, in the records' order.
      records: from `sample`.
      penalty: taken off the reward of an answer that was not finished.
      file: where the scored records are kept.
    """
    if not shared_files.exists(file):
        answers = [
            Answer(each.messages, answer["text"], each.fields)
            for each, record in zip(asked, records, strict=True)
            for answer in record["answers"]
        ]
        rewards = iter(scorer.score(answers))
        lines = []
        for record in records:
            for answer in record["answers"]:
                reward = next(rewards)
                usable = answer["text"].strip() and not math.isnan(reward)
                answer["reward"] = reward - penalty * (not answer["finished"]) if usable else None
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
        shared_files.write_text(file, "".join(lines))
    return read_records(file)


def read_records(file: Path) -> list[Record]:
    """The records of a file."""
    # Not `splitlines`, which cuts at U+2028 within a text too.
    return [json.loads(line) for line in shared_files.read_text(file).split("\n") if line]
