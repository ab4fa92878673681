"""What merges in memory are measured by: each objective is a function from parameters to what was measured, item by item."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from jax import set_mesh
from jax.sharding import Mesh
from rich.console import Console

from aya_jax.config import UserError
from aya_jax.data.chat import ChatTokenizer, Message
from aya_jax.evaluation import held_out
from aya_jax.evaluation.answers import question
from aya_jax.evaluation.judging.implicit import continuation
from aya_jax.evaluation.judging.judge import Judged
from aya_jax.evaluation.likelihoods import likelihood_keys
from aya_jax.evaluation.rows import read_rows
from aya_jax.evaluation.scoring import Continuation, Scorer
from aya_jax.interop.model_dir import ModelDir, trained_with
from aya_jax.merging.measured import Goal, Item, Measured
from aya_jax.merging.search_config import (
    BenchmarkObjectiveConfig,
    FunctionObjectiveConfig,
    HeldOutObjectiveConfig,
    MergeSearchConfig,
    ObjectiveConfig,
    PreferenceObjectiveConfig,
)
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.distributed import check_same
from aya_jax.training.validation import make_score

Measure = Callable[[Any], Mapping[str, Measured]]
"""From parameters to measurements by name."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is measured with.

    Attributes:
      model: what all merges are, as it is run.
      mesh: what they are divided over.
      config: of the search.
      found: the model whose tokenizer and training run merges have.
      console: for what a person should know.
    """

    model: Transformer
    mesh: Mesh
    config: MergeSearchConfig
    found: ModelDir
    console: Console

    @functools.cached_property
    def tokenizer(self) -> ChatTokenizer:
        """Of all merges.

        Raises:
          UserError: there is none.
        """
        if self.found.tokenizer is None:
            raise UserError(
                f"{self.found.path}: there is no tokenizer beside the weights; put its tokenizer.json there"
            )
        return ChatTokenizer.open(self.found.tokenizer)

    @property
    def longest(self) -> int:
        """Tokens of a sequence."""
        return self.model.config.max_sequence_length


def goals(objectives: tuple[ObjectiveConfig, ...]) -> list[Goal]:
    """The objectives, in the order of their names in `MergeSearchConfig.goal_names`."""
    found = []
    for each in objectives:
        if isinstance(each, FunctionObjectiveConfig):
            for name in (*each.minimize, *each.maximize):
                measure, _, language = name.partition("/")
                named = f"{each.name}/{name}"
                found.append(Goal(named, f"{each.name}/{measure}", language or None, name in each.minimize))
        else:
            minimize = isinstance(each, HeldOutObjectiveConfig)
            named = [(f"{each.name}/{language}", language) for language in each.languages] or [(each.name, None)]
            found += [Goal(name, each.name, language, minimize) for name, language in named]
    return found


def measures(setting: Setting) -> list[Measure]:
    """The function of each objective, with all that it needs loaded.

    Raises:
      UserError: text, rows, a task or a function is not to be had.
    """
    makers = {
        HeldOutObjectiveConfig: _held_out,
        BenchmarkObjectiveConfig: _benchmarks,
        PreferenceObjectiveConfig: _preferences,
        FunctionObjectiveConfig: _function,
    }
    return [makers[type(objective)](objective, setting) for objective in setting.config.objectives]


def _held_out(config: HeldOutObjectiveConfig, setting: Setting) -> Measure:
    trained, shape = trained_with(setting.found), setting.config.mesh
    with set_mesh(setting.mesh):
        data, tasks = held_out.held_out_data(
            config.held_out, shape, setting.found, trained and trained.data, setting.mesh
        )
    score, quiet = make_score(setting.model, setting.mesh), Console(quiet=True)

    def measure(params: Any) -> dict[str, Measured]:
        with set_mesh(setting.mesh):
            samples = held_out.measure(
                data, tasks, config.held_out.max_tokens, setting.model, params, setting.mesh, quiet, score
            )
        return {config.name: Measured.of(_document(sample, config.of) for sample in samples)}

    return measure


def _document(sample: held_out.Sample, of: str) -> Item:
    language = sample.language if sample.domain == "text" else sample.task
    if of == "loss":
        return Item(sample.id, language, sample.nll, sample.tokens)
    return Item(sample.id, language, sample.nll / math.log(2), sample.bytes)


def _benchmarks(config: BenchmarkObjectiveConfig, setting: Setting) -> Measure:
    from aya_jax.evaluation.evaluate import needing_harness

    with needing_harness():
        from aya_jax.evaluation.harness.in_memory import Benchmarks
    asked = config.benchmarks
    if asked.chat and not setting.tokenizer.has_template:
        raise UserError(f"{setting.found.path}: its tokenizer has no chat template, and chat = True asks for one")
    say = functools.partial(setting.console.print, highlight=False)
    benchmarks = Benchmarks(asked, setting.model, setting.mesh, setting.tokenizer, say)

    def measure(params: Any) -> dict[str, Measured]:
        samples, _ = benchmarks.ask(params)
        items = [
            Item(f"{sample.family}/{sample.item}", sample.language, sample.metrics[config.metric])
            for sample in samples
            if config.metric in sample.metrics
        ]
        if not items:
            known = sorted({metric for sample in samples for metric in sample.metrics})
            raise UserError(f"BenchmarkObjectiveConfig.metric: {config.metric} is none of {', '.join(known)}")
        return {config.name: Measured.of(items)}

    return measure


def _preferences(config: PreferenceObjectiveConfig, setting: Setting) -> Measure:
    asked: list[Continuation] = []
    named: list[tuple[str, str]] = []
    for row in read_rows(config.input):
        if config.limit is not None and len(named) == config.limit:
            break
        language = config.language if config.language and not row.fields.get("language") else row.text("language")
        texts = row.text("prompt"), row.answer("chosen"), row.answer("rejected")
        pair = _pair(*texts, setting.tokenizer)
        if max(len(each.context) + len(each.tokens) for each in pair) > setting.longest:
            continue
        named.append((row.id("id") if row.fields.get("id") is not None else f"line {row.line}", language))
        asked += pair
    if not named:
        raise UserError(f"{config.input}: no pair of at most {setting.longest} tokens")
    check_same(question(*likelihood_keys(asked, setting.longest)), "other pairs")
    scorer = Scorer(setting.model, setting.mesh, max_length=setting.longest, batch_tokens=config.batch_tokens)

    def measure(params: Any) -> dict[str, Measured]:
        found: dict[int, float] = {}

        def take(answers: Mapping[int, Any]) -> None:
            for number, answer in answers.items():
                count = len(asked[number].tokens) if config.reduce == "mean" else 1
                found[number] = answer.log_prob / count

        scorer.score(params, asked, take)
        items = (
            Item(name, language, float(found[2 * number] > found[2 * number + 1]))
            for number, (name, language) in enumerate(named)
        )
        return {config.name: Measured.of(items)}

    return measure


def _pair(prompt: str, chosen: str, rejected: str, tokenizer: ChatTokenizer) -> list[Continuation]:
    """Both answers to a prompt: by the chat template, or plain text where the tokenizer has none."""
    if tokenizer.has_template:
        return [continuation(tokenizer, Judged((Message("user", prompt),), answer)) for answer in (chosen, rejected)]
    vocabulary = tokenizer.vocabulary
    before, *after = vocabulary.encode_batch([f"{prompt}\n", chosen, rejected])
    start, end = ([] if each is None else [each] for each in (vocabulary.bos_id, vocabulary.eos_id))
    return [Continuation((*start, *before), (*answer, *end)) for answer in after]


def _function(config: FunctionObjectiveConfig, setting: Setting) -> Measure:
    module, _, name = config.function.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"FunctionObjectiveConfig.function: {config.function} cannot be imported: {error}") from error
    tokenizer = setting.tokenizer if setting.found.tokenizer is not None else None

    def measure(params: Any) -> dict[str, Measured]:
        given = function(params, setting.model, tokenizer)
        found: dict[str, dict[str, float]] = {}
        for key, value in given.items():
            if not isinstance(value, numbers.Real):
                raise UserError(f"{config.function}: {key} is {value!r:.60}, and a number is needed")
            measure, _, language = key.partition("/")
            found.setdefault(f"{config.name}/{measure}", {})[language] = float(value)
        for wanted in (*config.minimize, *config.maximize):
            measure, _, language = wanted.partition("/")
            there = found.get(f"{config.name}/{measure}", {})
            if not there or (language and language not in there):
                raise UserError(f"{config.function}: it gave {', '.join(given) or 'nothing'}, and no {wanted}")
        return {measure: Measured(languages) for measure, languages in found.items()}

    return measure
