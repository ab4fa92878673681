"""What the marks of tests mean."""

from __future__ import annotations

import os

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what needs real corpora where there are none."""
    if item.get_closest_marker("real_data") and not os.environ.get("AYA_DATA"):
        pytest.skip("AYA_DATA names no corpora")
