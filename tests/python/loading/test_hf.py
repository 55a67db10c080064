from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import save_file
from tiny_files import TOKENS, write_tokenizer

from medusa_native.errors import ModelFormatError
from medusa_native.loading import load_checkpoint

SIZES = {
    "vocab_size": len(TOKENS),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def save_model(folder: Path, kind: str, dtype: torch.dtype, **settings: Any) -> dict[str, Any]:
    """Write a tiny random model as Transformers does; return its state dict."""
    config = transformers.AutoConfig.for_model(kind, **SIZES | settings)
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype)
    shard = settings.get("max_shard_size", "20KB")
    model.save_pretrained(folder, max_shard_size=shard)
    write_tokenizer(folder)
    return dict(model.state_dict())


def change_config(folder: Path, **changes: Any) -> None:
    """Overwrite keys of config.json; None removes one."""
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def fails(folder: Path, *parts: str) -> None:
    with pytest.raises(ModelFormatError) as caught:
        load_checkpoint(folder)
    for part in (str(folder), *parts):
        assert part in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path, "llama", torch.float32, max_shard_size="1GB")
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_sharded_models(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    state = save_model(tmp_path, kind, dtype)
    checkpoint = load_checkpoint(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert checkpoint.config["architecture"] == kind
    assert checkpoint.tensors.keys() == state.keys()
    for name, tensor in checkpoint.tensors.items():
        assert not tensor.data.flags.writeable
        np.testing.assert_array_equal(tensor.to_float32(), state[name].float().numpy())


def test_tied_embeddings_are_read_once(tmp_path: Path) -> None:
    save_model(tmp_path, "qwen2", torch.float32, tie_word_embeddings=True)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.config["tie_word_embeddings"] is True
    assert "lm_head.weight" not in checkpoint.tensors


@pytest.mark.parametrize(
    ("changes", "kind", "factor"),
    [
        ({}, "none", 1.0),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear", 2.0),
        ({"rope_scaling": {"rope_type": "llama3"} | LLAMA3}, "llama3", 8.0),
        ({"rope_parameters": LLAMA3}, "llama3", 8.0),
        ({"rope_parameters": {"rope_type": "linear", "factor": 3, "rope_theta": 5}}, "linear", 3.0),
    ],
)
def test_rope(folder: Path, changes: dict[str, Any], kind: str, factor: float) -> None:
    change_config(folder, **{"rope_parameters": None, **changes})
    config = load_checkpoint(folder).config
    assert (config["rope_scaling_type"], config["rope_factor"]) == (kind, factor)
    assert config["rope_original_max_position_embeddings"] == (64 if kind == "llama3" else 256)


def test_rope_theta_old_and_new(folder: Path) -> None:
    change_config(folder, rope_parameters=None, rope_theta=1234)
    assert load_checkpoint(folder).config["rope_theta"] == 1234.0
    change_config(folder, rope_parameters={"rope_type": "default", "rope_theta": 77.0})
    assert load_checkpoint(folder).config["rope_theta"] == 77.0


@pytest.mark.parametrize(
    ("kind", "changes", "window"),
    [
        ("mistral", {"sliding_window": 7}, 7),
        ("mistral", {"sliding_window": None}, 4096),
        ("qwen2", {"sliding_window": 7}, 0),
        ("qwen2", {"sliding_window": 7, "use_sliding_window": True, "max_window_layers": 0}, 7),
        ("qwen2", {"sliding_window": 7, "use_sliding_window": True, "max_window_layers": 2}, 0),
        ("llama", {"sliding_window": 7}, 0),
    ],
)
def test_sliding_window(tmp_path: Path, kind: str, changes: dict[str, Any], window: int) -> None:
    save_model(tmp_path, kind, torch.float32)
    change_config(tmp_path, **changes)
    assert load_checkpoint(tmp_path).config["sliding_window"] == window


def test_null_means_no_window(tmp_path: Path) -> None:
    save_model(tmp_path, "mistral", torch.float32, sliding_window=None)
    assert load_checkpoint(tmp_path).config["sliding_window"] == 0


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"model_type": "gemma2"}, ("unknown architecture", "llama, mistral", "'gemma2'")),
        ({"model_type": None}, ("'model_type'", "llama, mistral", "''")),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, ("llama3", "'yarn'")),
        ({"rope_parameters": {"rope_type": "linear"}}, ("'factor'", "found nothing")),
        ({"rope_parameters": [1]}, ("'rope_parameters'", "an object", "[1]")),
        ({"hidden_act": "gelu"}, ("'hidden_act'", "'silu'", "'gelu'")),
        ({"hidden_size": None}, ("'hidden_size'", "found nothing")),
        ({"hidden_size": "64"}, ("'hidden_size'", "whole number", "'64'")),
        ({"hidden_size": 10**30}, ("'hidden_size'", "whole number")),
        ({"num_attention_heads": 0}, ("'num_attention_heads'", "at least 1", "found 0")),
        ({"rms_norm_eps": -1}, ("'rms_norm_eps'", "positive", "-1")),
        ({"num_hidden_layers": 3}, ("model.layers.2.input_layernorm.weight", "found none")),
        ({"num_hidden_layers": 1}, ("model.layers.1.", "not part of", "1 layers")),
        ({"intermediate_size": 95}, ("gate_proj.weight", "(95, 64)", "(96, 64)")),
        ({"quantization_config": {"quant_method": "awq"}}, ("'awq'", "not supported")),
    ],
)
def test_wrong_config(folder: Path, changes: dict[str, Any], parts: tuple[str, ...]) -> None:
    change_config(folder, **changes)
    fails(folder, *parts)


def test_mixed_windows_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path, "qwen2", torch.float32)
    change_config(tmp_path, use_sliding_window=True, sliding_window=7, max_window_layers=1)
    fails(tmp_path, "'max_window_layers'", "at least 2", "found 1")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100000])
def test_damaged_config(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    fails(folder, "config.json")


def test_missing_files(tmp_path: Path) -> None:
    fails(tmp_path, "config.json", "no such file")
    save_model(tmp_path, "llama", torch.float32)
    shard = min(tmp_path.glob("*.safetensors"))
    shard.unlink()
    fails(tmp_path, "index.json", shard.name, "found none")
    for path in tmp_path.glob("*.safetensors*"):
        path.unlink()
    fails(tmp_path, "model.safetensors", "found none")


def test_shards_stay_in_the_folder(tmp_path: Path) -> None:
    save_model(tmp_path, "llama", torch.float32)
    index = {"weight_map": {"a": "../../etc/passwd"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    fails(tmp_path, "../../etc/passwd")


def test_unsupported_tensor_type(folder: Path) -> None:
    save_file({"model.norm.weight": np.zeros(64)}, folder / "model.safetensors")
    fails(folder, "'model.norm.weight'", "F32", "F64")


def test_integer_weights_are_refused(folder: Path) -> None:
    tensors = {"model.embed_tokens.weight": np.zeros((len(TOKENS), 64), np.int32)}
    save_file(tensors, folder / "model.safetensors")
    fails(folder, "'model.embed_tokens.weight'", "F32", "I32")


def test_pickled_backbone(folder: Path) -> None:
    safe = load_checkpoint(folder).tensors
    expected = {name: tensor.to_float32() for name, tensor in safe.items()}
    (folder / "model.safetensors").unlink()
    state = {name: torch.from_numpy(value).bfloat16() for name, value in expected.items()}
    torch.save(state, folder / "pytorch_model.bin")
    for name, tensor in load_checkpoint(folder).tensors.items():
        assert tensor.dtype == "BF16"
        np.testing.assert_array_equal(tensor.to_float32(), state[name].float().numpy())


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("pickle_ran_code"),))


def test_pickles_run_no_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"x": _Evil()}, folder / "pytorch_model.bin")
    fails(folder, "pytorch_model.bin")
    assert not Path("pickle_ran_code").exists()


def test_torch_is_only_needed_for_pickles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_torch(name: str, *args: Any) -> Any:
        if name == "torch":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    load_checkpoint(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    fails(folder, "pytorch_model.bin", "pip install 'medusa-native[torch]'")
