"""`aya evaluate`: which model, and what is measured of it."""

from __future__ import annotations

from pathlib import Path

import jax

from aya_jax.config import Resolved, UserError
from aya_jax.evaluation.config import CodeConfig, EvaluateConfig, HarnessConfig
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
    use_compilation_cache(config.compilation_cache)
    found = find_model(config.model_dir, console.print, config.adapter)
    mesh = make_mesh(config.mesh)
    show_device_map(console, mesh)
    trained = trained_with(found)
    precision = config.precision or (trained.precision if trained else PrecisionConfig())
    model = Transformer(found.config, precision, config.mesh.logical_axes)
    file = results_file(config, found)
    if isinstance(config.measure, HarnessConfig):
        try:
            from aya_jax.evaluation.harness import benchmarks  # lm-evaluation-harness takes seconds to import
        except ModuleNotFoundError as error:
            raise UserError(f"benchmarks need {error.name}: pip install 'aya_jax[eval]'") from error

        benchmarks.run(resolved, found, model, mesh, file, console)
    elif isinstance(config.measure, CodeConfig):
        from aya_jax.evaluation.code import programs

        programs.run(resolved, found, model, mesh, file, console)
    else:
        from aya_jax.evaluation import held_out

        held_out.run(resolved, found, trained and trained.data, model, mesh, file, console)


def results_file(config: EvaluateConfig, found: ModelDir) -> Path:
    """Where the summary goes: into `run_dir`, else the run that the model is from, else the model's directory."""
    home = found.checkpoint.parents[1] if found.checkpoint else found.path
    return Path(config.run_dir or home) / FOLDER / f"{config.name}.json"
