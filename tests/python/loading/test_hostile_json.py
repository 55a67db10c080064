"""JSON that is well-formed, or nearly, and means harm: one clear error, wherever it is read."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from tiny_model import save_heads, save_model

from medusa_native import Decoder, InvalidArgument, MedusaError, ModelFormatError
from medusa_native.json_text import parse_json
from medusa_native.training import distill, train

DEEP = "[" * 100_000
DEEP_OBJECT = '{"a":' * 100_000
HUGE = '{"vocab_size": ' + "9" * 10_000 + "}"
TWICE = '{"vocab_size": 1, "vocab_size": 2}'
NOT_UTF8 = b'{"a": "\xff"}'
HOSTILE = {
    "deep": DEEP,
    "deep object": DEEP_OBJECT,
    "deep in a value": '{"x": ' + DEEP + "]" * 100_000 + "}",
    "huge number": HUGE,
    "repeated key": TWICE,
    "two values": "{} {}",
    "nothing": "",
}


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest) -> str:
    return HOSTILE[request.param]


def test_every_fault_is_a_value_error(hostile: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(hostile)
    with pytest.raises(ValueError, match="utf-8"):
        parse_json(NOT_UTF8)


def test_faults_are_told_apart() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(DEEP)
    with pytest.raises(ValueError, match="'vocab_size' occurs twice"):
        parse_json('{"x": [' + TWICE + "]}")
    assert parse_json('{"a": [{"b": 1}, {"b": 2}]}') == {"a": [{"b": 1}, {"b": 2}]}


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"],
)
def test_a_model_folder(tmp_path: Path, name: str, hostile: str) -> None:
    folder = save_model(tmp_path)
    (folder / name).write_text(hostile)
    with pytest.raises(ModelFormatError, match=name):
        Decoder(folder)


def test_an_index_of_shards(tmp_path: Path, hostile: str) -> None:
    folder = save_model(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(hostile)
    with pytest.raises(ModelFormatError, match=r"model\.safetensors\.index\.json"):
        Decoder(folder)


def test_the_config_of_heads(model: Path, tmp_path: Path, hostile: str) -> None:
    heads = save_heads(tmp_path)
    (heads / "config.json").write_text(hostile)
    with pytest.raises(ModelFormatError, match=r"config\.json"):
        Decoder(model, heads)


def test_the_header_of_heads(model: Path, tmp_path: Path, hostile: str) -> None:
    path = save_heads(tmp_path) / "medusa_lm_head.safetensors"
    header = hostile.encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    with pytest.raises(ModelFormatError, match=str(path)):
        Decoder(model, path)


def test_a_tensor_listed_twice(model: Path, tmp_path: Path) -> None:
    """The safetensors library takes the last of two; which one was meant nobody knows."""
    path = save_heads(tmp_path) / "medusa_lm_head.safetensors"
    content = path.read_bytes()
    end = 8 + struct.unpack_from("<Q", content)[0]
    text = content[8:end].decode().rstrip()
    entry = json.dumps(json.loads(text)["0.0.linear.bias"])
    header = (text[:-1] + f', "0.0.linear.bias": {entry}}}').encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + content[end:])
    with pytest.raises(ModelFormatError, match=r"'0\.0\.linear\.bias' occurs twice"):
        Decoder(model, path)


def test_a_tree(model: Path, heads: Path, tmp_path: Path, hostile: str) -> None:
    path = tmp_path / "tree.json"
    path.write_text(hostile)
    config = {"model": heads, "medusa_choices": str(path)}
    with pytest.raises(InvalidArgument, match="medusa_choices"):
        Decoder(model, speculative_config=config)


def test_prompts_and_answers(model: Path, tmp_path: Path, hostile: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(hostile + "\n")
    with pytest.raises(MedusaError, match=str(path)):
        distill(model, path, tmp_path / "out.jsonl")
    with pytest.raises(MedusaError, match=str(path)):
        train(model, path, tmp_path / "out")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta"])
def test_numbers_that_are_not_finite(tmp_path: Path, key: str, value: str) -> None:
    folder = save_model(tmp_path)
    text = (folder / "config.json").read_text()
    config = json.loads(text)
    (folder / "config.json").write_text(
        text.replace(f'"{key}": {config[key]}', f'"{key}": {value}')
    )
    with pytest.raises(ModelFormatError, match=key):
        Decoder(folder)


@pytest.mark.parametrize("key", ["vocab_size", "num_hidden_layers", "max_position_embeddings"])
@pytest.mark.parametrize("value", [0, -1, 2**31, 2**63, 10**400, 1.5, True, "8", [8]])
def test_counts_out_of_range(tmp_path: Path, key: str, value: object) -> None:
    folder = save_model(tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {key: value}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFormatError, match=key):
        Decoder(folder)
