"""`aya train`: config, mesh, batches, state, step, loop, done."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh
from rich.console import Console

from aya_jax.config import Resolved, RunDirectory, UserError
from aya_jax.data.batches import BatchLoader
from aya_jax.models.low_rank import Model, base_model
from aya_jax.objectives.config import RewardConfig
from aya_jax.parallel.compilation import use_compilation_cache
from aya_jax.parallel.device_map import show_device_map
from aya_jax.parallel.distributed import check_shared
from aya_jax.parallel.mesh import make_mesh
from aya_jax.training import environment
from aya_jax.training.banner import show_banner
from aya_jax.training.checkpoint import Checkpoints
from aya_jax.training.clock import Clock
from aya_jax.training.config import TrainConfig
from aya_jax.training.console import make_console
from aya_jax.training.document_numbers import attach_numbers
from aya_jax.training.hooks import Hooks, Setting
from aya_jax.training.monitor import Monitor
from aya_jax.training.objective import check_stores, joining, make_model, make_objective
from aya_jax.training.objective_validation import ObjectiveValidator
from aya_jax.training.optimizer import make_optimizer
from aya_jax.training.placement import check_divides, place, row_share
from aya_jax.training.profiling import Profiler
from aya_jax.training.schedules import learning_rate
from aya_jax.training.signals import StopRequest
from aya_jax.training.start import start
from aya_jax.training.state import TrainState, state_shardings
from aya_jax.training.step import make_step
from aya_jax.training.tracking import Trackers
from aya_jax.training.validation import Validator


class Trained(NamedTuple):
    """How a run ended.

    Attributes:
      steps: steps done; fewer than were asked for where the run was told to stop.
      params: what the model is called with, on the devices.
    """

    steps: int
    params: Any


def run(resolved: Resolved[TrainConfig]) -> None:
    """`aya train`: see `fit`."""
    fit(resolved)


def fit(resolved: Resolved[TrainConfig]) -> Trained:
    """Trains to the last step, or goes on from the newest checkpoint of the run directory.

    Raises:
      UserError: for anything the user can put right; what was saved before stays.
      KeyboardInterrupt: it was stopped from the keyboard, and has saved.
    """
    config = resolved.config
    use_compilation_cache(config.tracking.compilation_cache)
    console = make_console(quiet=jax.process_index() != 0)
    mesh = make_mesh(config.mesh)
    rows = config.data.global_batch // config.accumulation
    check_divides(mesh, config.mesh.logical_axes, rows, config.data.sequence_length)
    share = row_share(mesh, config.mesh.logical_axes)
    first = jax.process_index() == 0
    with RunDirectory.open(config.run_dir, resolved, environment.describe(), writer=first) as directory:
        check_shared(directory.path)
        loader = BatchLoader(
            config.data, steps=config.steps, process_index=share.index, process_count=share.count, prepares=first
        )
        check_vocabulary(config, loader)
        check_stores(config, loader)
        with jax.set_mesh(mesh):
            return train(resolved, mesh, loader, console)


def train(resolved: Resolved[TrainConfig], mesh: Mesh, loader: BatchLoader, console: Console) -> Trained:
    """The run itself, in its open directory and under its mesh."""
    config = resolved.config
    model = make_model(config)
    optimizer = make_optimizer(config.optimizer)
    shardings = state_shardings(mesh, model, optimizer)
    step = compile_step(config, model, optimizer, shardings, len(loader.task_names))
    join = joining(model)
    validator = make_validator(config, model, mesh, loader)
    if isinstance(validator, ObjectiveValidator):
        attach_numbers(config, base_model(model), mesh, loader, validator, console)
    hooks = Hooks(config.hooks, Setting(config, base_model(model), mesh, console))
    with (
        StopRequest(jax.process_count()) as stop,
        Checkpoints(config.run_dir, config.checkpoints, console.print) as checkpoints,
    ):
        state, own, pending = start(config, model, mesh, optimizer, shardings, checkpoints, loader, console)
        first = int(state.step)
        show_banner(console, config, mesh, first, validator.tasks)
        show_device_map(console, mesh)
        loader.print_table(console)
        with (
            Trackers(
                config.tracking, config.run_dir, first, resolved.snapshot, writer=jax.process_index() == 0
            ) as trackers,
            Monitor(config, loader.task_names, loader.languages, trackers, console, first, pending) as monitor,
            loader.from_step(first) as batches,
        ):
            clock = Clock()
            profiler = Profiler(config.tracking.profile_steps, config.run_dir, console.print)
            if validator.is_due(first) and "validation" not in trackers.kinds_at_start:
                with clock.timing("validation"):  # ended between saving and measuring
                    trackers.write(
                        monitor.stamp(first, "validation") | validator.measure(join(state.params, state.frozen))
                    )
            for hook in hooks.due(first):  # ended between saving and measuring
                if hook.kind not in trackers.kinds_at_start:
                    numbers = hook.measure(join(state.params, state.frozen), first)
                    trackers.write(monitor.stamp(first, hook.kind) | numbers)
            for done in range(first + 1, config.steps + 1):
                with clock.timing("data"):
                    batch = place(next(batches), mesh, model.rules)
                profiler.before_step(done, state)
                with clock.timing("compilation" if done == first + 1 else "dispatch"):
                    state, metrics = step(state, batch)
                profiler.after_step(done, metrics, functools.partial(program_text, step, state, batch))
                monitor.step(done, metrics, clock)
                ends = stop.after_step(done)
                if ends or done % config.checkpoints.every == 0 or done == config.steps:
                    meta = about(config, loader) | own | {"monitor": monitor.flush(clock)}
                    with clock.timing("checkpoint"):
                        checkpoints.save(state, meta)
                if ends and done < config.steps:
                    break
                if validator.is_due(done):
                    monitor.flush(clock)
                    with clock.timing("validation"):
                        trackers.write(
                            monitor.stamp(done, "validation") | validator.measure(join(state.params, state.frozen))
                        )
                for hook in hooks.due(done):
                    monitor.flush(clock)
                    with clock.timing("validation"):
                        numbers = hook.measure(join(state.params, state.frozen), done)
                        trackers.write(monitor.stamp(done, hook.kind) | numbers)
            checkpoints.wait()
    report_end(console, config, int(state.step), stop)
    return Trained(int(state.step), join(state.params, state.frozen))


def compile_step(
    config: TrainConfig,
    model: Model,
    optimizer: optax.GradientTransformation,
    shardings: TrainState,
    num_tasks: int,
) -> Any:
    """The jitted step of a run; the state that it is given is donated."""
    function = make_step(
        make_objective(config, model, num_tasks),
        optimizer,
        learning_rate(config.optimizer, config.steps),
        optimizer_config=config.optimizer,
        guard_config=config.guard,
        accumulation=config.accumulation,
        seed=config.seed,
        join=joining(model),
    )
    return jax.jit(function, donate_argnums=0, out_shardings=(shardings, None))


def make_validator(
    config: TrainConfig, model: Model, mesh: Mesh, loader: BatchLoader
) -> Validator | ObjectiveValidator:
    """What measures the run on held-out data."""
    if config.objective is None:
        return Validator(config, base_model(model), mesh, loader)
    return ObjectiveValidator(config, model, mesh, loader)


def program_text(step: Any, state: TrainState, batch: Mapping[str, jax.Array]) -> str:
    """The compiled step as text, from the compilation cache."""
    return step.lower(state, batch).compile().as_text()


def about(config: TrainConfig, loader: BatchLoader) -> dict[str, Any]:
    """What a checkpoint says of its model and of the data that it was trained on."""
    return {
        "model": dataclasses.asdict(config.model),
        **({"head": "reward"} if isinstance(config.objective, RewardConfig) else {}),
        "loader": loader.identity(),
        "vocabulary": dataclasses.asdict(loader.vocabulary),
    }


def check_vocabulary(config: TrainConfig, loader: BatchLoader) -> None:
    """Refuses token stores with ids that the model has no row for."""
    if loader.vocabulary.size > config.model.vocab_size:
        raise UserError(
            f"{config.data.store_dir}: its tokenizer has {loader.vocabulary.size} tokens and the model "
            f"{config.model.vocab_size} rows; bind TransformerConfig.vocab_size = {loader.vocabulary.size} or more."
        )


def report_end(console: Console, config: TrainConfig, step: int, stop: StopRequest) -> None:
    """Says how the run ended; a Ctrl-C goes on as one."""
    if step >= config.steps:
        console.print(
            f"Done: {step:,} steps. {config.run_dir} has the checkpoint, metrics.jsonl and the configuration."
        )
        return
    console.print(f"Stopped after step {step:,} of {config.steps:,}, saved. The same command goes on from there.")
    if stop.interrupted:
        raise KeyboardInterrupt
