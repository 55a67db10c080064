"""Damaged and unsupported adapters: every refusal names file, key or tensor, expected and found."""

from __future__ import annotations

import json
import pickle
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_damage import flipped, safetensors_header, truncated
from tiny_adapter import save_adapter

from medusa_native import InvalidArgument
from medusa_native.errors import MedusaError, ModelFormatError
from medusa_native.loading import AdapterConfig, load_adapter, load_checkpoint, write_adapter

Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.fixture
def adapter(model: Path, tmp_path: Path) -> Path:
    return save_adapter(tmp_path / "adapter", model, ("q_proj", "lm_head"))


@cache
def config_of(model: Path) -> dict[str, Any]:
    return load_checkpoint(model).config


def loads(adapter: Path, model: Path) -> bool:
    try:
        load_adapter(adapter, config_of(model))
    except MedusaError:
        return False
    return True


def refusal(adapter: Path, model: Path) -> str:
    with pytest.raises(ModelFormatError) as error:
        load_adapter(adapter, config_of(model))
    return str(error.value)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_truncated(adapter: Path, model: Path, name: str) -> None:
    path = adapter / name
    content = path.read_bytes().rstrip()
    for damaged in truncated(content):
        path.write_bytes(damaged)
        assert str(path) in refusal(adapter, model)


def test_flips(adapter: Path, model: Path) -> None:
    """Any bit: refused or read, no other exception. Some turn a number into NaN or infinity."""
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        path = adapter / name
        content = path.read_bytes()
        for seed in range(200):
            path.write_bytes(flipped(content, 1 + seed % 8, 0, len(content), seed))
            loads(adapter, model)
        path.write_bytes(content)
    assert loads(adapter, model)


def test_flips_in_a_header(adapter: Path, model: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    content = path.read_bytes()
    refused = 0
    for seed in range(200):
        path.write_bytes(flipped(content, 1, 0, safetensors_header(content), seed))
        refused += not loads(adapter, model)
    assert refused > 150


def change(adapter: Path, values: dict[str, Any]) -> Path:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return path


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, "'peft_type' must be 'LORA', found 'IA3'"),
        ({"r": 0}, "'r' must be a whole number of at least 1, found 0"),
        ({"r": 2**40}, "'r' must be a whole number of at least 1, found 1099511627776"),
        ({"r": True}, "'r' must be a whole number of at least 1, found True"),
        ({"lora_alpha": float("nan")}, "'lora_alpha' must be a positive finite number, found nan"),
        ({"lora_alpha": float("inf")}, "'lora_alpha' must be a positive finite number, found inf"),
        ({"lora_alpha": 0}, "'lora_alpha' must be a positive finite number, found 0"),
        ({"lora_alpha": "16"}, "'lora_alpha' must be a number, found '16'"),
        ({"bias": "all"}, "'bias' must be 'none', found 'all'"),
        ({"use_dora": True}, "'use_dora' is not supported: expected null or false, found True"),
        ({"lora_bias": True}, "'lora_bias' is not supported"),
        ({"layer_replication": [[0, 2]]}, "'layer_replication' is not supported"),
        ({"target_parameters": ["mlp"]}, "'target_parameters' is not supported"),
        ({"made_up": 1}, "'made_up' is not supported: expected null or false, found 1"),
        ({"init_lora_weights": "pissa"}, "'init_lora_weights' must be one that leaves the model's"),
        ({"init_lora_weights": [1]}, "'init_lora_weights' must be one that leaves the model's"),
        ({"target_modules": [1]}, "'target_modules' must be a list of texts"),
        ({"target_modules": ["q_proj"]}, "lm_head.lora_A.weight': a module named by"),
        ({"rank_pattern": {"q_proj": 0}}, "'q_proj' must be a whole number of at least 1, found 0"),
        ({"rank_pattern": {"(a+)+$": 4}}, "'rank_pattern' must have names of modules as keys"),
        ({"alpha_pattern": {"q_proj": float("nan")}}, "'q_proj' must be a positive finite number"),
        ({"alpha_pattern": []}, "'alpha_pattern' must be an object, found []"),
        ({"modules_to_save": "lm_head"}, "'modules_to_save' must be a list, found 'lm_head'"),
    ],
)
def test_configurations(adapter: Path, model: Path, values: dict[str, Any], message: str) -> None:
    path = change(adapter, values)
    found = refusal(adapter, model)
    assert message in found
    assert str(path if "lora_A" not in message else adapter) in found


@pytest.mark.parametrize("content", ["[]", "{" * 10_000, "[" * 100_000, '{"r": 1, "r": 2}', "\x00"])
def test_json_that_is_no_object(adapter: Path, model: Path, content: str) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(content)
    assert str(path) in refusal(adapter, model)


def test_a_rank_beyond_the_tensors(adapter: Path, model: Path) -> None:
    change(adapter, {"r": 2**31 - 1})
    found = refusal(adapter, model)
    assert "lora_A.weight' must have shape (2147483647, 128), found (4, 128)" in found
    assert str(adapter / "adapter_model.safetensors") in found


def edit(adapter: Path, **changes: Any) -> Path:
    """Replace tensors by name; None takes one away."""
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path) | {name.replace("__", "."): value for name, value in changes.items()}
    save_file({name: value for name, value in tensors.items() if value is not None}, path)
    return path


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (Q, np.ones((4, 64), np.float32), "must have shape (4, 128), found (4, 64)"),
        (Q, np.ones((128, 4), np.float32), "must have shape (4, 128), found (128, 4)"),
        (Q, np.ones((4, 128, 1), np.float32), "must have shape (4, 128), found (4, 128, 1)"),
        (Q, np.full((4, 128), np.nan, np.float32), "must hold finite numbers, found NaN"),
        (Q, np.full((4, 128), np.inf, np.float16), "must hold finite numbers, found NaN"),
        (Q, np.ones((4, 128), np.int32), "must be one of F32, F16, BF16, found I32"),
        (Q, np.ones((4, 128), np.float64), "must be one of F32, F16, BF16"),
        (Q, None, "'lora_A' and 'lora_B' of model.layers.0.self_attn.q_proj expected"),
        (Q.replace("layers.0", "layers.7"), np.ones((4, 128), np.float32), "found none of that"),
        (Q.replace("q_proj", "qkv"), np.ones((4, 128), np.float32), "found none of that name"),
        (Q.replace("lora_A.weight", "lora_magnitude_vector"), np.ones(4, np.float32), "expected"),
        ("../../etc/passwd", np.ones(1, np.float32), "found none of that name"),
        ("base_model.model.lm_head.weight", np.ones((3, 3), np.float32), "shape (320, 128)"),
        (
            "base_model.model.model.norm.lora_A.weight",
            np.ones((4, 1), np.float32),
            "a module named by 'target_modules' expected, q_proj, lm_head; found model.norm",
        ),
    ],
)
def test_tensors(adapter: Path, model: Path, name: str, value: Any, message: str) -> None:
    path = edit(adapter, **{name: value})
    found = refusal(adapter, model)
    assert message in found
    assert str(path) in found
    if value is not None:
        assert name in found


def test_two_names_for_one_factor(adapter: Path, model: Path) -> None:
    again = Q.replace("lora_A.weight", "lora_A.default.weight")
    path = edit(adapter, **{again: np.ones((4, 128), np.float32)})
    found = refusal(adapter, model)
    assert str(path) in found
    assert "one name for lora_A of model.layers.0.self_attn.q_proj.weight expected, found" in found


def test_a_bias_that_the_model_does_not_have(adapter: Path, model: Path) -> None:
    from medusa_native import Decoder

    name = "base_model.model.model.layers.0.self_attn.q_proj.bias"
    path = edit(adapter, **{name: np.ones(128, np.float32)})
    with pytest.raises(ModelFormatError, match=r"q_proj\.bias' of the model expected") as error:
        Decoder(model, adapter=adapter)
    assert str(path) in str(error.value)


def test_merged_weights_that_overflow(adapter: Path, model: Path) -> None:
    from medusa_native import Decoder

    edit(adapter, **{Q: np.full((4, 128), 3e38, np.float32)})
    with pytest.raises(ModelFormatError, match="with the adapter must hold finite numbers"):
        Decoder(model, adapter=adapter)


def test_shards_are_not_followed(adapter: Path, model: Path) -> None:
    """PEFT writes one file. An index that names others, wherever they lie, is not read."""
    path = adapter / "adapter_model.safetensors"
    path.rename(adapter.parent / "outside.safetensors")
    index = {"weight_map": {Q: "../outside.safetensors"}}
    (adapter / "adapter_model.safetensors.index.json").write_text(json.dumps(index))
    assert "adapter_model.safetensors, adapter_model.bin expected, found none" in refusal(
        adapter, model
    )


def test_pickles_run_no_code(adapter: Path, model: Path, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "harm",))

    (adapter / "adapter_model.safetensors").unlink()
    path = adapter / "adapter_model.bin"
    path.write_bytes(pickle.dumps({Q: Harm()}))
    assert str(path) in refusal(adapter, model)
    generator = random.Random(3)
    path.write_bytes(bytes(generator.randrange(256) for _ in range(1000)))
    assert str(path) in refusal(adapter, model)
    assert not (tmp_path / "harm").exists()


def test_no_tensors_at_all(adapter: Path, model: Path) -> None:
    save_file({}, adapter / "adapter_model.safetensors")
    assert "tensors of LoRA expected, found none" in refusal(adapter, model)


def test_what_is_not_an_adapter(model: Path, tmp_path: Path) -> None:
    config = load_checkpoint(model).config
    with pytest.raises(ModelFormatError, match=r"adapter_config\.json: no such file"):
        load_adapter(model, config)
    with pytest.raises(InvalidArgument, match="no such file or folder"):
        load_adapter(tmp_path / "missing", config)
    with pytest.raises(ModelFormatError, match="adapter_config"):
        load_adapter(model / "config.json", config)


def test_what_is_not_written(tmp_path: Path) -> None:
    ones = np.ones((4, 8), np.float32)
    with pytest.raises(InvalidArgument, match=r"must have shapes \(2, in\) and \(out, 2\), found"):
        write_adapter(tmp_path, {"lm_head": (ones, ones.T)}, AdapterConfig(2, 1.0, ("lm_head",)))
    with pytest.raises(InvalidArgument, match="targets must name lm_head, found q_proj"):
        write_adapter(tmp_path, {"lm_head": (ones, ones.T)}, AdapterConfig(4, 1.0, ("q_proj",)))
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match="cannot be written"):
        write_adapter(
            tmp_path / "file", {"lm_head": (ones, ones.T)}, AdapterConfig(4, 1.0, ("lm_head",))
        )
