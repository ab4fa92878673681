"""`aya evaluate`: which model, and what is measured of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
from rich.console import Console

from aya_jax.config import Resolved, UserError
from aya_jax.config.loading import load
from aya_jax.evaluation.config import EvaluateConfig
from aya_jax.evaluation.subject import Setting
from aya_jax.interop.model_dir import ModelDir, find_model, trained_with
from aya_jax.models.config import PrecisionConfig
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.compilation import use_compilation_cache
from aya_jax.parallel.device_map import show_device_map
from aya_jax.parallel.mesh import make_mesh
from aya_jax.training.console import make_console

FOLDER = "evaluations"


def run(resolved: Resolved[EvaluateConfig]) -> None:
    """Measures, and writes `evaluations/<name>.json` and `<name>.samples.jsonl`; both stand if they are there for the same
    weights and the same question.

    Raises:
      UserError: no model, or what the measurement needs is missing.
    """
    config, console = resolved.config, make_console(quiet=jax.process_index() != 0)
    if not config.measure.needs_model:
        run_on_texts(resolved, console)
        return
    use_compilation_cache(config.compilation_cache)
    found = find_model(config.model_dir, console.print, config.adapter)
    mesh = make_mesh(config.mesh)
    show_device_map(console, mesh)
    trained = trained_with(found)
    precision = config.precision or (trained.precision if trained else PrecisionConfig())
    model = Transformer(found.config, precision, config.mesh.logical_axes)
    file = results_file(config, found)
    with needing_harness():
        load(config.measure.RUN)(Setting(resolved, found, model, mesh, file, console))


def run_on_texts(resolved: Resolved[EvaluateConfig], console: Console) -> None:
    """As `run`, of what needs no model."""
    config = resolved.config
    file = Path(config.run_dir) / FOLDER / f"{config.name}.json"
    with needing_harness():
        load(config.measure.RUN_ON_TEXTS)(resolved, file, console)


@contextlib.contextmanager
def needing_harness() -> Iterator[None]:
    """Says how to install lm-evaluation-harness where something that needs it is imported and it is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"benchmarks need {error.name}: pip install 'aya_jax[eval]'") from error


def results_file(config: EvaluateConfig, found: ModelDir) -> Path:
    """Where the summary goes: into `run_dir`, else the run that the model is from, else the model's directory."""
    home = found.checkpoint.parents[1] if found.checkpoint else found.path
    return Path(config.run_dir or home) / FOLDER / f"{config.name}.json"
