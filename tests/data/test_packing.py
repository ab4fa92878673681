"""Packing against a loop that reads like the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.data import packing
from aya_jax.data.packing import FIELDS, first_fit, pack_windows

BOS, EOS, PAD = 100, 101, 102
documents = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=12)


def _stored(bodies, bos, eos):
    return [[*([] if bos is None else [bos]), *body, eos] for body in bodies]


def _oracle(stored, weights, start, length):
    """One window, token by token, from the documents themselves."""
    flat = [(d, p) for d, document in enumerate(stored) for p in range(len(document))]
    rows = {name: [] for name in FIELDS}
    segment, position = 0, 0
    for t in range(start, start + length):
        (document, place), (next_document, next_place) = flat[t], flat[t + 1]
        if t == start or document != flat[t - 1][0]:
            segment, position = segment + 1, 0
        rows["tokens"].append(stored[document][place])
        rows["targets"].append(stored[next_document][next_place])
        same = document == next_document
        rows["loss_weights"].append(weights[next_document][next_place] if same else 0.0)
        rows["segment_ids"].append(segment)
        rows["positions"].append(position)
        position += 1
    return rows


@settings(deadline=None, max_examples=200)
@given(documents, st.sampled_from([(BOS, EOS), (None, EOS), (EOS, EOS)]), st.booleans(), st.data())
def test_windows_are_as_defined(bodies, specials, weighted, data):
    bos, eos = specials
    stored = _stored(bodies, bos, eos)
    flat = np.array([token for document in stored for token in document], np.int32)
    length = data.draw(st.integers(1, len(flat) - 1))
    starts = data.draw(st.lists(st.integers(0, len(flat) - 1 - length), min_size=1, max_size=4))
    of_token = np.random.default_rng(0).integers(0, 3, len(flat)) / 2 if weighted else np.ones(len(flat))
    windows = np.stack([flat[s : s + length + 1] for s in starts])
    weights = np.stack([of_token[s : s + length + 1] for s in starts]).astype(np.float32) if weighted else None
    bounds = np.cumsum([len(document) for document in stored])[:-1]
    expected = [_oracle(stored, np.split(of_token, bounds), s, length) for s in starts]
    found = pack_windows(windows, bos_id=bos, eos_id=eos, weights=weights)
    for name, dtype in FIELDS.items():
        assert found[name].dtype == dtype
        np.testing.assert_array_equal(found[name], [row[name] for row in expected], err_msg=name)


def test_an_eos_inside_a_document_that_has_a_bos_is_text():
    window = np.array([[BOS, 1, EOS, 2, EOS, BOS, 3]], np.int32)
    found = pack_windows(window, bos_id=BOS, eos_id=EOS)
    assert found["segment_ids"].tolist() == [[1, 1, 1, 1, 1, 2]]
    assert found["loss_weights"].tolist() == [[1, 1, 1, 1, 0, 1]]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 16))
def test_first_fit_places_every_token_once(lengths, capacity):
    rows = first_fit(lengths, capacity)
    seen = np.concatenate([np.zeros(n, int) for n in lengths]) if lengths else np.zeros(0, int)
    begins = np.cumsum([0, *lengths])
    for row in rows:
        assert 0 < sum(piece.length for piece in row) <= capacity
        for piece in row:
            first = begins[piece.document] + piece.start
            seen[first : first + piece.length] += 1
            assert piece.last == (piece.start + piece.length == lengths[piece.document])
            assert piece.length == min(capacity, lengths[piece.document] - piece.start)
    assert (seen == 1).all()
    # First fit: no piece that opened a row had room in one before it when it was placed.
    room: list[int] = []
    where = {(piece.document, piece.start): k for k, row in enumerate(rows) for piece in row}
    for document, length in enumerate(lengths):
        for start in range(0, length, capacity):
            size = min(capacity, length - start)
            expected = next((k for k, space in enumerate(room) if space >= size), len(room))
            room += [capacity] if expected == len(room) else []
            room[expected] -= size
            assert where[document, start] == expected


@pytest.mark.parametrize("follows", [True, False])
def test_a_piece_is_placed_with_its_targets(follows):
    fields = packing.empty_rows(2, 6, PAD)
    tokens = np.array([5, 6, 7, 8] if follows else [5, 6, 7], np.int32)
    weights = np.array([9, 0.5, 0.25, 2] if follows else [9, 0.5, 0.25], np.float32)
    packing.place_piece(fields, 1, 2, 4, tokens, 3, weights)
    assert fields["tokens"].tolist() == [[PAD] * 6, [PAD, PAD, 5, 6, 7, PAD]]
    assert fields["targets"][1].tolist() == [PAD, PAD, 6, 7, 8 if follows else PAD, PAD]
    assert fields["loss_weights"][1].tolist() == [0, 0, 0.5, 0.25, 2 if follows else 0, 0]
    assert fields["segment_ids"].tolist() == [[0] * 6, [0, 0, 4, 4, 4, 0]]
    assert fields["positions"].tolist() == [[0] * 6, [0, 0, 0, 1, 2, 0]]


def test_padding_from_a_position_hides_the_rest():
    fields = pack_windows(np.array([[BOS, 1, 2, EOS, BOS, 3]], np.int32), bos_id=BOS, eos_id=EOS)
    packing.pad_from(fields, 0, 2, PAD)
    assert fields["tokens"].tolist() == [[BOS, 1, PAD, PAD, PAD]]
    assert fields["targets"].tolist() == [[1, 2, PAD, PAD, PAD]]
    assert fields["loss_weights"].tolist() == [[1, 1, 0, 0, 0]]
    assert fields["segment_ids"].tolist() == [[1, 1, 0, 0, 0]]
    assert fields["positions"].tolist() == [[0, 1, 0, 0, 0]]
