"""The edit of model files, judged by sentencepiece itself."""

from __future__ import annotations

import io

import pytest
import sentencepiece

from aya_jax.data.sentencepiece_model import make_control


@pytest.fixture(scope="module")
def model() -> bytes:
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["one two three four", "five six seven eight"] * 4),
        model_writer=content,
        vocab_size=24,
        user_defined_symbols=["<turn>", "<b>"],
        minloglevel=2,
    )
    return content.getvalue()


def test_nothing_picked_changes_nothing(model: bytes) -> None:
    assert make_control(model, lambda piece: False) == model


def test_picked_user_pieces_become_control_pieces_and_no_others(model: bytes) -> None:
    before = sentencepiece.SentencePieceProcessor(model_proto=model)
    after = sentencepiece.SentencePieceProcessor(model_proto=make_control(model, lambda piece: piece == "<turn>"))
    size = before.vocab_size()
    assert [after.id_to_piece(i) for i in range(size)] == [before.id_to_piece(i) for i in range(size)]
    turn = before.piece_to_id("<turn>")
    assert [i for i in range(size) if after.is_control(i) != before.is_control(i)] == [turn]
    assert turn in before.encode("one<turn>two")
    assert turn not in after.encode("one<turn>two")
    assert after.piece_to_id("<b>") in after.encode("one<b>two")


def test_ordinary_pieces_are_left_alone_whatever_is_picked(model: bytes) -> None:
    after = sentencepiece.SentencePieceProcessor(model_proto=make_control(model, lambda piece: True))
    before = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert after.encode("one two") == before.encode("one two")


@pytest.mark.parametrize("content", [b"", b"\x0a\x7fcut", b"\x0f", b"\xff\xff"])
def test_what_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        make_control(content, lambda piece: True)
