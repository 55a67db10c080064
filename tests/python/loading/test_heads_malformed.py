"""Malformed heads are refused with a message that names file, tensor, expected and found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from heads_damage import FILES, NAMES, Change, fails, put, renamed, spoilt, without, write
from heads_layouts import FLOAT8, HIDDEN, VOCAB

from medusa_native.loading import load_heads


@pytest.mark.parametrize("family", FILES)
def test_a_missing_weight(tmp_path: Path, family: str) -> None:
    weight, bias, _ = NAMES[family]
    path = write(tmp_path, family, without(weight))
    fails(path, str(path), f"'{weight}'", "3 heads of 1 layers", "found none")
    path = write(tmp_path, family, without(bias))
    assert load_heads(path, HIDDEN, VOCAB).residual[1][0][1] is None


@pytest.mark.parametrize("family", ["medusa", "vllm", "trtllm"])
def test_a_missing_projection(tmp_path: Path, family: str) -> None:
    name = NAMES[family][2]
    path = write(tmp_path, family, without(name))
    fails(path, str(path), f"'{name}'", "other heads have a projection", "found none")


@pytest.mark.parametrize("family", FILES)
@pytest.mark.parametrize(
    ("which", "shape", "expected"),
    [
        (0, (HIDDEN, HIDDEN - 1), (HIDDEN, HIDDEN)),
        (0, (HIDDEN,), "2 axes"),
        (1, (HIDDEN + 1,), (HIDDEN,)),
        (2, (VOCAB - 1, HIDDEN), (VOCAB, HIDDEN)),
        (2, (VOCAB, HIDDEN, 1), "2 axes"),
    ],
)
def test_a_wrong_shape(
    tmp_path: Path, family: str, which: int, shape: tuple[int, ...], expected: Any
) -> None:
    name = NAMES[family][which]
    dtype = FLOAT8 if family == "modelopt" and which != 1 else torch.float32
    path = write(tmp_path, family, put(name, torch.zeros(shape).to(dtype)))
    words = expected if dtype == FLOAT8 else {0: "(64, 64)", 1: "(64,)", 2: "(100, 64)"}[which]
    fails(path, str(path), f"'{name}'", str(words), str(shape))


@pytest.mark.parametrize("family", FILES)
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.int32, torch.float64, torch.uint8, torch.float8_e5m2])
def test_a_wrong_type(tmp_path: Path, family: str, which: int, dtype: torch.dtype) -> None:
    name = NAMES[family][which]
    shape = ((HIDDEN, HIDDEN), (HIDDEN,), (VOCAB, HIDDEN))[which]
    path = write(tmp_path, family, put(name, torch.zeros(shape).to(dtype)))
    stored = {"float8_e5m2": "F8_E5M2", "float64": "F64", "int32": "I32", "uint8": "U8"}
    found = stored[str(dtype).removeprefix("torch.")]
    fails(path, str(path), f"tensor '{name}", f"found {found}")


@pytest.mark.parametrize("family", FILES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_numbers_that_are_not_finite(tmp_path: Path, family: str, value: float, which: int) -> None:
    name = NAMES[family][which]
    value = torch.nan if family == "modelopt" else value  # E4M3 has no infinity
    path = write(tmp_path, family, spoilt(name, value))
    fails(path, str(path), f"'{name}'", "finite", "NaN or infinity")


@pytest.mark.parametrize(
    ("family", "change", "parts"),
    [
        # holes in the numbering
        ("medusa", renamed("2.0.linear.weight", "3.0.linear.weight"), ("'2.0.linear.weight'", "4")),
        ("medusa", renamed("1.0.linear.bias", "1.7.linear.bias"), ("'0.1.linear.weight'", "8 la")),
        ("vllm", renamed("lm_heads.2.weight", "lm_heads.4.weight"), ("'blocks.3.layers.0", "5 he")),
        ("vllm", renamed("lm_heads.2.weight", "x"), ("'lm_heads.2.weight'", "expected", "none")),
        # a projection after the wrong layer
        ("medusa", renamed("1.1.weight", "1.2.weight"), ("'1.2.weight'", "1 layers", "after 2")),
        # two names of one place
        (
            "medusa",
            put("medusa_head.0.0.linear.weight", torch.zeros(HIDDEN, HIDDEN)),
            ("'medusa_head.0.0.linear.weight'", "'0.0.linear.weight'", "claim the same place"),
        ),
        (
            "vllm",
            put("medusa_heads.blocks.0.layers.0.bias", torch.zeros(HIDDEN)),
            ("'medusa_heads.blocks.0.layers.0.bias'", "claim the same place"),
        ),
        # families mixed
        (
            "medusa",
            renamed("1.0.linear.bias", "blocks.1.layers.0.bias"),
            ("'blocks.1.layers.0.bias'", "one family", "vllm beside medusa"),
        ),
        (
            "trtllm",
            renamed("medusa_heads.1.lm_head.weight", "medusa_heads.1.1.weight"),
            ("'medusa_heads.1.1.weight'", "modelopt beside tensorrt-llm"),
        ),
        # parts of heads that no reader knows
        (
            "medusa",
            put("0.1.bias", torch.zeros(VOCAB)),
            ("'0.1.bias'", "without bias", "not known"),
        ),
        (
            "modelopt",
            put("medusa_heads.0.0.linear.weight_scale_2", torch.ones(1)),
            ("'medusa_heads.0.0.linear.weight_scale_2'", "not known"),
        ),
        (
            "medusa",
            put("medusa_head.0.0.linear.lora_A.weight", torch.ones(4, HIDDEN)),
            ("'medusa_head.0.0.linear.lora_A.weight'", "not known"),
        ),
        # FP8 and scales
        (
            "modelopt",
            without("medusa_heads.1.1.weight_scale"),
            ("'medusa_heads.1.1.weight'", "weight_scale beside it expected", "found none"),
        ),
        (
            "modelopt",
            put("medusa_heads.1.1.weight_scale", torch.tensor(0.0)),
            ("'medusa_heads.1.1.weight_scale'", "positive", "found 0.0"),
        ),
        (
            "modelopt",
            put("medusa_heads.1.1.weight_scale", torch.full((VOCAB,), -2.0)),
            ("'medusa_heads.1.1.weight_scale'", "positive", "found -2.0"),
        ),
        (
            "modelopt",
            put("medusa_heads.1.1.weight_scale", torch.tensor(torch.nan)),
            ("'medusa_heads.1.1.weight_scale'", "positive finite", "found nan"),
        ),
        (
            "modelopt",
            put("medusa_heads.1.1.weight_scale", torch.tensor(3e38)),
            ("'medusa_heads.1.1.weight'", "finite", "infinity"),
        ),
        (
            "modelopt",
            put("medusa_heads.1.1.weight_scale", torch.ones(7)),
            ("'medusa_heads.1.1.weight_scale'", "each of (100,) rows", "found F32 (7,)"),
        ),
        (
            "modelopt",
            put("medusa_heads.1.1.weight_scale", torch.ones(1, dtype=torch.int64)),
            ("'medusa_heads.1.1.weight_scale'", "found I64 (1,)"),
        ),
        (
            "medusa",
            put("1.0.linear.weight_scale", torch.ones(1)),
            ("'1.0.linear.weight_scale'", "F8_E4M3 weights to scale expected", "found F32"),
        ),
        (
            "modelopt",
            put("medusa_heads.1.0.linear.bias", torch.zeros(HIDDEN).to(FLOAT8)),
            ("'medusa_heads.1.0.linear.bias'", "must hold weights", "found F8_E4M3"),
        ),
        # token maps
        ("medusa", put("token_map", torch.tensor([0, VOCAB])), ("'token_map'", "[0, 100)", "100")),
        ("medusa", put("token_map", torch.tensor([-1, 3])), ("'token_map'", "[0, 100)", "-1 to 3")),
        ("medusa", put("token_map", torch.tensor([3, 5, 3])), ("'token_map'", "once", "of 3")),
        ("medusa", put("token_map", torch.zeros(0).int()), ("'token_map'", "list", "(0,)")),
        ("medusa", put("token_map", torch.ones(2, 2).int()), ("'token_map'", "list", "(2, 2)")),
        ("medusa", put("token_map", torch.ones(2)), ("'token_map'", "I32 or I64", "F32")),
        ("vllm", put("medusa_heads.token_map", torch.tensor([200])), ("'medusa_heads.token_map'",)),
        (
            "vllm",
            lambda state: state.update(
                {"token_map": torch.arange(9), "lm_heads.2.weight": torch.zeros(10, HIDDEN)}
            ),
            ("'lm_heads.2.weight'", "(9, 64)", "(10, 64)"),
        ),
    ],
)
def test_malformed(tmp_path: Path, family: str, change: Change, parts: tuple[str, ...]) -> None:
    path = write(tmp_path, family, change)
    fails(path, str(path), *parts)


def test_heads_of_another_model(tmp_path: Path) -> None:
    path = write(tmp_path, "medusa")
    fails(path, str(path), "'0.0.linear.weight'", "(128, 128)", "(64, 64)", hidden=128)
    fails(path, str(path), "'0.1.weight'", "(90000, 64)", "(100, 64)", vocab=90000)
