"""Merged models as files: what they compute is what the model with its adapter computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers
from test_adapter import TOKENS, logits, require_near, torch_logits, transformers_model
from test_families import FAMILIES, reference, save
from tiny_adapter import LINEAR, save_adapter
from tiny_model import save_model
from typer.testing import CliRunner

from medusa_native import Decoder, InvalidArgument, SamplingParams
from medusa_native.cli import app
from medusa_native.errors import ModelFormatError
from medusa_native.loading import load_checkpoint, merge_adapter

if TYPE_CHECKING:
    from collections.abc import Callable

TEXTS = ["Hello world", "  two\nlines, 1234 digits", "ünïcödé 漢字 🙂", "<s>a</s>"]


def suffix(kind: str) -> str:
    return "" if kind == "hf" else ".gguf"


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["hf", "gguf"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_folder_merged_is_the_folder_with_its_adapter(
    tmp_path: Path, kind: str, dtype: str, tied: bool
) -> None:
    """Bit for bit: both add in float32 and round once."""
    model = save_model(tmp_path / "model", tie_word_embeddings=tied)
    adapter = save_adapter(tmp_path / "adapter", model)
    merged = tmp_path / f"merged{suffix(kind)}"
    assert merge_adapter(model, adapter, merged, format=kind, dtype=dtype) == merged
    found, expected = logits(merged, dtype=dtype), logits(model, adapter, dtype)
    if kind == "hf":
        assert np.array_equal(found, expected)
    else:  # rotation of neighbours instead of halves: other orders of sums
        require_near(found, expected, 1e-5 if dtype == "float32" else 0.03)


@pytest.mark.parametrize("kind", ["hf", "gguf"])
@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3"])
def test_a_gguf_merged_is_the_gguf_with_its_adapter(
    gguf: Callable[..., Path], tmp_path: Path, kind: str, arch: str
) -> None:
    model = gguf(dtype="Q8_0", arch=arch)
    adapter = save_adapter(tmp_path / "adapter", model)
    merged = tmp_path / f"merged{suffix(kind)}"
    merge_adapter(model, adapter, merged, format=kind, dtype="float32")
    found, expected = logits(merged), logits(model, adapter)
    if kind == "gguf":
        assert np.array_equal(found, expected)
        require_near(logits(merged, dtype="bfloat16"), expected, 0.05)
    else:
        require_near(found, expected, 1e-5)
        require_near(torch_logits(transformers_model(merged)), expected, 1e-4)
    assert_same_tokenizer(model, merged)


def assert_same_tokenizer(model: Path, merged: Path) -> None:
    old, new = load_checkpoint(model).tokenizer, load_checkpoint(merged).tokenizer
    for text in TEXTS:
        assert new.encode(text) == old.encode(text)
    assert new.eos_token_ids == old.eos_token_ids
    assert new.bos_token_id == old.bos_token_id
    assert new.chat_template == old.chat_template


@pytest.mark.parametrize("kind", ["hf", "gguf"])
def test_medusa_on_a_merged_model(model: Path, heads: Path, tmp_path: Path, kind: str) -> None:
    adapter = save_adapter(tmp_path / "adapter", model)
    merged = merge_adapter(model, adapter, tmp_path / f"m{suffix(kind)}", format=kind)
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    plain = Decoder(merged).generate([TOKENS], params)[0].outputs[0].token_ids
    medusa = Decoder(merged, heads).generate([TOKENS], params)[0].outputs[0].token_ids
    assert list(plain) == list(medusa)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_in_transformers(tmp_path: Path, family: str) -> None:
    """Transformers on the merged folder, and ours on the merged GGUF, against ours on the model."""
    model = save(reference(family), tmp_path / "model")
    adapter = save_adapter(tmp_path / "adapter", model)
    expected = logits(model, adapter)
    folder = merge_adapter(model, adapter, tmp_path / "merged", dtype="float32")
    require_near(torch_logits(transformers_model(folder)), expected, 1e-4)
    file = merge_adapter(model, adapter, tmp_path / "m.gguf", format="gguf", dtype="float32")
    require_near(logits(file), expected, 1e-4)
    assert_same_tokenizer(model, folder)
    assert_same_tokenizer(model, file)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_transformers_reads_the_tokenizer_of_a_gguf(
    gguf: Callable[..., Path], tmp_path: Path
) -> None:
    model = gguf()
    folder = merge_adapter(model, save_adapter(tmp_path / "a", model), tmp_path / "merged")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = load_checkpoint(model).tokenizer
    for text in TEXTS:
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text, False)
    messages = [{"role": "user", "content": "hello"}]
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == ours.render_chat(messages)
    assert theirs.eos_token_id in ours.eos_token_ids


def test_the_type_is_the_one_asked_for(model: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", model)
    for dtype, stored in (("bfloat16", "BF16"), ("float16", "F16"), ("float32", "F32")):
        folder = merge_adapter(model, adapter, tmp_path / dtype, dtype=dtype)
        tensors = load_checkpoint(folder).tensors.values()
        assert {t.dtype for t in tensors if len(t.shape) == 2} == {stored}
        assert {t.dtype for t in tensors if len(t.shape) == 1} == {"F32"}
        assert transformers.AutoConfig.from_pretrained(folder).dtype == getattr(torch, dtype)
    path = merge_adapter(model, adapter, tmp_path / "m.gguf", format="gguf", dtype="q8_0")
    formats = {len(t.shape): t.dtype for t in load_checkpoint(path).tensors.values()}
    assert formats == {1: "F32", 2: "Q8_0"}
    require_near(logits(path), logits(model, adapter), 0.1)


def test_shards(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medusa_native.loading import hf_writer

    adapter = save_adapter(tmp_path / "adapter", model)
    whole = merge_adapter(model, adapter, tmp_path / "whole")
    monkeypatch.setattr(hf_writer, "_SHARD_BYTES", 200_000)
    folder = merge_adapter(model, adapter, tmp_path / "parts")
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert np.array_equal(logits(folder), logits(whole))
    require_near(
        torch_logits(transformers_model(folder)), torch_logits(transformers_model(whole)), 0
    )


def test_the_command(model: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", model, ("q_proj",))
    path = tmp_path / "merged.gguf"
    command = ["merge", "-m", str(model), "--adapter", str(adapter), "-o", str(path)]
    result = CliRunner().invoke(app, [*command, "--format", "gguf", "--json"])
    assert json.loads(result.stdout) == {
        "path": str(path),
        "format": "gguf",
        "dtype": "bfloat16",
        "bytes": path.stat().st_size,
    }
    again = CliRunner().invoke(app, [*command, "--format", "gguf"])
    assert (again.exit_code, again.stdout) == (2, "")
    assert "a new file expected, found one that exists" in again.stderr


def test_what_is_refused(model: Path, gguf: Callable[..., Path], tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", model, LINEAR)
    options: list[tuple[dict[str, Any], str]] = [
        ({"format": "onnx"}, "format must be one of hf, gguf, found 'onnx'"),
        ({"dtype": "q8_0"}, "dtype of format 'hf' must be one of"),
        ({"dtype": "q4_0", "format": "gguf"}, "must be one of float32, .* q8_0, found 'q4_0'"),
    ]
    for wrong, message in options:
        with pytest.raises(InvalidArgument, match=message):
            merge_adapter(model, adapter, tmp_path / "out", **wrong)
    with pytest.raises(InvalidArgument, match="a new folder expected, found one that exists"):
        merge_adapter(model, adapter, adapter)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match="cannot be written"):
        merge_adapter(model, adapter, tmp_path / "file" / "out")
    with pytest.raises(ModelFormatError, match=r"lora_A\.weight' must have shape"):
        merge_adapter(gguf(), adapter, tmp_path / "out")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"adapter", "file", "tiny.gguf"}


def test_a_number_that_float16_cannot_hold(tmp_path: Path) -> None:
    from tiny_model import CONFIG, random_tensors

    tensors = random_tensors(CONFIG, 0)
    tensors["model.embed_tokens.weight"][3, 3] = 1e6
    model = save_model(tmp_path / "model", tensors=tensors)
    adapter = save_adapter(tmp_path / "adapter", model)
    with pytest.raises(
        InvalidArgument, match=r"tensor 'model\.embed_tokens\.weight' must hold numbers"
    ):
        merge_adapter(model, adapter, tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_tokenizers_that_gguf_has_no_name_for(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    adapter = save_adapter(tmp_path / "adapter", folder)
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["pre_tokenizer"]["add_prefix_space"] = True
    path.write_text(json.dumps(values))
    with pytest.raises(ModelFormatError, match="'pre_tokenizer' must be that of default, gpt-2"):
        merge_adapter(folder, adapter, tmp_path / "out.gguf", format="gguf")
    assert not (tmp_path / "out.gguf").exists()
    merge_adapter(folder, adapter, tmp_path / "out")


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_rotation_of_llama_3_is_recognised(tmp_path: Path, factor: float) -> None:
    """A folder's rule becomes factors in a GGUF file, and the rule again in a folder."""
    rule = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    model = save_model(tmp_path / "model", rope_theta=500000.0, rope_scaling=rule)
    adapter = save_adapter(tmp_path / "adapter", model)
    file = merge_adapter(model, adapter, tmp_path / "m.gguf", format="gguf", dtype="float32")
    folder = merge_adapter(file, save_adapter(tmp_path / "b", file), tmp_path / "again")
    assert json.loads((folder / "config.json").read_text())["rope_scaling"] == rule
    require_near(logits(file), logits(model, adapter), 1e-5)


def test_rotation_that_config_cannot_describe(gguf: Callable[..., Path], tmp_path: Path) -> None:
    model = gguf(extra={"rope_freqs.weight": (8,)})
    adapter = save_adapter(tmp_path / "adapter", model)
    with pytest.raises(ModelFormatError, match=r"found rope_freqs\.weight"):
        merge_adapter(model, adapter, tmp_path / "out")
    file = merge_adapter(model, adapter, tmp_path / "m.gguf", format="gguf", dtype="float32")
    assert np.array_equal(logits(file), logits(model, adapter))


def test_vectors_that_lose_nothing_take_the_type(tmp_path: Path) -> None:
    from tiny_model import CONFIG, random_tensors

    tensors = random_tensors(CONFIG, 0)
    for name, tensor in tensors.items():
        if tensor.ndim == 1:
            tensors[name] = torch.from_numpy(tensor).bfloat16().float().numpy()
    model = save_model(tmp_path / "model", tensors=tensors)
    merged = merge_adapter(model, save_adapter(tmp_path / "a", model), tmp_path / "merged")
    assert {t.dtype for t in load_checkpoint(merged).tensors.values()} == {"BF16"}
