"""Every layout guesses the same tokens in the native core, and they are the right ones."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heads_layouts import HEADS, HIDDEN, LAYOUTS, VOCAB, Truth, truth, write_layout
from tiny_model import CONFIG, random_tensors

from medusa_native import _core
from medusa_native.engine import pack_heads
from medusa_native.loading import HeadsCheckpoint, convert_heads, load_heads, write_heads

ROWS, TOP_K = 16, 10
KEYS = ("architecture", "bos_token_id", "eos_token_id", "hidden_act", "model_type")


@pytest.fixture(scope="module")
def model() -> Any:
    config = CONFIG | {"hidden_size": HIDDEN, "vocab_size": VOCAB, "head_dim": 16}
    tensors = {
        name: (array.reshape(-1).view(np.uint8), "F32", array.shape)
        for name, array in random_tensors(config, 0).items()
    }
    plain = {key: value for key, value in config.items() if key not in KEYS}
    native = _core.ModelConfig(architecture="llama", **plain)
    return _core.Model.load(native, tensors, compute_type="float32", num_threads=1)


def states() -> np.ndarray:
    return np.random.default_rng(4).standard_normal((ROWS, HIDDEN)).astype(np.float32)


def guesses(model: Any, heads: HeadsCheckpoint) -> np.ndarray:
    """Ids (rows, heads, TOP_K)."""
    hidden = states()
    stored = (hidden.reshape(-1).view(np.uint8), "F32", hidden.shape)
    return np.asarray(pack_heads(model, heads).guesses(stored, [0] * ROWS, TOP_K))


def expected(heads: Truth) -> np.ndarray:
    """What the paper's formula gives in float64."""
    result = np.empty((ROWS, HEADS, TOP_K), dtype=np.int32)
    for h in range(HEADS):
        x = states().astype(np.float64)
        for weight, bias in zip(heads.weight[h], heads.bias[h], strict=True):
            z = x @ weight.numpy().T.astype(np.float64) + bias.numpy()
            x = x + z / (1 + np.exp(-z))
        logits = x @ heads.projection[h].numpy().T.astype(np.float64)
        result[:, h] = np.argsort(-logits, axis=1, kind="stable")[:, :TOP_K]
    return result


def load(folder: Path) -> HeadsCheckpoint:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_heads(folder, HIDDEN, VOCAB)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_guesses_the_same(model: Any, tmp_path: Path, layout: str) -> None:
    heads = load(write_layout(tmp_path / "source", layout, truth(2)))
    found = guesses(model, heads)
    np.testing.assert_array_equal(found, expected(truth(2)))
    for target in ("medusa", "vllm"):
        again = load(write_heads(tmp_path / target, heads, layout=target))
        np.testing.assert_array_equal(guesses(model, again), found)


@pytest.mark.parametrize("layout", ["medusa", "vllm"])
def test_trimmed_heads_guess_the_best_they_know(model: Any, tmp_path: Path, layout: str) -> None:
    """The guesses are the whole heads' ranking without the tokens that were left out."""
    whole = load(write_layout(tmp_path / "source", "TGI", truth()))
    kept = np.arange(1, VOCAB, 3)
    trimmed = convert_heads(whole, token_ids=kept)
    again = load(write_heads(tmp_path / "new", trimmed, layout=layout))
    found = guesses(model, again)
    assert np.isin(found, kept).all()
    everything = expected(truth())
    for row, head in np.ndindex(ROWS, HEADS):
        known = [token for token in everything[row, head] if token in kept]
        assert found[row, head, : len(known)].tolist() == known
