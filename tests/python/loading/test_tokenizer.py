"""Token ids against Transformers and SentencePiece."""

from __future__ import annotations

import copy
import json
import random
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import transformers
from texts import TEXTS
from tiny_files import write_tokenizer
from tokenizers import pre_tokenizers

from medusa_native.errors import InvalidArgument, ModelFormatError
from medusa_native.loading import load_checkpoint, load_tokenizer
from medusa_native.loading.hf_tokenizer import hf_tokenizer
from medusa_native.tokenizer import DetokenizeStream, Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

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
def theirs(demo_path: Path) -> Any:
    """Transformers' tokenizer of the demo model."""
    return transformers.AutoTokenizer.from_pretrained(
        str(demo_path.parent), gguf_file=demo_path.name
    )


@pytest.fixture(scope="module")
def oracle(theirs: Any) -> Any:
    """The same, with the model's own digit rule.

    Transformers' GGUF reader does not know the pre-tokenizer "smollm" and falls back on GPT-2's.
    The model's tokenizer.json, and llama.cpp for this name, cut before and after each digit first.
    """
    corrected = copy.deepcopy(theirs)
    corrected.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    return corrected


@pytest.mark.parametrize("text", TEXTS)
def test_demo_ids(demo: Tokenizer, oracle: Any, text: str) -> None:
    ids = demo.encode(text)
    assert ids == oracle(text)["input_ids"]
    assert demo.decode(ids, skip_special_tokens=False) == text


def test_demo_ids_without_the_digit_rule(demo: Tokenizer, theirs: Any) -> None:
    """Where there are no numbers, Transformers' own reading of the file agrees."""
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
