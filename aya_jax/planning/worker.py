"""One question about a plan, answered in a process of its own: `python -m aya_jax.planning.worker JOB ANSWER`.

A process of its own, because a compiler for a machine that is not there wants settings that JAX reads once, when it
starts, and that the user's process should not have; and because what the compiler took is given back at the end.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from aya_jax.config.errors import UserError
from aya_jax.planning.config import PlanConfig

NO_LIBTPU = (
    "compiling for a TPU needs libtpu, which is not installed: pip install 'aya_jax[tpu]' in an environment of its own "
    "(with libtpu beside it JAX looks for a TPU at every start), or add --gin.PlanConfig.compile=False for estimates alone"
)


@dataclasses.dataclass(frozen=True)
class Job:
    """What is asked.

    Attributes:
      action: "estimate": memory; "describe": memory and roofline, both by estimate; "compile": the same with what a compiler
        says.
      plans: what it is asked of; "compile" takes one.
    """

    action: Literal["estimate", "describe", "compile"]
    plans: tuple[PlanConfig, ...]


def prepare_environment(job: Job) -> None:
    """Sets what JAX and libtpu read when they start; nothing that the user set for a run of their own stays."""
    flags = [flag for plan in job.plans for flag in plan.train.mesh.xla_flags if flag.startswith("--xla_tpu")]
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "LIBTPU_INIT_ARGS": " ".join(dict.fromkeys(flags)),
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    target = job.plans[0].machine()
    if job.action == "compile" and target.chip.platform == "gpu":
        # Only the partitioned program is looked at, so its machine code may be as bad as it likes.
        count = target.chips * job.plans[0].train.mesh.slice
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=0"


def answer(job: Job) -> list[dict[str, Any]]:
    """The answers, in the order of the plans; {"refused": why} for a plan that cannot be."""
    from aya_jax.planning import facts

    function = {"estimate": facts.estimated, "describe": facts.described, "compile": facts.compiled}[job.action]
    answers = []
    for plan in job.plans:
        try:
            answers.append(function(plan))
        except UserError as error:
            answers.append({"refused": str(error)})
    return answers


def main(arguments: Sequence[str]) -> None:
    """Reads the job, writes the answer."""
    job = pickle.loads(Path(arguments[0]).read_bytes())
    prepare_environment(job)
    Path(arguments[1]).write_text(json.dumps(answer(job)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
