"""Tokenizers from GGUF metadata: byte-level BPE ("gpt2") and SentencePiece BPE ("llama").

Pre-tokenizer patterns, special-token rules and defaults follow the models' own tokenizer.json
files and llama.cpp (https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from medusa_native.errors import ModelFormatError
from medusa_native.loading.fields import Fields, reading
from medusa_native.loading.sentencepiece import (
    Piece,
    PieceType,
    add_special_pieces,
    sentencepiece_backend,
)
from medusa_native.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX = "tokenizer.ggml."

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _single_digits() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


# tokenizer.ggml.pre: how text is cut, whether whole words skip the merges, whether BOS is usual.
PRE_TOKENIZERS: dict[str, tuple[Callable[[], pre_tokenizers.PreTokenizer], bool, bool]] = {
    "default": (_gpt2, False, False),
    "gpt-2": (_gpt2, False, False),
    "smollm": (_single_digits, False, False),
    "starcoder": (_single_digits, False, False),
    "refact": (_single_digits, False, False),
    "command-r": (_single_digits, False, False),
    "qwen2": (lambda: _split(_QWEN2), False, False),
    "deepseek-r1-qwen": (lambda: _split(_QWEN2), False, False),
    "llama3": (lambda: _split(_LLAMA3), True, True),
    "llama-v3": (lambda: _split(_LLAMA3), True, True),
    "llama-bpe": (lambda: _split(_LLAMA3), True, True),
    "tekken": (lambda: _split(_TEKKEN), True, True),
}
_COMPOSED = {"qwen2", "deepseek-r1-qwen"}  # NFC first, as in these models' tokenizer.json

_ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
# Ends of a turn or a text, whatever the file's eos_token_id says; llama.cpp's list, our families.
_END_TOKENS = (
    "<|eot_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>", "<|eom_id|>", "</s>",
)  # fmt: skip


def gguf_tokenizer(fields: Fields) -> Tokenizer:
    """Build the tokenizer a GGUF file describes.

    Raises
    ------
    ModelFormatError
        A field is missing or malformed, or the kind of tokenizer is not supported.
    """
    model = fields.get_str(_PREFIX + "model")
    builders = {"gpt2": _byte_level, "llama": _sentencepiece}
    if model not in builders:
        raise fields.fail(_PREFIX + "model", f"one of {', '.join(builders)}")
    pieces = _pieces(fields)
    with reading(fields.path, "tokenizer metadata"):
        backend, add_bos = builders[model](fields, pieces)
        add_special_pieces(backend, pieces)
        roles = _roles(fields, pieces)
        _post_process(fields, backend, roles, add_bos)
    ends = _end_ids(fields, pieces)
    template = fields.get_str("tokenizer.chat_template", "") or None
    try:
        return Tokenizer(backend, roles, ends, template)
    except ModelFormatError as error:
        raise ModelFormatError(f"{fields.path}: {error}") from error


def _texts(fields: Fields, key: str) -> list[str]:
    values = fields.get_list(_PREFIX + key)
    if not all(isinstance(value, str) for value in values):
        raise fields.fail(_PREFIX + key, "a list of texts")
    return values


def _pieces(fields: Fields) -> list[Piece]:
    texts = _texts(fields, "tokens")
    if not texts:
        raise fields.fail(_PREFIX + "tokens", "a list of texts")
    scores = fields.get_list(_PREFIX + "scores") or [0.0] * len(texts)
    types = fields.get_list(_PREFIX + "token_type") or [PieceType.NORMAL] * len(texts)
    for key, values in (("scores", scores), ("token_type", types)):
        if len(values) != len(texts) or not all(isinstance(v, int | float) for v in values):
            raise fields.fail(_PREFIX + key, f"a list of {len(texts)} numbers, one a token")
    return [Piece(*item) for item in zip(texts, scores, types, strict=True)]


def _byte_level(fields: Fields, pieces: list[Piece]) -> tuple[Backend, bool]:
    pre = fields.get_str(_PREFIX + "pre", "default")
    if pre not in PRE_TOKENIZERS:
        raise fields.fail(_PREFIX + "pre", f"one of {', '.join(PRE_TOKENIZERS)}")
    splitter, ignore_merges, add_bos = PRE_TOKENIZERS[pre]
    vocab = {piece.text: index for index, piece in enumerate(pieces)}
    merges = [_merge(fields, text) for text in _texts(fields, "merges")]
    backend = Backend(BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
    if pre in _COMPOSED:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = splitter()
    backend.decoder = decoders.ByteLevel()
    return backend, add_bos


def _merge(fields: Fields, text: str) -> tuple[str, str]:
    left, space, right = text.partition(" ")
    if not (left and space and right):
        raise ModelFormatError(
            f"{fields.path}: '{_PREFIX}merges' must hold pairs of tokens, found {text!r:.80}"
        )
    return left, right


def _sentencepiece(fields: Fields, pieces: list[Piece]) -> tuple[Backend, bool]:
    prefix = fields.get_bool(_PREFIX + "add_space_prefix", True)
    return sentencepiece_backend(pieces, prefix), True


def _roles(fields: Fields, pieces: list[Piece]) -> dict[str, str]:
    roles = {}
    for role, key in _ROLES.items():
        if _PREFIX + key in fields:
            roles[role] = pieces[_token_id(fields, _PREFIX + key, len(pieces))].text
    return roles


def _token_id(fields: Fields, key: str, num_tokens: int) -> int:
    index = fields.get_int(key, low=0)
    if index >= num_tokens:
        raise fields.fail(key, f"a token id below {num_tokens}")
    return index


def _post_process(fields: Fields, backend: Backend, roles: dict[str, str], add_bos: bool) -> None:
    bos = roles.get("bos_token") if fields.get_bool(_PREFIX + "add_bos_token", add_bos) else None
    eos = roles.get("eos_token") if fields.get_bool(_PREFIX + "add_eos_token", False) else None
    set_post_processor(backend, bos, eos)


def set_post_processor(backend: Backend, bos: str | None, eos: str | None) -> None:
    """Make `add_special_tokens` put `bos` before and `eos` after a text."""
    template = [bos, "$A", eos]
    used = [(token, backend.token_to_id(token)) for token in (bos, eos) if token is not None]
    backend.post_processor = TemplateProcessing(
        single=[token for token in template if token is not None], special_tokens=used
    )


def _end_ids(fields: Fields, pieces: list[Piece]) -> list[int]:
    ids = [
        _token_id(fields, _PREFIX + key, len(pieces))
        for key in ("eos_token_id", "eot_token_id", "eom_token_id")
        if _PREFIX + key in fields
    ]
    control = {p.text: i for i, p in enumerate(pieces) if p.type == PieceType.CONTROL}
    return ids + [control[text] for text in _END_TOKENS if text in control]
