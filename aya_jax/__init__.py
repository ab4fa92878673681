"""Pre-train, tune, align, merge and judge multilingual language models in JAX, from gin files."""

__version__ = "0.1.0"
