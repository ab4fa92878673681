"""The table of tokens: sums that a reader can check."""

import io

import pytest
from rich.console import Console

from aya_jax.data.token_table import make_table, render_table

ROWS = [
    ("code_web", "code", "web_code", 1000, 250),
    ("text_de", "de", "text", 2_001_000, 250),
    ("text_en", "en", "text", 500, 500),
]


def test_totals_are_sums_of_their_tasks():
    table = make_table(ROWS)
    assert [row.share for row in table.tasks] == [0.25, 0.25, 0.5]
    assert [row.epochs for row in table.tasks] == [0.25, 250 / 2_001_000, 1.0]
    text = next(row for row in table.domains if row.domain == "text")
    assert (text.available, text.planned, text.share, text.num_tasks) == (2_001_500, 750, 0.75, 2)
    assert (table.total.available, table.total.planned, table.total.share) == (2_002_500, 1000, pytest.approx(1.0))
    assert [row.language for row in table.languages] == ["code", "de", "en"]


def test_a_run_of_no_tokens_has_no_shares():
    assert make_table([("a", "en", "text", 10, 0)]).total.share == 0


def test_the_table_fits_80_columns_and_repeats_no_single_task_as_a_total():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render_table(make_table([*ROWS, ("code_adjacent", "code", "code_adjacent", 10**13, 0)]), "A run"))
    lines = console.export_text().splitlines()
    assert "A run" in lines[0]
    assert all(len(line) <= 80 for line in lines)
    cells = [line.split() for line in lines]
    assert ["text_de", "de", "text", "2.001", "M", "250", "0.000125", "25.00%"] in cells
    assert ["code", "10", "T", "250", "2.5e-11", "25.00%"] in cells
    assert ["text", "2.002", "M", "750", "0.000375", "75.00%"] in cells
    assert ["all", "10", "T", "1", "k", "1e-10", "100.00%"] in cells
    assert "language" in lines[2]
    assert not [line for line in cells if line[:1] in (["en"], ["web_code"])]
