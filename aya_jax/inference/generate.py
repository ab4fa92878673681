"""`aya generate`: prompts in, answers out, in order, and none lost when it is stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aya_jax.config import Resolved, UserError
from aya_jax.data.chat import Message
from aya_jax.inference.chat_terminal import converse
from aya_jax.inference.config import LocalModelConfig, SamplingConfig
from aya_jax.inference.generate_config import GenerateConfig
from aya_jax.inference.journal import Journal
from aya_jax.inference.prompts import Row, digest, read_rows
from aya_jax.inference.protocol import Completion, FailedResponse, Generator, Request, Response, Token
from aya_jax.inference.remote_config import RemoteModelConfig

if TYPE_CHECKING:
    from aya_jax.inference.shared_journal import SharedJournal


def run(resolved: Resolved[GenerateConfig]) -> None:
    """Answers the prompt, or the rows of the input that have no answer yet.

    Raises:
      UserError: rows are wrong, the model is not to be had, or the output cannot be written; answers that there are stay.
    """
    config, console = resolved.config, _console(resolved.config)
    rows = None if config.input is None else read_rows(config.input, config.sampling, chat=config.chat)
    talks = rows is None and config.prompt is None
    model = config.model
    if talks and isinstance(model, LocalModelConfig):  # one person at a time
        model = dataclasses.replace(model, engine=dataclasses.replace(model.engine, slots=1, prefill_rows=1))
    with open_model(model, lambda text: console.print(text, highlight=False)) as generator:
        if talks:
            converse(generator, config.sampling, console)
        elif rows is None:
            prompt = (Message("user", config.prompt),) if config.chat else config.prompt
            answer_one(generator, Request(id="prompt", prompt=prompt, sampling=config.sampling), console)
        else:
            with _open_journal(config, _question(resolved, generator)) as journal:
                answer_rows(generator, rows, journal, console)
                journal.finish()
            console.print(f"{config.output} has the answers.", highlight=False, soft_wrap=True)


def open_model(config: LocalModelConfig | RemoteModelConfig, say: Callable[[str], None]) -> Any:
    """The generator that a configuration asks for, as a context."""
    if isinstance(config, RemoteModelConfig):
        from aya_jax.inference.remote import RemoteGenerator

        return RemoteGenerator(config)
    from aya_jax.inference.local import open_generator

    return open_generator(config, say)


def _console(config: GenerateConfig) -> Console:
    """Where it prints; of several processes the first one does."""
    if isinstance(config.model, RemoteModelConfig):  # without JAX, which takes a second to import
        return Console()
    from aya_jax.parallel.distributed import process_info

    return Console(quiet=process_info().index != 0)


def _open_journal(config: GenerateConfig, question: str) -> Journal | SharedJournal:
    if isinstance(config.model, RemoteModelConfig):
        return Journal(config.output, question)
    from aya_jax.inference.shared_journal import SharedJournal

    return SharedJournal(config.output, question)


def answer_one(generator: Generator, request: Request, console: Console) -> None:
    """Prints the answers to one prompt."""
    for response in generator.generate([request]):
        if isinstance(response, FailedResponse):
            raise UserError(response.error)
        for completion in response.completions:
            console.print(completion.text, highlight=False, markup=False, soft_wrap=True)


def answer_rows(generator: Generator, rows: list[Row], journal: Journal | SharedJournal, console: Console) -> None:
    """Answers the rows that the journal lacks, and shows how fast; of several turns the first ones of all rows come first."""
    done = journal.done
    left = [row for row in rows if int(row.request.id) not in done]
    if done:
        console.print(f"{len(done):,} of {len(rows):,} rows were answered before.", highlight=False)
    columns = (
        TextColumn("generating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    begin, tokens, failed = time.perf_counter(), 0, 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("generating", total=len(rows), completed=len(done), rate="")
        asked = left
        while asked:
            going_on = []
            for response in generator.generate([_request(row, journal) for row in asked]):
                number = int(response.id)
                if isinstance(response, FailedResponse):
                    console.print(f"row {number + 1} has no answer: {response.error}", highlight=False, markup=False)
                    failed += 1
                    continue
                found = record(rows[number], response, journal.begun.get(number))
                over = len(found["completions"]) > len(rows[number].later)
                if over:
                    journal.add(number, found)
                else:
                    journal.begin(number, found)
                    going_on.append(rows[number])
                tokens += sum(len(completion.tokens) for completion in response.completions)
                rate = f"{tokens / (time.perf_counter() - begin):,.0f} tokens/s"
                progress.update(task, advance=int(over), rate=rate)
            asked = going_on
    seconds = time.perf_counter() - begin
    console.print(
        f"{len(left) - failed:,} rows, {tokens:,} tokens in {seconds:.1f} s: {tokens / max(seconds, 1e-9):,.0f} tokens/s",
        highlight=False,
    )
    if failed:
        raise UserError(
            f"{failed:,} rows have no answer; the same command asks for them again ({journal.path} has the rest)"
        )


def _request(row: Row, journal: Journal | SharedJournal) -> Request:
    """What a row asks next."""
    before = journal.begun.get(int(row.request.id), {"completions": []})
    return row.following([completion["text"] for completion in before["completions"]])


def record(row: Row, response: Response, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A line of the output: the row's own fields, and what came of it.

    Of a row with several turns, completions are one for each turn, and the prompt is that of the last.

    Args:
      row: what was asked.
      response: its answer, or that to its next turn.
      before: the record of the turns before.
    """
    fields = {**row.fields, "id": row.fields.get("id", response.id)}
    sampling = row.request.sampling
    answer: dict[str, Any] = {
        "completions": [
            *(before["completions"] if before else ()),
            *(_completion(completion, sampling) for completion in response.completions),
        ],
        "prompt_tokens": response.prompt_tokens,
    }
    if response.prompt:
        answer["prompt_log_probs"] = [_token(token) for token in response.prompt]
    return fields | answer


def _completion(completion: Completion, sampling: SamplingConfig) -> dict[str, Any]:
    found: dict[str, Any] = {"text": completion.text, "finish_reason": completion.finish_reason}
    found["tokens"] = len(completion.tokens) or None  # an endpoint may not tell
    if sampling.log_probs is not None:
        found["log_probs"] = [_token(token) for token in completion.tokens]
    return found


def _token(token: Token) -> dict[str, Any]:
    found: dict[str, Any] = {"id": token.id, "text": token.text, "log_prob": token.log_prob}
    if token.top:
        found["top"] = [{"id": other, "text": text, "log_prob": value} for other, text, value in token.top]
    return found


def _question(resolved: Resolved[GenerateConfig], generator: Generator) -> str:
    config = resolved.config
    remote = isinstance(config.model, RemoteModelConfig)
    endpoint = ("base_url", "model", "endpoint", "dialect", "extra_body")
    asked = {
        "sampling": dataclasses.asdict(config.sampling),
        "chat": config.chat,
        "input": digest(config.input),
        "model": {name: getattr(config.model, name) for name in endpoint} if remote else generator.weights_digest,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
