"""The ledger of tokens, by hand."""

from __future__ import annotations

import math

import pytest

from aya_jax.studies.ledger import code_share, ledger, phases, shares
from aya_jax.studies.runs import read_run
from tests.studies.fixtures import BATCH, LENGTH, STEPS, write_run, write_store


def test_a_pattern_is_split_by_tokens_and_a_named_task_leaves_it():
    available = {"text_en": 300, "text_de": 100, "text_fr": 5, "code_web": 7}
    got = shares({"text_*": 3.0, "text_fr": 1.0}, 1.0, available)
    assert got == pytest.approx({"text_en": 0.75 * 0.75, "text_de": 0.75 * 0.25, "text_fr": 0.25})


def test_temperature_flattens_a_split():
    available = {"text_en": 10_000, "text_de": 100}
    assert shares({"text_*": 1.0}, 2.0, available) == pytest.approx({"text_en": 100 / 110, "text_de": 10 / 110})
    assert shares({"text_*": 1.0}, 1e9, available) == pytest.approx({"text_en": 0.5, "text_de": 0.5})


def test_a_pattern_without_stores_keeps_its_share():
    assert shares({"text_*": 0.9, "code_*": 0.1}, 1.0, {}) == pytest.approx({"text_*": 0.9, "code_*": 0.1})


def test_a_schedule_gives_stretches_of_steps():
    mixture = {
        "rates": {"text_en": 1.0},
        "schedule": {"0": {"0": 30, "1": {"code_web": 1.0}}, "1": {"0": 90, "1": {"text_en": 2.0}}},
    }
    assert list(phases(mixture, 80, {})) == [(0, 30, {"text_en": 1.0}), (30, 80, {"code_web": 1.0})]


def test_planned_and_trained_tokens_and_epochs(tmp_path):
    tasks = ["text_en", "text_de", "code_web", "code_markup"]
    write_store(tmp_path / "store", tasks)
    write_run(tmp_path / "run", tmp_path / "store", 0.25, 1, tasks)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines(keepends=True)
    half = [line for line in lines if int(line.split('"step": ')[1].split(",")[0]) <= STEPS // 2]
    (tmp_path / "run/metrics.jsonl").write_text(
        "".join(half) + '{"step": 1'
    )  # killed half-way, in the middle of a line
    run = read_run(tmp_path / "run", "run")
    entries = {entry.task: entry for entry in ledger(run)}
    total = STEPS * BATCH * LENGTH
    assert sum(entry.planned for entry in entries.values()) == pytest.approx(total)
    assert entries["text_en"].planned == pytest.approx(0.375 * total)
    assert entries["code_web"].planned == pytest.approx(0.125 * total)
    assert entries["code_web"].trained == pytest.approx(0.125 * total / 2)
    assert entries["code_web"].epochs == pytest.approx(0.125 * total / 2 / 40_000)
    assert code_share([run]) == pytest.approx(0.25)


def test_no_configuration_no_share(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    assert math.isnan(code_share([read_run(tmp_path, "run")]))
