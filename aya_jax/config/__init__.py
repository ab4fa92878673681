"""Strict configuration: gin files in, one checked tree of frozen dataclasses out."""

from aya_jax.config.errors import UserError
from aya_jax.config.registry import Problem, configurable

__all__ = ["Problem", "UserError", "configurable"]
