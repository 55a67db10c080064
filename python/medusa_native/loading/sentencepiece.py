"""SentencePiece BPE models (Llama 2, Vicuna, Mistral) as `tokenizers` pipelines.

SentencePiece joins, again and again, the adjacent pair whose join has the best score. That is
byte-pair encoding with every split of every piece as a merge, ranked by score
(https://github.com/google/sentencepiece/blob/master/src/bpe_model.cc).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE

_SPACE = "\u2581"
_MAX_PIECE = 128  # characters; SentencePiece's own default is 16


class PieceType(IntEnum):
    """What a vocabulary entry is; the numbers are SentencePiece's and GGUF's."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Piece(NamedTuple):
    """One vocabulary entry."""

    text: str
    score: float
    type: int


def merges(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Every split of every piece into two others, best score first, longer left parts first."""
    parts = {p.text for p in pieces if p.type in (PieceType.NORMAL, PieceType.USER_DEFINED)}
    longest = max((p.text for p in pieces if p.type == PieceType.NORMAL), key=len, default="")
    if len(longest) > _MAX_PIECE:
        raise ValueError(
            f"SentencePiece tokens of at most {_MAX_PIECE} characters expected, "
            f"found {longest[:40]!r}... of {len(longest)}"
        )
    ranked = sorted(
        (-piece.score, -cut, piece.text)
        for piece in pieces
        if piece.type == PieceType.NORMAL
        for cut in range(1, len(piece.text))
        if piece.text[:cut] in parts and piece.text[cut:] in parts
    )
    return [(text[:-cut], text[-cut:]) for _, cut, text in ranked]


def sentencepiece_backend(pieces: list[Piece], add_space_prefix: bool) -> Tokenizer:
    """Build the pipeline of a SentencePiece BPE model.

    Parameters
    ----------
    pieces
        The vocabulary in id order.
    add_space_prefix
        Whether a text is encoded as if a space stood before it.
    """
    vocab = {piece.text: index for index, piece in enumerate(pieces)}
    unknown = next((p.text for p in pieces if p.type == PieceType.UNKNOWN), None)
    backend = Tokenizer(
        BPE(vocab, merges(pieces), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    spaces = normalizers.Replace(" ", _SPACE)
    prefix = [normalizers.Prepend(_SPACE)] if add_space_prefix else []
    backend.normalizer = normalizers.Sequence([*prefix, spaces])
    strip = [decoders.Strip(" ", 1, 0)] if add_space_prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return backend


def add_special_pieces(backend: Tokenizer, pieces: list[Piece]) -> None:
    """Keep control and user-defined pieces whole; the former are special (left out of text)."""
    control = [p.text for p in pieces if p.type == PieceType.CONTROL and p.text]
    custom = [p.text for p in pieces if p.type == PieceType.USER_DEFINED and p.text]
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control])
    backend.add_tokens([AddedToken(t, normalized=False, special=False) for t in custom])
