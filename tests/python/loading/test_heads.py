from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from medusa_native.errors import InvalidArgument, ModelFormatError
from medusa_native.loading import HeadsCheckpoint, HostTensor, load_heads, save_heads

HIDDEN, VOCAB, DRAFT = 64, 100, 40
Arrays = dict[str, np.ndarray]

# family: names of weight, bias and projection of head h, layer l
FAMILIES = {
    "medusa": ("{h}.{l}.linear.weight", "{h}.{l}.linear.bias", "{h}.{L}.weight"),
    "full model": (
        "medusa_head.{h}.{l}.linear.weight",
        "medusa_head.{h}.{l}.linear.bias",
        "medusa_head.{h}.{L}.weight",
    ),
    "peft": (
        "base_model.model.medusa_head.{h}.{l}.linear.modules_to_save.default.weight",
        "base_model.model.medusa_head.{h}.{l}.linear.modules_to_save.default.bias",
        "base_model.model.medusa_head.{h}.{L}.modules_to_save.default.weight",
    ),
    "trt-llm": (
        "medusa_heads.{h}.medusa_layers.{l}.linear.weight",
        "medusa_heads.{h}.medusa_layers.{l}.linear.bias",
        "medusa_heads.{h}.lm_head.weight",
    ),
    "vllm": ("blocks.{h}.layers.{l}.weight", "blocks.{h}.layers.{l}.bias", "lm_heads.{h}.weight"),
    "vllm nested": (
        "medusa_heads.blocks.{h}.layers.{l}.weight",
        "medusa_heads.blocks.{h}.layers.{l}.bias",
        "medusa_heads.lm_heads.{h}.weight",
    ),
}


def random_heads(
    family: str = "medusa",
    heads: int = 3,
    layers: int = 1,
    rows: int | None = VOCAB,
    bias: bool = True,
) -> Arrays:
    weight, bias_name, projection = FAMILIES[family]
    generator = np.random.default_rng(heads)
    arrays: Arrays = {}
    for h in range(heads):
        for k in range(layers):
            name = weight.format(h=h, l=k)
            arrays[name] = generator.standard_normal((HIDDEN, HIDDEN)).astype(np.float32)
            if bias:
                name = bias_name.format(h=h, l=k)
                arrays[name] = generator.standard_normal(HIDDEN).astype(np.float32)
        if rows is not None:
            name = projection.format(h=h, L=layers)
            arrays[name] = generator.standard_normal((rows, HIDDEN)).astype(np.float32)
    return arrays


def write(folder: Path, arrays: Arrays, **config: Any) -> Path:
    save_file(arrays, folder / "medusa_lm_head.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def fails(source: Path, *parts: str, hidden: int = HIDDEN, vocab: int = VOCAB) -> None:
    with pytest.raises(ModelFormatError) as caught:
        load_heads(source, hidden, vocab)
    for part in (str(source), *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("rows", [None, VOCAB])
@pytest.mark.parametrize("family", FAMILIES)
def test_families(tmp_path: Path, family: str, rows: int | None, layers: int) -> None:
    arrays = random_heads(family, layers=layers, rows=rows)
    folder = write(tmp_path, arrays)
    heads = load_heads(folder, HIDDEN, VOCAB)
    assert (heads.num_heads, heads.num_layers) == (3, layers)
    assert heads.version == (1 if rows else 2)
    assert heads.token_map is None
    weight, bias, projection = FAMILIES[family]
    for h in range(3):
        for k in range(layers):
            ours, ours_bias = heads.residual[h][k]
            assert ours_bias is not None
            np.testing.assert_array_equal(ours.to_float32(), arrays[weight.format(h=h, l=k)])
            np.testing.assert_array_equal(ours_bias.to_float32(), arrays[bias.format(h=h, l=k)])
        if heads.projection is not None:
            expected = arrays[projection.format(h=h, L=layers)]
            np.testing.assert_array_equal(heads.projection[h].to_float32(), expected)


def test_names_decide_where_the_config_disagrees(tmp_path: Path) -> None:
    folder = write(tmp_path, random_heads(), medusa_num_heads=2, medusa_num_layers=1)
    with pytest.warns(UserWarning, match="medusa_num_heads 2; the tensors hold 3"):
        assert load_heads(folder, HIDDEN, VOCAB).num_heads == 3


def test_missing_bias_is_none(tmp_path: Path) -> None:
    heads = load_heads(write(tmp_path, random_heads(bias=False)), HIDDEN, VOCAB)
    assert heads.residual[0][0][1] is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_types_and_files(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    state = {name: torch.from_numpy(a).to(dtype) for name, a in random_heads().items()}
    path = tmp_path / f"medusa_lm_head.{suffix}"
    (torch.save if suffix == "pt" else save_torch_file)(state, path)
    for source in (path, tmp_path):
        heads = load_heads(source, HIDDEN, VOCAB)
        assert heads.projection is not None
        expected = state["2.1.weight"].float().numpy()
        np.testing.assert_array_equal(heads.projection[2].to_float32(), expected)


def test_heads_inside_a_full_model(tmp_path: Path) -> None:
    arrays = random_heads("full model")
    arrays["model.layers.0.mlp.up_proj.weight"] = np.zeros((2, 2))
    arrays["lm_head.weight"] = np.zeros((VOCAB, HIDDEN), np.float32)
    save_file(arrays, tmp_path / "model.safetensors")
    heads = load_heads(tmp_path, HIDDEN, VOCAB)
    assert (heads.num_heads, heads.version) == (3, 1)


def test_peft_originals_are_ignored(tmp_path: Path) -> None:
    arrays = random_heads("peft")
    name = "base_model.model.medusa_head.0.0.linear.original_module.weight"
    arrays[name] = np.full((HIDDEN, HIDDEN), np.nan, np.float32)
    assert load_heads(write(tmp_path, arrays), HIDDEN, VOCAB).num_heads == 3


@pytest.mark.parametrize("name", ["lm_head.weight", "lm_heads.0.weight"])
def test_vllm_shared_projection(tmp_path: Path, name: str) -> None:
    arrays = random_heads("vllm", rows=None)
    arrays[name] = np.ones((VOCAB, HIDDEN), np.float32)
    folder = write(tmp_path, arrays, model_type="medusa", original_lm_head=True)
    heads = load_heads(folder, HIDDEN, VOCAB)
    assert heads.projection is not None
    assert len(heads.projection) == 3


@pytest.mark.parametrize("rows", [None, DRAFT])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_trimmed_vocabulary(tmp_path: Path, rows: int | None, dtype: type) -> None:
    arrays = random_heads(rows=rows)
    arrays["token_map"] = np.arange(DRAFT, dtype=dtype)[::-1] * 2
    heads = load_heads(write(tmp_path, arrays), HIDDEN, VOCAB)
    assert heads.token_map is not None
    assert heads.token_map.dtype == np.int32
    np.testing.assert_array_equal(heads.token_map, np.arange(DRAFT)[::-1] * 2)


def test_padded_vocabulary_is_cut(tmp_path: Path) -> None:
    arrays = random_heads(rows=128)
    heads = load_heads(write(tmp_path, arrays), HIDDEN, VOCAB)
    assert heads.projection is not None
    np.testing.assert_array_equal(heads.projection[1].to_float32(), arrays["1.1.weight"][:VOCAB])


def test_config_is_kept(tmp_path: Path) -> None:
    folder = write(tmp_path, random_heads(), medusa_choices=[[0], [0, 0]])
    assert load_heads(folder, HIDDEN, VOCAB).config == {"medusa_choices": [[0], [0, 0]]}


def test_no_heads_in_the_file(tmp_path: Path) -> None:
    save_file({"x": np.zeros(3)}, tmp_path / "medusa_lm_head.safetensors")
    fails(tmp_path / "medusa_lm_head.safetensors", "'0.0.linear.weight'", "found none")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no such file"):
        load_heads(tmp_path / "absent", HIDDEN, VOCAB)


def as_checkpoint(rows: int | None, mapped: bool) -> HeadsCheckpoint:
    arrays = {name: HostTensor.from_array(a) for name, a in random_heads(rows=rows).items()}
    residual = [[(arrays[f"{h}.0.linear.weight"], arrays[f"{h}.0.linear.bias"])] for h in range(3)]
    projection = [arrays[f"{h}.1.weight"] for h in range(3)] if rows else None
    token_map = np.arange(DRAFT, dtype=np.int32) if mapped else None
    return HeadsCheckpoint(list(map(list, residual)), projection, token_map)


@pytest.mark.parametrize(("rows", "mapped"), [(None, False), (None, True), (DRAFT, True)])
def test_saved_heads_load_again(tmp_path: Path, rows: int | None, mapped: bool) -> None:
    heads = as_checkpoint(rows, mapped)
    save_heads(tmp_path / "new" / "folder", heads, {"medusa_choices": [[0]]})
    loaded = load_heads(tmp_path / "new" / "folder", HIDDEN, VOCAB)
    assert loaded.config["medusa_num_heads"] == 3
    assert loaded.config["medusa_num_layers"] == 1
    assert loaded.config["medusa_choices"] == [[0]]
    assert loaded.config.get("version") == ("2" if rows is None else None)
    for ours, theirs in zip(heads.residual, loaded.residual, strict=True):
        np.testing.assert_array_equal(ours[0][0].data, theirs[0][0].data)
    assert loaded.version == heads.version
    np.testing.assert_array_equal(loaded.token_map, heads.token_map)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_heads(tmp_path, as_checkpoint(None, True), {})
    before = path.read_bytes()

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InvalidArgument, match="No space left"):
        save_heads(tmp_path, as_checkpoint(DRAFT, True), {})
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json",
        "medusa_lm_head.safetensors",
    ]


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="cannot be written"):
        save_heads(tmp_path / "file" / "folder", as_checkpoint(None, False), {})
