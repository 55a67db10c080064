"""On a GPU: heads learn, whatever interrupts the training, and never change an answer."""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / "python"), str(TESTS / "python/loading")]
from tiny_model import permutation_tensors, save_model

from medusa_native import Decoder, InvalidArgument, SamplingParams
from medusa_native.training import train
from medusa_native.training.run import Run

SMALL: dict[str, Any] = {
    "num_heads": 2,
    "draft_vocab": 32,
    "epochs": 2,
    "batch_size": 48,
    "validation_fraction": 0.2,
    "max_tree_nodes": 8,
    "learning_rate": 3e-3,
    "device": "cuda",
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model whose next token is a permutation of the last, and some of its answers."""
    tensors, permutation = permutation_tensors()
    lines = []
    for start in np.random.default_rng(0).choice(256, 6, replace=False).tolist():
        tokens = [int(permutation[start])]
        while len(tokens) < 16:
            tokens.append(int(permutation[tokens[-1]]))
        lines.append({"id": start, "prompt_token_ids": [start], "token_ids": tokens})
    folder = tmp_path_factory.mktemp("chain")
    data = folder / "answers.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return save_model(folder / "model", tensors=tensors), data


def heads_digest(folder: Path) -> str:
    return sha256((folder / "medusa_lm_head.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("version", [1, 2])
def test_heads_learn_and_never_change_an_answer(
    chain: tuple[Path, Path], tmp_path: Path, version: int
) -> None:
    model, data = chain
    options = SMALL | {"version": version, "grounded": version == 2, "dtype": "float32"}
    report = train(model, data, tmp_path / "cuda", **options)
    host = train(model, data, tmp_path / "cpu", **options | {"device": "cpu"})
    losses, expected = ([e["loss"][0] for e in r.history] for r in (report, host))
    assert losses[-1] < losses[0]
    assert losses == pytest.approx(expected, rel=1e-3)
    params = SamplingParams(max_tokens=12)
    plain = Decoder(model, dtype="float32", device="cuda").generate(["a"], params)
    fast = Decoder(model, tmp_path / "cuda", dtype="float32", device="cuda")
    assert "cuda" in fast.info()["device"]
    assert fast.generate(["a"], params)[0].outputs[0].token_ids == plain[0].outputs[0].token_ids


def test_an_interrupted_run_ends_with_the_same_bits(
    chain: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = chain
    train(model, data, tmp_path / "whole", **SMALL)
    step = Run._step

    def interrupted(run: Run, *arguments: Any) -> None:
        step(run, *arguments)
        if run.state.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(model, data, tmp_path / "parts", **SMALL)
    monkeypatch.undo()
    with pytest.raises(InvalidArgument):  # its bits are this device's
        train(model, data, tmp_path / "parts", **SMALL | {"device": "cpu"})
    train(model, data, tmp_path / "parts", **SMALL)
    assert heads_digest(tmp_path / "parts") == heads_digest(tmp_path / "whole")
