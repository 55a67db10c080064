"""Tokenizers built from metadata: how text is cut, byte-level BPE, SentencePiece BPE."""

from __future__ import annotations

import contextlib
import io
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from texts import TEXTS
from tiny_files import TOKENS
from tokenizers import pre_tokenizers

from medusa_native.errors import ModelFormatError
from medusa_native.loading.fields import Fields
from medusa_native.loading.gguf_tokenizer import gguf_tokenizer
from medusa_native.loading.hf_tokenizer import hf_tokenizer
from medusa_native.tokenizer import DetokenizeStream


def metadata(pre: str, **more: Any) -> Fields:
    byte_level = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.merges": ["h e", "l l", "1 2", "12 3", "Ġ Ġ"],
        "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(TOKENS) - 3),
        "tokenizer.ggml.bos_token_id": 1,
    }
    return Fields(Path("file.gguf"), byte_level | more)


LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    ("pre", "text", "words"),
    [
        ("gpt-2", "abc  1234 x", ["abc", " ", " 1234", " x"]),
        ("default", "don't  x", ["don", "'t", " ", " x"]),
        ("smollm", "abc  12 x", ["abc", "  ", "1", "2", " x"]),
        (
            "llama-bpe",
            "Don'T 12345\n\n  x!!",
            ["Don", "'T", " ", "123", "45", "\n\n", " ", " x", "!!"],
        ),
        ("qwen2", "a 123?\n b", ["a", " ", "1", "2", "3", "?\n", " b"]),
        ("tekken", "fooBar 12", ["foo", "Bar", " ", "1", "2"]),
    ],
)
def test_pre_tokenizers(pre: str, text: str, words: list[str]) -> None:
    backend = gguf_tokenizer(_all_words(pre)).backend
    spans = [span for _, span in backend.pre_tokenizer.pre_tokenize_str(text)]
    assert [text[a:b] for a, b in spans] == words


def _all_words(pre: str) -> Fields:
    vocab = [*TOKENS[:3], *sorted(pre_tokenizers.ByteLevel.alphabet())]
    kinds = [3] * 3 + [1] * (len(vocab) - 3)
    return metadata(
        pre,
        **{
            "tokenizer.ggml.tokens": vocab,
            "tokenizer.ggml.merges": [],
            "tokenizer.ggml.token_type": kinds,
        },
    )


@pytest.mark.parametrize(
    ("pre", "flag", "first"),
    [
        ("gpt-2", None, False),
        ("gpt-2", True, True),
        ("llama-bpe", None, True),
        ("llama-bpe", False, False),
    ],
)
def test_bos(pre: str, flag: bool | None, first: bool) -> None:
    tokenizer = gguf_tokenizer(
        Fields(Path("f"), dict(_all_words(pre).values) | {"tokenizer.ggml.add_bos_token": flag})
    )
    assert (tokenizer.encode("a")[0] == 1) is first
    assert tokenizer.encode("a", add_special_tokens=False)[0] != 1


def test_qwen2_composes_characters() -> None:
    tokenizer = gguf_tokenizer(_all_words("qwen2"))
    decomposed = unicodedata.normalize("NFD", "é")
    assert tokenizer.encode(decomposed) == tokenizer.encode("é")


# SentencePiece


@pytest.fixture(scope="module")
def spm() -> bytes:
    """A SentencePiece BPE model with byte fallback, trained on the licence of this repository."""
    licence = Path(__file__).parents[3] / "LICENSE"
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(licence.read_text().splitlines() * 2),
        model_writer=model,
        model_type="bpe",
        vocab_size=600,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=["<tool>"],
        minloglevel=2,
    )
    return model.getvalue()


def spm_fields(model: bytes, **more: Any) -> Fields:
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    values = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [p.piece for p in proto.pieces],
        "tokenizer.ggml.scores": [p.score for p in proto.pieces],
        "tokenizer.ggml.token_type": [p.type for p in proto.pieces],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
    }
    return Fields(Path("file.gguf"), values | more)


SPM_TEXTS = [text for text in TEXTS if "<s>" not in text and "\x00" not in text]


@pytest.mark.parametrize("text", [*SPM_TEXTS, "Licensed under the License"])
def test_sentencepiece_ids(spm: bytes, text: str) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=spm)
    tokenizer = gguf_tokenizer(spm_fields(spm))
    assert tokenizer.encode(text) == processor.encode(text)
    stream = DetokenizeStream(tokenizer)
    assert stream.push(tokenizer.encode(text)) + stream.finish() == text


def test_sentencepiece_ids_of_the_whole_licence(spm: bytes) -> None:
    text = (Path(__file__).parents[3] / "LICENSE").read_text()
    processor = sentencepiece.SentencePieceProcessor(model_proto=spm)
    assert gguf_tokenizer(spm_fields(spm)).encode(text) == processor.encode(text)


def test_sentencepiece_added_tokens(spm: bytes) -> None:
    """As in Llama's tokenizer.json, the text after an added token gets its own prefix space."""
    tokenizer = gguf_tokenizer(spm_fields(spm))
    tool = tokenizer.backend.token_to_id("<tool>")
    assert tokenizer.encode("a<tool>the") == [
        *tokenizer.encode("a"),
        tool,
        *tokenizer.encode("the"),
    ]


def test_sentencepiece_without_prefix(spm: bytes) -> None:
    tokenizer = gguf_tokenizer(spm_fields(spm, **{"tokenizer.ggml.add_space_prefix": False}))
    assert tokenizer.decode(tokenizer.encode(" the")) == " the"
    assert tokenizer.encode("the") != tokenizer.encode(" the")


def test_sentencepiece_file_alone(spm: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(spm)
    tokenizer = hf_tokenizer(tmp_path)
    plain = gguf_tokenizer(spm_fields(spm))
    for text in SPM_TEXTS:
        assert tokenizer.encode(text) == [1, *plain.encode(text)]
    assert tokenizer.eos_token_ids == (2,)


def test_damaged_sentencepiece_file(spm: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    generator = random.Random(0)
    for _ in range(50):
        path.write_bytes(spm[: generator.randrange(len(spm))])
        with contextlib.suppress(ModelFormatError):
            hf_tokenizer(tmp_path)
