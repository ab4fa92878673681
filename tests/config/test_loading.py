"""Names to what they mean; the collector is as before afterwards."""

from __future__ import annotations

import gc
import math

import pytest

from aya_jax.config.loading import load


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_as_before(on):
    before = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        assert load("math:tau") is math.tau
        assert gc.isenabled() is on
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            load("no_such_module:name")
        assert gc.isenabled() is on
        with pytest.raises(AttributeError, match="no_such_name"):
            load("math:no_such_name")
        assert gc.isenabled() is on
    finally:
        (gc.enable if before else gc.disable)()


def test_nothing_is_collected_during_an_import(tmp_path, monkeypatch):
    (tmp_path / "looks_at_the_collector.py").write_text("import gc\nENABLED = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert gc.isenabled()
    assert load("looks_at_the_collector:ENABLED") is False
