"""Token tables for another vocabulary: rows by hand, and mergekit's rule for those that a model lacks."""

import json

import ml_dtypes
import numpy as np
import pytest

from aya_jax.merging.sources import open_source
from aya_jax.merging.vocabularies import Rows, first_differences, rows_for, tokens_of, union
from tests.merging.chat_models import chat_model

A = {"<pad>": 0, "x": 1, "y": 2}
B = {"<pad>": 0, "y": 1, "z": 2, "w": 3}


def test_a_union_keeps_the_first_ids_and_appends_the_others_in_their_order():
    assert union(A, [B, {"v": 0, "z": 1}]) == {"<pad>": 0, "x": 1, "y": 2, "z": 3, "w": 4, "v": 5}
    assert union({"<pad>": 0, "x": 7}, [B]) == {"<pad>": 0, "x": 7, "y": 8, "z": 9, "w": 10}


def test_the_first_differing_tokens_are_named_by_id():
    assert first_differences(A, A) == []
    assert first_differences(A, B, most=2) == [(1, "x", "y"), (2, "y", "z")]
    assert first_differences(A, A | {"q": 3}) == [(3, None, "q")]


@pytest.mark.parametrize("base", [0, None])
def test_a_row_that_a_model_lacks_is_the_bases_or_else_the_average(base, tmp_path):
    """Three models: x in the first, y in all, z in the second and third."""
    first = np.array([[1.0, 1], [10, 20], [0, 0]], np.float32)  # x, y, a row of no token
    second = np.array([[30.0, 30], [7, 7]], np.float32)  # y, z
    third = np.array([[9.0, 9], [50, 50]], np.float32)  # z, y
    maps = (np.array([0, 1, -1, 2]), np.array([-1, 0, 1, -1]), np.array([-1, 1, 0, -1]))
    one, two, three = Rows(4, maps, base).mapped([first, second, third], tmp_path)
    np.testing.assert_array_equal(one, [[1, 1], [10, 20], [8, 8], [0, 0]])  # z: (7 + 9) / 2
    np.testing.assert_array_equal(two, [[1, 1], [30, 30], [7, 7], [0, 0]])
    np.testing.assert_array_equal(three, [[1, 1], [50, 50], [9, 9], [0, 0]])
    assert list(tmp_path.iterdir()) == []  # its files have no names


def test_the_base_comes_before_the_average_and_types_are_the_widest(tmp_path):
    base = np.array([[2.0], [4.0]], ml_dtypes.bfloat16)
    other = np.array([[8.0]], np.float32)
    third = np.array([[1.0]], np.float32)
    maps = (np.array([0, 1]), np.array([-1, 0]), np.array([0, -1]))
    tables = Rows(2, maps, 0).mapped([base, other, third], tmp_path)
    assert [float(table[0, 0]) for table in tables] == [2, 2, 1]
    assert [float(table[1, 0]) for table in tables] == [4, 8, 4]
    averaged = Rows(2, maps, None).mapped([base, other, third], tmp_path)
    assert float(averaged[1][0, 0]) == 1.5  # (2 + 1) / 2
    assert float(averaged[2][1, 0]) == 6.0  # (4 + 8) / 2


def test_a_table_larger_than_one_part_is_the_gathered_one(tmp_path):
    rng = np.random.default_rng(0)
    table, own = rng.normal(size=(9000, 3)).astype(np.float32), rng.integers(0, 9000, 10_000)
    other = rng.normal(size=(10_000, 3)).astype(np.float32)
    mapped, same = Rows(10_000, (own, None), None).mapped([table, other], tmp_path)
    np.testing.assert_array_equal(mapped, table[own])
    assert same is other


def test_rows_of_tokens_come_from_each_models_tokenizer(tmp_path):
    """Models whose tokenizers have an added token each, at the same id."""
    sources = [
        open_source(str(chat_model(tmp_path / name, seed, added=added)), print)
        for seed, (name, added) in enumerate({"a": "<|A|>", "b": "<|B|>"}.items())
    ]
    tokens = [tokens_of(source) for source in sources]
    assert json.loads((tmp_path / "a" / "tokenizer.json").read_text())["added_tokens"][-1]["content"] == "<|A|>"
    at = tokens[0]["<|A|>"]
    assert tokens[1]["<|B|>"] == at
    ids = union(tokens[0], tokens[1:])
    assert ids["<|A|>"] == at
    assert ids["<|B|>"] == at + 1
    rows = rows_for(ids, sources[0].config.vocab_size, sources, tokens, 0, None)
    assert rows.of_source[1][at] == -1
    assert rows.of_source[1][at + 1] == at
    assert rows.of_source[0][at + 1] == -1
    everything_else = [number for number in ids.values() if number < at]
    for own in rows.of_source:
        np.testing.assert_array_equal(own[everything_else], everything_else)
