"""Conversions keep what heads compute, or are refused."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from heads_layouts import HEADS, HIDDEN, LAYOUTS, VOCAB, truth, write_layout

from medusa_native.errors import InvalidArgument
from medusa_native.loading import (
    Checkpoint,
    HeadsCheckpoint,
    HostTensor,
    convert_heads,
    load_heads,
    write_heads,
)
from medusa_native.loading.casting import cast


def load(source: Path) -> HeadsCheckpoint:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_heads(source)


@pytest.fixture
def heads(tmp_path: Path) -> HeadsCheckpoint:
    return load(write_layout(tmp_path / "source", "v0.1 safetensors", truth()))


def matrices(heads: HeadsCheckpoint) -> list[np.ndarray]:
    layers = [tensor for head in heads.residual for layer in head for tensor in layer]
    return [t.to_float32() for t in (*layers, *(heads.projection or [])) if t is not None]


def assert_equal(ours: HeadsCheckpoint, theirs: HeadsCheckpoint) -> None:
    assert (ours.version, ours.num_heads, ours.num_layers) == (
        theirs.version,
        theirs.num_heads,
        theirs.num_layers,
    )
    np.testing.assert_array_equal(ours.token_map, theirs.token_map)
    for a, b in zip(matrices(ours), matrices(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def a_backbone(lm_head: torch.Tensor, *, tied: bool = False) -> Checkpoint:
    name = "model.embed_tokens.weight" if tied else "lm_head.weight"
    tensors = {name: HostTensor.from_array(lm_head.numpy())}
    rows, hidden = lm_head.shape
    config = {"vocab_size": rows, "hidden_size": hidden}
    return Checkpoint(config, tensors, None, Path("base"))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float16", None])
@pytest.mark.parametrize("layout", ["medusa", "vllm"])
@pytest.mark.parametrize("source", LAYOUTS)
def test_from_every_layout(tmp_path: Path, source: str, layout: str, dtype: str | None) -> None:
    """Every type holds these numbers, so that every round trip is exact."""
    original = load(write_layout(tmp_path / "source", source, truth(2)))
    written = write_heads(tmp_path / "new", convert_heads(original, dtype=dtype), layout=layout)
    again = load_heads(written, HIDDEN, VOCAB)  # without a warning
    assert again.family == layout
    assert_equal(again, original)
    back = load_heads(write_heads(tmp_path / "back", again))
    assert_equal(back, original)
    if dtype is not None:
        assert {t.dtype for t in back.projection or []} == {"F16"}


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_types_round_as_torch_does(name: str) -> None:
    numbers = torch.randn(1000, generator=torch.Generator().manual_seed(3)) * 100
    dtype = {"F16": torch.float16, "BF16": torch.bfloat16}[name]
    ours = cast("x", HostTensor.from_array(numbers.numpy()), name)
    np.testing.assert_array_equal(ours.to_float32(), numbers.to(dtype).float().numpy())


def test_numbers_too_large_for_the_type(heads: HeadsCheckpoint) -> None:
    weight = heads.residual[1][0][0].to_float32()
    weight[0, 0] = 70000.0
    heads.residual[1][0] = (HostTensor.from_array(weight), None)
    with pytest.raises(InvalidArgument, match=r"'1.0.linear.weight'.*F16, found 70000"):
        convert_heads(heads, dtype="float16")
    convert_heads(heads, dtype="bfloat16")


@pytest.mark.parametrize("layout", ["medusa", "vllm"])
def test_trimming_keeps_the_rows(tmp_path: Path, heads: HeadsCheckpoint, layout: str) -> None:
    ids = [90, 2, 31, 7]
    trimmed = convert_heads(heads, token_ids=ids)
    again = load(write_heads(tmp_path / "new", trimmed, layout=layout))
    assert again.token_map is not None
    assert again.token_map.tolist() == sorted(ids)
    assert again.vocab_size == VOCAB
    for matrix, whole in zip(again.projection or [], truth().projection, strict=True):
        np.testing.assert_array_equal(matrix.to_float32(), whole[sorted(ids)].numpy())
    further = convert_heads(again, token_ids=[31, 2])
    np.testing.assert_array_equal(
        (further.projection or [])[1].to_float32(), truth().projection[1][[2, 31]].numpy()
    )


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "found none"),
        ([VOCAB], "found 100 to 100"),
        ([-1, 2], "found -1"),
        ([2**70], "whole numbers"),
        ([3, 4, 3], "1 repeats"),
        (["a"], "whole numbers"),
        ([1.5], "whole numbers"),
    ],
)
def test_token_lists_that_are_none(heads: HeadsCheckpoint, ids: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=f"token list: .*{message}"):
        convert_heads(heads, token_ids=ids)


def test_rows_that_were_trimmed_are_gone(heads: HeadsCheckpoint) -> None:
    trimmed = convert_heads(heads, token_ids=[1, 2, 3])
    with pytest.raises(InvalidArgument, match="own 3 expected, found 1 others, the first 9"):
        convert_heads(trimmed, token_ids=[2, 9])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("ids", [None, [4, 8, 99]])
def test_v2_to_v1_and_back(
    tmp_path: Path, heads: HeadsCheckpoint, ids: list[int] | None, tied: bool
) -> None:
    backbone = a_backbone(truth().projection[0], tied=tied)
    v2 = convert_heads(HeadsCheckpoint(heads.residual), token_ids=ids, backbone=backbone)
    assert v2.version == 2
    v1 = convert_heads(v2, version=1, backbone=backbone)
    assert v1.projection is not None
    expected = truth().projection[0][ids or slice(None)].numpy()
    for layout in ("medusa", "vllm"):
        again = load(write_heads(tmp_path / layout, v1, layout=layout))
        for matrix in again.projection or []:
            np.testing.assert_array_equal(matrix.to_float32(), expected)
        back = convert_heads(again, version=2, backbone=backbone)
        assert_equal(back, v2)
    config = json.loads((tmp_path / "vllm" / "config.json").read_text())
    assert config["original_lm_head"] is True


def test_v1_to_v2_would_lose_projections(heads: HeadsCheckpoint) -> None:
    backbone = a_backbone(truth().projection[0])
    with pytest.raises(InvalidArgument, match=r"head 1 has a projection.*100 of 100 rows"):
        convert_heads(heads, version=2, backbone=backbone)


def test_versions_need_the_model(heads: HeadsCheckpoint) -> None:
    with pytest.raises(InvalidArgument, match="V1 heads become V2 only with the model"):
        convert_heads(heads, version=2)
    with pytest.raises(InvalidArgument, match=r"hidden size of 64.*found 32"):
        convert_heads(heads, version=2, backbone=a_backbone(torch.zeros(VOCAB, 32)))


@pytest.mark.parametrize("options", [{"version": 3}, {"dtype": "int8"}])
def test_unknown_kinds(heads: HeadsCheckpoint, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"must be .* found"):
        convert_heads(heads, **options)


@pytest.mark.parametrize("biases", [(), (1,)])
def test_vllm_config_and_biases(
    tmp_path: Path, heads: HeadsCheckpoint, biases: tuple[int, ...]
) -> None:
    """vLLM has biases everywhere or nowhere; those that are missing are written as zeros."""
    for h in range(HEADS):
        weight, bias = heads.residual[h][0]
        heads.residual[h][0] = (weight, bias if h in biases else None)
    trimmed = convert_heads(heads, token_ids=range(10), dtype="bfloat16")
    folder = write_heads(tmp_path / "new", trimmed, layout="vllm")
    assert json.loads((folder / "config.json").read_text()) == {
        "model_type": "medusa",
        "architectures": ["MedusaModel"],
        "hidden_size": HIDDEN,
        "vocab_size": VOCAB,
        "truncated_vocab_size": 10,
        "num_heads": HEADS,
        "num_hidden_layers": 1,
        "medusa_fc_bias": bool(biases),
        "original_lm_head": False,
        "max_paths": 64,
        "topk": 10,
        "torch_dtype": "bfloat16",
    }
    written = [layer[1] for head in load(folder).residual for layer in head]
    for h, bias in enumerate(written):
        assert (bias is not None) == bool(biases)
        if bias is not None:
            expected = truth().bias[h][0].numpy() * (h in biases)
            np.testing.assert_array_equal(bias.to_float32(), expected)


def test_vllm_ignores_a_map_of_everything(tmp_path: Path, heads: HeadsCheckpoint) -> None:
    """So rows that a map permutes are put in order, and the map is left out."""
    order = np.random.default_rng(0).permutation(VOCAB).astype(np.int32)
    permuted = convert_heads(heads, token_ids=range(VOCAB))
    projection = [HostTensor.from_array(p.numpy()[order]) for p in truth().projection]
    permuted = HeadsCheckpoint(permuted.residual, projection, order, vocab_size=VOCAB)
    again = load(write_heads(tmp_path / "new", permuted, layout="vllm"))
    assert_equal(again, heads)


def test_vllm_needs_projections_and_a_vocabulary(tmp_path: Path, heads: HeadsCheckpoint) -> None:
    with pytest.raises(InvalidArgument, match="V2 heads have none"):
        write_heads(tmp_path / "new", HeadsCheckpoint(heads.residual), layout="vllm")
    unknown = HeadsCheckpoint(heads.residual, heads.projection, None)
    with pytest.raises(InvalidArgument, match="do not tell"):
        write_heads(tmp_path / "new", unknown, layout="vllm")
    assert not (tmp_path / "new").exists()


def test_grounded_heads_are_not_vllms(tmp_path: Path, heads: HeadsCheckpoint) -> None:
    wide = HostTensor.from_array(np.zeros((HIDDEN, 2 * HIDDEN), np.float32))
    grounded = HeadsCheckpoint([[(wide, None)]], heads.projection, vocab_size=VOCAB)
    with pytest.raises(InvalidArgument, match=r"\(64, 64\); found grounded heads.*\(64, 128\)"):
        write_heads(tmp_path / "new", grounded, layout="vllm")


def test_what_heads_say_goes_with_them(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "source", "TGI", truth())
    said = {"base_model_name_or_path": "x/y", "medusa_choices": [[0], [0, 0]], "own": 1}
    config = {"medusa_num_heads": 3, "medusa_num_layers": 1, "transformers_version": "4"}
    (folder / "config.json").write_text(json.dumps(said | config))
    for layout in ("medusa", "vllm", "medusa"):
        folder = write_heads(tmp_path / f"{folder.name}-{layout}", load(folder), layout=layout)
        written = json.loads((folder / "config.json").read_text())
        assert written | said == written
        assert "transformers_version" not in written
    assert written == said | {"medusa_num_heads": 3, "medusa_num_layers": 1}


def test_a_backbones_config_stays_behind(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "source", "v1.0 safetensors", truth())
    folder = write_heads(tmp_path / "new", load(folder))
    written = json.loads((folder / "config.json").read_text())
    assert written == {"medusa_num_heads": 3, "medusa_num_layers": 1}


def test_a_folder_is_written_whole_or_not_at_all(
    tmp_path: Path, heads: HeadsCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = write_heads(tmp_path / "new", heads)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InvalidArgument, match="No space left"):
        write_heads(target, convert_heads(heads, dtype="float16"), force=True)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "source"]


def test_only_heads_are_replaced(tmp_path: Path, heads: HeadsCheckpoint) -> None:
    target = tmp_path / "new"
    target.mkdir()
    write_heads(target, heads)  # an empty folder is as good as none
    with pytest.raises(InvalidArgument, match="a new folder expected"):
        write_heads(target, heads)
    half = convert_heads(heads, dtype="float16")
    assert load(write_heads(target, half, force=True)).residual[0][0][0].dtype == "F16"
    (target / "thesis.txt").write_text("years of work")
    with pytest.raises(InvalidArgument, match=r"found 'thesis.txt'"):
        write_heads(target, heads, force=True)
    assert (target / "thesis.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="found a file"):
        write_heads(tmp_path / "file", heads, force=True)


def test_a_folder_may_replace_its_own_source(tmp_path: Path) -> None:
    folder = tmp_path / "heads"
    write_heads(folder, load(write_layout(tmp_path / "source", "TGI", truth())))
    original = matrices(load(folder))
    write_heads(folder, convert_heads(load(folder), dtype="float32"), force=True)
    for a, b in zip(matrices(load(folder)), original, strict=True):
        np.testing.assert_array_equal(a, b)
