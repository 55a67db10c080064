"""Token ids against Transformers and SentencePiece."""

from __future__ import annotations

import contextlib
import io
import json
import random
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sentencepiece
import transformers
from sentencepiece import sentencepiece_model_pb2
from tiny_files import TOKENS, write_tokenizer
from tokenizers import pre_tokenizers

from medusa_native.errors import InvalidArgument, ModelFormatError
from medusa_native.loading import load_checkpoint, load_tokenizer
from medusa_native.loading.fields import Fields
from medusa_native.loading.gguf_tokenizer import gguf_tokenizer
from medusa_native.loading.hf_tokenizer import hf_tokenizer
from medusa_native.tokenizer import DetokenizeStream, Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

TEXTS = [
    "",
    " ",
    "hello world",
    "  two  spaces   three    four\t\ttabs \n\n\n newlines\r\n  ",
    "def f(x):\n    return [x**2 for _ in range(10)]  # code\n\n\n\tpass\n",
    "I'm, you're, WE'LL; it's 3.14159 and 1,000,000 or 2024-12-31",
    "Größe naïve Ωmega 日本語 한국어 العربية עברית हिन्दी",
    "emoji 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 and ❤️",
    "e\u0301 (decomposed) \u00e9 (composed) \ufb01 \u2460 \u00bd \u0663",
    "zero\u200bwidth \u00a0 nbsp \u2028 line \ufeff bom \x00 nul \x7f",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><|im_start|>",
    "▁under ▁▁ bars <0x0A> <s> </s>",
    "a" * 300 + " " * 300 + "1" * 30,
]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Why is the sky blue? 🌤 \n"},
    {"role": "assistant", "content": "Scattering."},
    {"role": "user", "content": "And 1 + 1?"},
]


@pytest.fixture(scope="module")
def demo(demo_path: Path) -> Tokenizer:
    return load_checkpoint(demo_path).tokenizer


@pytest.fixture(scope="module")
def oracle(demo_path: Path) -> Any:
    """Transformers' tokenizer of the demo model, with the model's own digit rule.

    Transformers' GGUF reader does not know the pre-tokenizer "smollm" and falls back on GPT-2's.
    The model's tokenizer.json, and llama.cpp for this name, cut before and after each digit first.
    """
    theirs = transformers.AutoTokenizer.from_pretrained(
        str(demo_path.parent), gguf_file=demo_path.name
    )
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    return theirs


@pytest.mark.parametrize("text", TEXTS)
def test_demo_ids(demo: Tokenizer, oracle: Any, text: str) -> None:
    ids = demo.encode(text)
    assert ids == oracle(text)["input_ids"]
    assert demo.decode(ids, skip_special_tokens=False) == text


def test_demo_ids_without_the_digit_rule(demo: Tokenizer, demo_path: Path) -> None:
    """Where there are no numbers, Transformers' own reading of the file agrees."""
    theirs = transformers.AutoTokenizer.from_pretrained(
        str(demo_path.parent), gguf_file=demo_path.name
    )
    for text in TEXTS:
        if any(unicodedata.category(character)[0] == "N" for character in text):
            continue
        assert demo.encode(text) == theirs(text)["input_ids"]


@pytest.mark.parametrize("length", range(1, len(CHAT) + 1))
@pytest.mark.parametrize("prompt", [True, False])
def test_demo_chat(demo: Tokenizer, oracle: Any, length: int, prompt: bool) -> None:
    expected = oracle.apply_chat_template(
        CHAT[:length], add_generation_prompt=prompt, return_dict=False
    )
    assert demo.apply_chat_template(CHAT[:length], prompt) == expected


def test_demo_special_tokens(demo: Tokenizer) -> None:
    assert demo.bos_token_id == 1
    assert demo.eos_token_ids == (0, 2)
    assert demo.vocab_size == 49152
    assert demo.decode([1, 19556, 2]) == "Hello"


def pieces(tokenizer: Tokenizer, ids: list[int], step: int = 1) -> list[str]:
    stream = DetokenizeStream(tokenizer, skip_special_tokens=False)
    result = [stream.push(ids[i : i + step]) for i in range(0, len(ids), step)]
    return [*result, stream.finish()]


@pytest.mark.parametrize("step", [1, 2, 3, 7])
@pytest.mark.parametrize("text", TEXTS)
def test_streaming(demo: Tokenizer, text: str, step: int) -> None:
    parts = pieces(demo, demo.encode(text), step)
    assert "".join(parts) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in part for part in parts)


def test_streaming_any_ids_is_short_work(demo: Tokenizer) -> None:
    """Random ids are full of broken characters: the window stays short and the text complete."""
    ids = [random.Random(0).randrange(demo.vocab_size) for _ in range(2000)]
    stream = DetokenizeStream(demo, skip_special_tokens=False)
    text = ""
    for i in ids:
        text += stream.push([i])
        assert len(stream._window) <= 20
    text += stream.finish()
    assert text == demo.decode(ids, skip_special_tokens=False)


def test_streaming_skips_special_tokens(demo: Tokenizer) -> None:
    stream = DetokenizeStream(demo)
    assert "".join([stream.push([1] * 100), stream.push([19556]), stream.push([2])]) == "Hello"


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
    assert "".join(pieces(tokenizer, tokenizer.encode(text))) == text


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


# Hugging Face folders


def test_folder_settings(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, add_bos_token=True, eos_token={"content": "<|im_end|>"})
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}!")
    tokenizer = hf_tokenizer(tmp_path)
    assert tokenizer.eos_token_ids == (0, 2)
    assert tokenizer.encode("hello")[0] == 1
    assert tokenizer.chat_template == "{{ bos_token }}!"
    assert tokenizer.decode(tokenizer.apply_chat_template([]), False) == "<|im_start|>!"


def test_folder_ids_equal_transformers(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    ours = hf_tokenizer(tmp_path)
    for text in TEXTS:
        assert ours.encode(text) == theirs(text)["input_ids"]
    expected = theirs.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    assert ours.apply_chat_template(CHAT) == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"\xff"),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b'{"chat_template": 3}'),
        ("tokenizer_config.json", b'{"chat_template": "{% if"}'),
        ("generation_config.json", b'{"eos_token_id": "x"}'),
        ("chat_template.jinja", b"\xff\xfe"),
    ],
)
def test_damaged_folder(tmp_path: Path, name: str, content: bytes) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFormatError, match=str(tmp_path)):
        hf_tokenizer(tmp_path)


def test_tokenizer_alone(tmp_path: Path, gguf: Callable[..., Path]) -> None:
    (tmp_path / "folder").mkdir()
    write_tokenizer(tmp_path / "folder")
    ours = load_tokenizer(tmp_path / "folder").encode("hello")
    assert load_tokenizer(gguf()).encode("hello") == ours


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json or tokenizer\.model"):
        hf_tokenizer(tmp_path)


# Arguments


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t.encode("\ud800"),
        lambda t: t.encode(3),
        lambda t: t.decode([-1]),
        lambda t: t.decode([2**40]),
        lambda t: t.decode(["a"]),
        lambda t: t.apply_chat_template(["hi"]),
        lambda t: t.apply_chat_template([{"content": "hi"}]),
    ],
)
def test_bad_arguments(tmp_path: Path, call: Callable[[Tokenizer], object]) -> None:
    write_tokenizer(tmp_path)
    with pytest.raises(InvalidArgument):
        call(hf_tokenizer(tmp_path))


def test_ids_without_a_token_give_nothing(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    assert hf_tokenizer(tmp_path).decode([10**6]) == ""


def test_no_chat_template(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, chat_template=None)
    with pytest.raises(InvalidArgument, match="no chat template"):
        hf_tokenizer(tmp_path).apply_chat_template(CHAT)
