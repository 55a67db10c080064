"""Every layout of heads loads to the same matrices, bit for bit."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from heads_layouts import (
    FLOAT8,
    HEADS,
    HIDDEN,
    LAYOUTS,
    VOCAB,
    Truth,
    cast,
    medusa_names,
    truth,
    vllm_config,
    vllm_names,
    write_config,
    write_layout,
)
from safetensors.torch import save_file

from medusa_native.loading import HeadsCheckpoint, HostTensor, load_heads
from medusa_native.loading.float8 import NUMBERS, widen


def quietly(source: Path, hidden: int | None = HIDDEN, vocab: int | None = VOCAB) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_heads(source, hidden, vocab)


def assert_same(heads: HeadsCheckpoint, expected: Truth) -> None:
    assert heads.num_heads == len(expected.weight)
    assert heads.num_layers == len(expected.weight[0])
    assert heads.projection is not None
    for h, layers in enumerate(heads.residual):
        for k, (weight, bias) in enumerate(layers):
            assert bias is not None
            np.testing.assert_array_equal(weight.to_float32(), expected.weight[h][k].numpy())
            np.testing.assert_array_equal(bias.to_float32(), expected.bias[h][k].numpy())
        projection = heads.projection[h].to_float32()
        np.testing.assert_array_equal(projection, expected.projection[h].numpy())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("layers", [1, 2])
def test_every_layout_holds_the_same_heads(tmp_path: Path, layout: str, layers: int) -> None:
    expected = truth(layers)
    heads = quietly(write_layout(tmp_path, layout, expected))
    assert_same(heads, expected)
    _, family, note = LAYOUTS[layout]
    assert heads.family == family
    assert note in " ".join(heads.notes)
    assert heads.token_map is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_tell_the_sizes(tmp_path: Path, layout: str) -> None:
    heads = quietly(write_layout(tmp_path, layout, truth()), None, None)
    assert heads.hidden_size == HIDDEN
    assert heads.vocab_size == VOCAB
    assert_same(heads, truth())


@pytest.mark.parametrize(
    ("layout", "message"),
    [("v0.1 pt", "medusa_num_heads 2; the tensors hold 3"), ("PEFT", "changes the backbone too")],
)
def test_what_matters_is_a_warning(tmp_path: Path, layout: str, message: str) -> None:
    write_layout(tmp_path, layout, truth())
    with pytest.warns(UserWarning, match=message):
        load_heads(tmp_path, HIDDEN, VOCAB)


def test_float8_numbers_are_torchs() -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(FLOAT8)
    np.testing.assert_array_equal(NUMBERS, codes.float().numpy())


@pytest.mark.parametrize("rows", [1, 5])
def test_float8_is_widened_as_torch_does(rows: int) -> None:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 127, (5, 7), generator=generator, dtype=torch.uint8)
    scale = torch.rand(rows, 1, generator=generator)
    expected = codes.view(FLOAT8).float() * scale
    stored = HostTensor(codes.reshape(-1).numpy(), "F8_E4M3", (5, 7))
    wide = widen(stored, scale.reshape(-1).numpy())
    np.testing.assert_array_equal(wide.to_float32(), expected.numpy())


def vllm_heads(folder: Path, state: dict[str, torch.Tensor], **config: Any) -> Any:
    save_file(state, folder / "model.safetensors")
    write_config(folder, **vllm_config(truth()) | config)
    return quietly(folder)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("stored", ["all rows", "draft rows"])
@pytest.mark.parametrize("sizes", [VOCAB, None])
def test_vllm_token_maps(
    tmp_path: Path, stored: str, dtype: torch.dtype, sizes: int | None
) -> None:
    """vLLM takes projections with all rows, or with those of the map alone."""
    ids = torch.tensor([7, 3, 99, 0, 41])
    rows = ids if stored == "draft rows" else torch.arange(VOCAB)
    state = vllm_names(truth()) | {"token_map": ids.to(dtype)}
    for h in range(HEADS):
        state[f"lm_heads.{h}.weight"] = truth().projection[h][rows]
    vllm_heads(tmp_path, state, truncated_vocab_size=5)
    heads = quietly(tmp_path, sizes and HIDDEN, sizes)
    assert heads.token_map.tolist() == ids.tolist()
    for h in range(HEADS):
        expected = truth().projection[h][ids].numpy()
        np.testing.assert_array_equal(heads.projection[h].to_float32(), expected)
    assert not any("truncated" in note for note in heads.notes)


@pytest.mark.parametrize("name", ["lm_head.weight", "lm_heads.0.weight"])
def test_vllm_shares_a_projection(tmp_path: Path, name: str) -> None:
    state = {n: t for n, t in vllm_names(truth()).items() if not n.startswith("lm_heads")}
    state[name] = truth().projection[1]
    heads = vllm_heads(tmp_path, state, original_lm_head=True)
    assert len(heads.projection) == HEADS
    for projection in heads.projection:
        expected = truth().projection[1].numpy()
        np.testing.assert_array_equal(projection.to_float32(), expected)


@pytest.mark.parametrize(
    ("config", "note"),
    [
        ({"num_heads": 5}, "num_heads 5; the tensors hold 3"),
        ({"num_hidden_layers": 2}, "num_hidden_layers 2; the tensors hold 1"),
        ({"medusa_num_heads": 4}, "medusa_num_heads 4; the tensors hold 3"),
        ({"vocab_size": 50}, "vocab_size 50; the tensors hold 100"),
        ({"truncated_vocab_size": 64}, "truncated_vocab_size 64; the tensors hold 100"),
        ({"medusa_fc_bias": False}, "medusa_fc_bias False; the tensors hold True"),
        ({"logit_scale": 0.5}, "logit_scale has no effect"),
    ],
)
def test_vllm_configs_that_disagree(tmp_path: Path, config: dict[str, Any], note: str) -> None:
    heads = vllm_heads(tmp_path, vllm_names(truth()), **config)
    assert_same(heads, truth())
    assert any(note in text for text in heads.notes)


def test_an_undeclared_shared_projection_is_noted(tmp_path: Path) -> None:
    state = vllm_names(truth()) | {"lm_head.weight": torch.zeros(VOCAB, HIDDEN)}
    heads = vllm_heads(tmp_path, state)
    assert_same(heads, truth())
    assert any("lm_head.weight" in text and "unused" in text for text in heads.notes)
    del state["lm_heads.0.weight"], state["lm_heads.1.weight"], state["lm_heads.2.weight"]
    heads = vllm_heads(tmp_path, state)
    assert not heads.projection[2].to_float32().any()
    assert any("lm_head.weight" in text and "serves all" in text for text in heads.notes)


def test_missing_biases_are_noted(tmp_path: Path) -> None:
    """The published vLLM conversion of Vicuna's heads dropped them."""
    state = {n: t for n, t in vllm_names(truth()).items() if not n.endswith("bias")}
    heads = vllm_heads(tmp_path, state, medusa_fc_bias=False)
    assert all(layer[1] is None for head in heads.residual for layer in head)
    assert "3 of 3 biases are missing and count as zero" in heads.notes


def test_safetensors_go_before_pickles(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "medusa_lm_head.pt")
    save_file(cast(medusa_names(truth()), torch.bfloat16), tmp_path / "medusa_lm_head.safetensors")
    heads = quietly(tmp_path)
    assert_same(heads, truth())
    assert any("not read" in text and "medusa_lm_head.pt" in text for text in heads.notes)


def test_a_wrong_version_is_noted(tmp_path: Path) -> None:
    write_layout(tmp_path, "v0.1 safetensors", truth())
    write_config(tmp_path, version="2")
    assert any("version '2'; the tensors hold 1" in text for text in quietly(tmp_path).notes)
