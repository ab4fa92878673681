"""Texts that models write and other models judge: scorers, and rounds of sampling, scoring and training."""
