"""Strict configuration: gin files in, one checked tree of frozen dataclasses out."""

from aya_jax.config.errors import ConfigError, UserError
from aya_jax.config.registry import Problem, configurable
from aya_jax.config.resolve import Resolved, resolve
from aya_jax.config.run_directory import RunDirectory
from aya_jax.config.snapshot import Difference, differences, leaves

__all__ = [
    "ConfigError",
    "Difference",
    "Problem",
    "Resolved",
    "RunDirectory",
    "UserError",
    "configurable",
    "differences",
    "leaves",
    "resolve",
]
