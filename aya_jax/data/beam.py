"""Runs shard jobs under Apache Beam, on any of its runners: where a corpus outgrows one machine.

The stores and the data then lie where every worker reaches them (gs://, s3://, a shared file system), as does the
vocabulary (a path in the workers' container), and the workers have this package installed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from aya_jax.config import UserError
from aya_jax.data.shards import ShardJob, prepare_shard

# Beam's in-process runner: without it Beam may want to download another one.
IN_MEMORY = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def run(jobs: Sequence[ShardJob], options: Sequence[str]) -> None:
    """Runs the jobs and waits; what each wrote is in its store (`store.read_shard_info`).

    Args:
      jobs: what to do; Reshuffle lets a runner deal them to its workers one by one.
      options: Beam's pipeline options; empty is Beam's in-memory runner.

    Raises:
      UserError: Beam is not installed, or a job failed. Shards that are finished stay.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError("runner = 'beam' needs Apache Beam: pip install 'aya_jax[beam]'") from error
    runner = None if any(option.startswith("--runner") for option in options) else IN_MEMORY
    try:
        with beam.Pipeline(runner=runner, options=PipelineOptions(list(options))) as pipeline:
            jobs_ = pipeline | "Jobs" >> beam.Create(list(jobs))
            jobs_ | "Spread" >> beam.Reshuffle() | "Prepare" >> beam.Map(prepare_shard)
    except RuntimeError as error:  # what Beam makes of an exception in a worker
        raise UserError(f"{_cause(error)} (in a Beam worker; finished shards are kept)") from error


def _cause(error: RuntimeError) -> str:
    """What the worker said, without the class of its exception and the name of the step."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^aya_jax[\w.]+: | \[while running .*\]$", "", text)
