"""A small edit of a SentencePiece model file: user-defined pieces that are control tokens by their name become so.

SentencePiece finds a user-defined piece (Gemma's `<start_of_turn>`) in any text, a control piece in none. The edit
walks the file's protobuf wire format, because the classes that sentencepiece ships need the very protobuf release they
were generated with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

CONTROL, USER_DEFINED = 3, 4  # ModelProto.SentencePiece.Type


def make_control(content: bytes, is_control: Callable[[str], bool]) -> bytes:
    """The model with those user-defined pieces that `is_control` picks turned into control pieces.

    sentencepiece_model.proto: ModelProto.pieces is field 1; in a piece, field 1 is its text and field 3 its type, where
    USER_DEFINED is 4 and CONTROL 3. Both are one byte long, so the type is changed in place.

    Raises:
      ValueError, IndexError: the content is empty or no protobuf message.
    """
    if not content:
        raise ValueError("it is empty")
    edited = bytearray(content)
    for number, start, end in _proto_fields(content, 0, len(content)):
        if number != 1:
            continue
        fields = {inner: (first, last) for inner, first, last in _proto_fields(content, start, end)}
        kind = fields.get(3)
        if not kind or content[kind[0]] != USER_DEFINED:
            continue
        if is_control(content[slice(*fields[1])].decode("utf-8", "replace")):
            edited[kind[0]] = CONTROL
    return bytes(edited)


def _proto_fields(content: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, first byte of the value, its end) of each field of a protobuf message in content[start:end]."""
    while start < end:
        tag, start = _varint(content, start)
        match tag & 7:
            case 0:
                _, stop = _varint(content, start)
            case 1:
                stop = start + 8
            case 2:
                length, start = _varint(content, start)
                stop = start + length
            case 5:
                stop = start + 4
            case _:
                raise ValueError("its bytes are no protobuf message")
        if stop > end:
            raise ValueError("it ends early")
        yield tag >> 3, start, stop
        start = stop


def _varint(content: bytes, start: int) -> tuple[int, int]:
    """The base-128 number at content[start] and the position behind it."""
    value, shift = 0, 0
    while True:
        byte = content[start]
        value |= (byte & 0x7F) << shift
        start, shift = start + 1, shift + 7
        if byte < 0x80:
            return value, start
