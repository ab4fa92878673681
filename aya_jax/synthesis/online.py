"""`aya online`: sample, score, train on what was better, and again (iterative DPO as in Aya Expanse, or a policy gradient).

    RUN_DIR/rounds/00/held_out.jsonl, summary.json            the model as it came: the control of all rounds
    RUN_DIR/rounds/01/answers.jsonl, scored.jsonl, trained.jsonl, stores/, train/, held_out.jsonl, summary.json
    RUN_DIR/rounds.json, rounds.svg                           the summaries together, and as a picture

Weights go from training to the engine on the devices. Each step leaves a file when it is done, and is not done again.
Several processes do every step together, on one mesh; process 0 has the files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from aya_jax.config import Resolved, RunDirectory, UserError, resolve
from aya_jax.config.text import text_of
from aya_jax.data.config import MixtureConfig
from aya_jax.inference.config import LocalModelConfig
from aya_jax.inference.local import LocalGenerator, open_generator
from aya_jax.interop.model_dir import find_model, load_params
from aya_jax.models.low_rank import merged
from aya_jax.models.transformer import Transformer
from aya_jax.objectives.config import PolicyGradientConfig
from aya_jax.parallel import shared_files
from aya_jax.parallel.distributed import check_shared
from aya_jax.parallel.mesh import make_mesh
from aya_jax.synthesis import answers, diagnostics, pairs
from aya_jax.synthesis.answers import Asked, Record
from aya_jax.synthesis.config import OnlineConfig
from aya_jax.synthesis.reward_scorer import LogProbScorer
from aya_jax.synthesis.rounds_figure import draw
from aya_jax.synthesis.scorers import Scorer, open_scorer
from aya_jax.training import environment
from aya_jax.training.config import TrainConfig
from aya_jax.training.console import make_console
from aya_jax.training.state import abstract_params
from aya_jax.training.train import fit

SUMMARY = "summary.json"


def run(resolved: Resolved[OnlineConfig]) -> None:
    """Does the rounds that are not done, and shows all.

    Raises:
      UserError: for anything the user can put right; what was done stays.
      KeyboardInterrupt: it was stopped from the keyboard.
    """
    config, first = resolved.config, jax.process_index() == 0
    console = make_console(quiet=not first)
    prompts = answers.read_prompts(config.prompts)
    mesh = make_mesh(config.train.mesh)
    with (
        RunDirectory.open(config.run_dir, resolved, environment.describe(), writer=first) as directory,
        jax.set_mesh(mesh),
        contextlib.closing(Rounds(config, prompts, mesh, console)) as rounds,
    ):
        check_shared(directory.path)
        summaries = [rounds.summary(number) for number in range(config.rounds + 1)]
        shared_files.write_text(directory.path / "rounds.json", json.dumps(summaries, indent=1) + "\n")
        shared_files.write_text(directory.path / "rounds.svg", draw(summaries))
    show(console, summaries)
    console.print(f"The model: {rounds.folder(config.rounds) / 'train'}", highlight=False, soft_wrap=True)


class Rounds:
    """The rounds of a run, in its open directory and under its mesh.

    Round 0 is the model as it came. What a round needs is made when it is first needed, so that one that is done costs nothing.
    """

    def __init__(self, config: OnlineConfig, prompts: Sequence[Asked], mesh: Mesh, console: Console):
        self._config, self._mesh, self._console = config, mesh, console
        self._rules = config.train.mesh.logical_axes
        self._prompts = prompts
        self._held_out = prompts[: config.prompts.held_out]
        self._generator: LocalGenerator | None = None
        self._scorer: Scorer | None = None
        self._holds: int | None = None  # the round whose weights the engine has

    def close(self) -> None:
        """Ends the engine's thread."""
        if self._generator is not None:
            self._generator.close()

    def folder(self, number: int) -> Path:
        """Where a round is written."""
        return Path(self._config.run_dir) / "rounds" / f"{number:02d}"

    def summary(self, number: int) -> dict[str, Any]:
        """What a round gave; done first, or what is left of it, if need be."""
        file = self.folder(number) / SUMMARY
        if not shared_files.exists(file):
            name = f"Round {number} of {self._config.rounds}" if number else "The model as it came"
            self._console.print(f"\n{name}", style="bold", highlight=False)
            training = self._train(number) if number else {}
            found = {"round": number, **training, **self._measure(number)}
            shared_files.write_text(file, json.dumps(found, indent=1) + "\n")
        return json.loads(shared_files.read_text(file))

    def _train(self, number: int) -> dict[str, Any]:
        """Trains round `number` on answers of the round before it."""
        config, folder = self._config, self.folder(number)
        asked = answers.of_round(self._prompts, config.prompts, number)
        scored = self._answers(
            number - 1, asked, folder, "answers.jsonl", "scored.jsonl", config.samples, f"round {number}"
        )
        policy = config.train.objective if isinstance(config.train.objective, PolicyGradientConfig) else None
        chosen = pairs.choose(asked, scored, config.min_margin, policy, self._reference(scored) if policy else ())
        stores = folder / "stores"
        if not shared_files.exists(folder / "train"):
            stores = pairs.store_rows(chosen, folder, self._vocabulary(), config.validation_permille)
        if self._generator is not None:
            self._generator.release()
            self._holds = None
        trained = fit(self._training(number, stores))
        if trained.steps < config.train.steps:
            raise UserError(
                f"{folder}: stopped after step {trained.steps:,} of {config.train.steps:,}, saved. The same command goes on"
            )
        self._put(number, merged(trained.params))
        sampled = diagnostics.describe(scored)
        return {
            "sampled": sampled,
            "rows": len(chosen.rows),
            "left_out": chosen.left_out,
            "margins": diagnostics.spread(chosen.margins),
        }

    def _reference(self, records: Sequence[Record]) -> list[float]:
        """Log-probabilities of all answers under the model as it came."""
        scorer = LogProbScorer(self._found(0), self._config.train.precision, self._mesh, self._rules)
        said = [(record["prompt"], answer["tokens"]) for record in records for answer in record["answers"]]
        return scorer.score([prompt for prompt, _ in said], [tokens for _, tokens in said])

    def _measure(self, number: int) -> dict[str, Any]:
        """Answers of round `number`'s model to the prompts that are never trained on."""
        folder = self.folder(number)
        records = self._answers(
            number, self._held_out, folder, "held_out_answers.jsonl", "held_out.jsonl", 1, "held out"
        )
        found = {"held_out": diagnostics.describe(records, self._reference(records) if number else None)}
        if number:
            before = answers.read_records(self.folder(0) / "held_out.jsonl")
            first = self.summary(0)["held_out"]
            found |= {
                "change": diagnostics.change(before, records),
                "warnings": diagnostics.warnings(first, found["held_out"]),
            }
        return found

    def _answers(
        self, model: int, asked: Sequence[Asked], folder: Path, drawn: str, scored: str, samples: int, draw: str
    ) -> list[Record]:
        """Scored answers of a round's model."""
        if shared_files.exists(folder / scored):
            return answers.read_records(folder / scored)
        if not shared_files.exists(folder / drawn):
            self._take(model)
        records = answers.sample(
            self._generator,
            asked,
            self._config,
            folder / drawn,
            samples=samples,
            draw=draw,
            weights=f"round {model}",
            console=self._console,
        )
        if self._scorer is None:
            self._scorer = open_scorer(self._config.scorer, self._mesh, self._rules, self._console.print)
        return answers.score(self._scorer, asked, records, self._config.unfinished_penalty, folder / scored)

    # Models ----------------------------------------------------------------------------------------------------------

    def _path(self, number: int) -> str:
        return str(self.folder(number) / "train") if number else self._config.train.initialize_from

    def _found(self, number: int) -> Any:
        return find_model(self._path(number), self._console.print)

    def _vocabulary(self) -> str:
        found = self._found(0)
        if found.tokenizer is None:
            raise UserError(f"{found.path}: there is no tokenizer beside the weights")
        return found.tokenizer

    def _take(self, number: int) -> None:
        """Gives the engine a round's weights, from disk where this session has not trained them."""
        if self._holds == number:
            return
        if self._generator is None:
            self._generator = self._open(number)
        else:
            found = self._found(number)
            model = Transformer(found.config, self._config.train.precision, self._rules)
            self._generator.load(load_params(found, abstract_params(model, self._mesh)))
        self._holds = number

    def _put(self, number: int, params: Any) -> None:
        """Gives the engine weights that are on the devices."""
        if self._generator is not None:
            self._generator.load(params)
            self._holds = number

    def _open(self, number: int) -> LocalGenerator:
        train = self._config.train
        return open_generator(
            LocalModelConfig(
                model_dir=self._path(number),
                engine=self._config.engine,
                precision=train.precision,
                mesh=train.mesh,
                compilation_cache=train.tracking.compilation_cache,
            ),
            self._console.print,
        )

    def _training(self, number: int, stores: Path) -> Resolved[TrainConfig]:
        """The configuration of a round's training, which is written beside it and which the run repeats from."""
        train, folder = self._config.train, self.folder(number)
        mixture = MixtureConfig(rates={f"{pairs.TASK}*": 1.0})
        config = dataclasses.replace(
            train,
            run_dir=str(folder / "train"),
            initialize_from=self._path(number - 1),
            data=dataclasses.replace(train.data, store_dir=str(stores), mixture=mixture),
        )
        file = folder / "train.gin"
        shared_files.write_text(file, text_of(config))
        return resolve(TrainConfig, files=[file])


def show(console: Console, summaries: Sequence[dict[str, Any]]) -> None:
    """A line for each round, and the warnings."""
    table = Table(title="Rewards of held-out prompts, against the model as it came")
    for name in ("round", "reward", "change (95 %)", "KL", "tokens", "same*", "rows", "margin"):
        table.add_column(name, justify="right")
    for each in summaries:
        held_out, change = each["held_out"], each.get("change")
        table.add_row(
            str(each["round"]),
            f"{held_out['reward']:.4f}",
            f"{change['mean']:+.4f} ({change['low']:+.4f} to {change['high']:+.4f})" if change else "",
            f"{held_out['kl']:.2f}" if "kl" in held_out else "",
            f"{held_out['tokens']:.1f}",
            f"{each['sampled']['duplicates']:.1%}" if change else "",
            str(each["rows"]) if change else "",
            f"{each['margins']['mean']:.4f}" if change else "",
        )
    console.print(table)
    console.print("* of the answers that the round was trained on", style="dim")
    for each in summaries:
        for warning in each.get("warnings", ()):
            console.print(f"round {each['round']}: {warning}", highlight=False, soft_wrap=True)
