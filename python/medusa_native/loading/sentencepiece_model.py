"""Reads `tokenizer.model`, SentencePiece's protobuf, which Vicuna and Llama 2 folders may hold alone.

Only the fields that decide token ids are read:
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medusa_native.errors import ModelFormatError
from medusa_native.loading.fields import reading
from medusa_native.loading.sentencepiece import Piece, PieceType

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_TYPE = 1, 2, 3
_MODEL_TYPE, _BPE = 3, 2
_CHARSMAP, _ADD_DUMMY_PREFIX, _REMOVE_EXTRA_WHITESPACES = 2, 3, 4

_Value = int | bytes


@dataclass(frozen=True)
class SentencePieceModel:
    """A vocabulary in id order, and whether a space is put before a text."""

    pieces: list[Piece]
    add_dummy_prefix: bool


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a SentencePiece BPE model.

    Raises
    ------
    ModelFormatError
        The file is damaged, or the model is not BPE over unchanged text.
    """
    with reading(path, "a SentencePiece model"):
        top = list(_fields(path.read_bytes()))
        pieces = [_piece(value) for number, value in top if number == _PIECES]
        trainer = _message(top, _TRAINER)
        normalizer = _message(top, _NORMALIZER)
    if trainer.get(_MODEL_TYPE, 1) != _BPE:
        raise ModelFormatError(f"{path}: a SentencePiece model of type BPE expected, found another")
    if normalizer.get(_CHARSMAP) or normalizer.get(_REMOVE_EXTRA_WHITESPACES, 1):
        raise ModelFormatError(
            f"{path}: a SentencePiece model without text normalisation expected, found one with it"
        )
    return SentencePieceModel(pieces, bool(normalizer.get(_ADD_DUMMY_PREFIX, 1)))


def _message(fields: list[tuple[int, _Value]], number: int) -> dict[int, _Value]:
    return {
        key: value
        for found, message in fields
        if found == number
        for key, value in _fields(_as_bytes(message))
    }


def _piece(message: _Value) -> Piece:
    values = dict(_fields(_as_bytes(message)))
    (score,) = struct.unpack("<f", _as_bytes(values.get(_PIECE_SCORE, bytes(4))))
    text = _as_bytes(values.get(_PIECE_TEXT, b"")).decode("utf-8")
    kind = values.get(_PIECE_TYPE, PieceType.NORMAL)
    if not isinstance(kind, int):
        raise TypeError("a piece's type is not a number")
    return Piece(text, score, kind)


def _as_bytes(value: _Value) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("a message or text expected, found a number")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, _Value]]:
    """Field numbers and values of one protobuf message; fixed-width values as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}[wire]
        if at + size > len(data):
            raise ValueError("truncated")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 10 bytes")
