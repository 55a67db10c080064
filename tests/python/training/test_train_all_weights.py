"""From a recipe that trains all weights to a model that decodes, whatever interrupts it."""

from __future__ import annotations

import random
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killing import kill_when
from killing import start as start_process
from test_all_weights import ALL
from test_joint_gradients import make_trainer, save_family
from test_joint_train import RECIPE, data, model  # noqa: F401
from tiny_adapter import save_adapter
from transformers import AutoModelForCausalLM

from medusa_native import Decoder, SamplingParams
from medusa_native.engine import load_model
from medusa_native.loading import load_checkpoint, merge_adapter
from medusa_native.training import train_recipe
from medusa_native.training.joint_export import save_model


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "all.toml"
    start, end = RECIPE.index("[lora]"), RECIPE.index("[[stages]]")
    path.write_text(RECIPE[:start] + RECIPE[end:].replace('"lora"', '"backbone"'))
    return path


def digests(folder: Path) -> dict[str, str]:
    paths = [*folder.glob("*.safetensors"), *folder.glob("model/*")]
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in paths}


def test_what_a_kill_interrupts_ends_with_the_same_bits(
    model: Path, data: Path, recipe: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options: dict[str, Any] = {"validation_fraction": 0.1, "num_threads": 2}
    report = train_recipe(model, data, whole, recipe, **options)
    log = killed / "train_log.jsonl"
    for lines in sorted(random.Random(5).sample(range(2, report.num_steps), 2)):
        process = start_process(
            "train_recipe", str(model), str(data), str(killed), str(recipe),
            checkpoint_seconds=0.0, **options,
        )  # fmt: skip
        kill_when(process, lambda n=lines: log.exists() and log.read_text().count("\n") >= n)
    train_recipe(model, data, killed, recipe, **options | {"num_threads": 1})
    assert digests(killed) == digests(whole)
    assert report.history[0]["validation"]["divergence"] == 0
    assert report.validation.divergence > 0


def test_it_decodes_losslessly(model: Path, data: Path, recipe: Path, tmp_path: Path) -> None:  # noqa: F811
    report = train_recipe(model, data, tmp_path, recipe)
    assert report.adapter is None
    assert report.model == tmp_path / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that heads are of another model
        decoder = Decoder(report.model, heads=tmp_path)
    prompts = [[1, 2, 3], [200, 7]]
    answers = [
        [
            output.outputs[0].token_ids
            for output in one.generate(
                prompts, SamplingParams(max_tokens=40, ignore_eos=True, speculative=speculative)
            )
        ]
        for one, speculative in ((decoder, True), (decoder, False), (Decoder(model), False))
    ]
    assert answers[0] == answers[1]
    assert answers[1] != answers[2]  # else nothing was trained


@pytest.mark.parametrize("family", ["tied", "qwen2", "qwen3", "gguf"])
def test_what_is_written_is_what_was_trained(tmp_path: Path, family: str) -> None:
    """In Transformers and here: the states that the trainer's own forward pass gives."""
    path = save_family(tmp_path / "start", "llama" if family == "gguf" else family)
    if family == "gguf":  # rows of queries and keys interleaved, weights in blocks
        adapter = save_adapter(tmp_path / "adapter", path)
        path = merge_adapter(path, adapter, tmp_path / "m.gguf", format="gguf", dtype="q8_0")
    trainer = make_trainer(path, **ALL)
    start = load_checkpoint(path)
    written = save_model(tmp_path / "model", trainer, start, "float32")
    assert save_model(tmp_path / "model", trainer, start, "float32") == written  # replaced
    tokens = np.arange(50, dtype=np.int32)
    nothing = np.full((50, 3), -1, dtype=np.int32)
    batch = (tokens, np.array([50], np.int32), nothing[:, 0].copy(), nothing)
    trained, before = trainer.hidden_states(batch), trainer.hidden_states(batch, trained=False)
    ours = load_model(load_checkpoint(written), "float32", 2).hidden_states([tokens.tolist()])
    twin = AutoModelForCausalLM.from_pretrained(written, dtype=torch.float32)
    with torch.no_grad():
        ids = torch.tensor(tokens.astype(np.int64))[None]
        theirs = twin.model(input_ids=ids).last_hidden_state[0].numpy()
    most = np.abs(trained).max()
    assert np.abs(ours - trained).max() < 1e-4 * most
    assert np.abs(theirs - trained).max() < 1e-4 * most
    assert np.abs(before - trained).max() > 1e-2 * most


def test_memory_counts_the_original(
    model: Path, data: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.setattr("medusa_native.training.joint_options.available_memory", lambda: 1 << 20)
    original = sum(t.data.size for t in load_checkpoint(model).tensors.values()) >> 20
    assert original > 0
    with pytest.raises(MemoryError, match=rf"MiB, {original} MiB of it the original model"):
        train_recipe(model, data, tmp_path / "out", recipe)
