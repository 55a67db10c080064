"""From a recipe to an adapter and heads that decode, whatever interrupts the training."""

from __future__ import annotations

import json
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import kill_when
from killing import start as start_process
from tiny_model import save_model
from typer.testing import CliRunner

from medusa_native import Decoder, InvalidArgument, SamplingParams
from medusa_native.cli import app
from medusa_native.engine import load_adapted
from medusa_native.loading import load_checkpoint
from medusa_native.training import train_recipe
from medusa_native.training.packing import (
    NO_TARGET,
    documents_of,
    draft_ids_of,
    head_rows,
    pack,
    token_batch,
)
from medusa_native.training.records import Answer

RECIPE = """
description = "tiny"
heads_coefficient = 0.2
heads_decay = 0.8
heads_schedule = "sine_r"
heads_schedule_fraction = 0.5
self_distillation = true
batch_tokens = 256
sequence_length = 128
[heads]
version = 2
num_heads = 3
draft_vocab = 160
learning_rate_multiplier = 4.0
[lora]
rank = 8
alpha = 16
dropout = 0.1
targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]
[[stages]]
trained = ["heads"]
epochs = 1
learning_rate = 1e-3
warmup_steps = 2
schedule = "linear"
[[stages]]
trained = ["heads", "lora"]
epochs = 2
learning_rate = 1e-3
warmup_ratio = 0.1
schedule = "cosine"
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    lines = [
        {
            "id": i,
            "prompt_token_ids": rng.integers(0, 256, int(rng.integers(1, 20))).tolist(),
            "token_ids": rng.integers(0, 256, int(rng.integers(2, 60))).tolist(),
            "finish_reason": "length",
        }
        for i in range(60)
    ]
    path = tmp_path_factory.mktemp("data") / "answers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def weights(folder: Path) -> dict[str, str]:
    paths = [*folder.glob("*.safetensors"), *folder.glob("adapter/*"), folder / "config.json"]
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in paths}


def test_what_a_kill_interrupts_ends_with_the_same_bits(
    model: Path, data: Path, recipe: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options: dict[str, Any] = {"validation_fraction": 0.1, "num_threads": 2}
    report = train_recipe(model, data, whole, recipe, **options)
    assert report.num_steps == json.loads(_last_line(whole / "train_log.jsonl"))["step"]
    rng = random.Random(7)
    log = killed / "train_log.jsonl"
    for lines in sorted(rng.sample(range(2, report.num_steps), 3)):
        process = start_process(
            "train_recipe", str(model), str(data), str(killed), str(recipe),
            checkpoint_seconds=0.0, **options,
        )  # fmt: skip
        kill_when(process, lambda n=lines: log.exists() and log.read_text().count("\n") >= n)
    train_recipe(model, data, killed, recipe, **options | {"num_threads": 1})
    assert weights(killed) == weights(whole)
    assert _losses(log) == _losses(whole / "train_log.jsonl")
    assert (whole / "losses.svg").read_text().startswith("<svg")
    assert not (killed / ".training").exists()


def _last_line(path: Path) -> str:
    return path.read_text().splitlines()[-1]


def _losses(path: Path) -> list[Any]:
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [(entry["step"], entry.get("loss")) for entry in entries]


def test_its_adapter_and_heads_decode_losslessly(
    model: Path, data: Path, recipe: Path, tmp_path: Path
) -> None:
    report = train_recipe(model, data, tmp_path, recipe)
    assert report.adapter is not None
    top = report.history
    assert top[0]["validation"]["divergence"] == 0  # the adapter begins as nothing
    assert report.validation.divergence > 0
    tuned = Decoder(model, heads=tmp_path, adapter=report.adapter)
    plain = Decoder(model)
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    prompts = [[1, 2, 3], [200, 7]]
    found = tuned.generate(prompts, params)
    slow = SamplingParams(max_tokens=40, ignore_eos=True, speculative=False)
    for one, other in zip(found, tuned.generate(prompts, slow), strict=True):
        assert one.outputs[0].token_ids == other.outputs[0].token_ids
    changed = [
        one.outputs[0].token_ids != other.outputs[0].token_ids
        for one, other in zip(found, plain.generate(prompts, params), strict=True)
    ]
    assert any(changed)  # else the adapter may as well not have been applied


def test_a_medusa_1_recipe_writes_heads_alone(
    model: Path, data: Path, recipe: Path, tmp_path: Path
) -> None:
    text = recipe.read_text()
    start, end = text.index("[lora]"), text.index("[[stages]]")
    alone = tmp_path / "alone.toml"
    alone.write_text(text[:start] + text[end : text.rindex("[[stages]]")])
    report = train_recipe(model, data, tmp_path / "out", alone)
    assert report.adapter is None
    assert report.validation.divergence == 0


def test_a_run_goes_on_from_heads(model: Path, data: Path, recipe: Path, tmp_path: Path) -> None:
    first = train_recipe(model, data, tmp_path / "first", recipe)
    again = train_recipe(model, data, tmp_path / "again", recipe, initial_heads=tmp_path / "first")
    before = [report.history[0]["validation"]["loss"] for report in (first, again)]
    assert sum(before[1]) < sum(before[0])
    other = tmp_path / "other.toml"
    other.write_text(recipe.read_text().replace("num_heads = 3", "num_heads = 2"))
    with pytest.raises(InvalidArgument, match=r"'heads.num_heads', 2, expected, found 3"):
        train_recipe(model, data, tmp_path / "x", other, initial_heads=tmp_path / "first")


def test_packing() -> None:
    assert pack([3, 4, 5, 2], [2, 0, 1, 3], 8) == [[2, 0], [1, 3]]
    answers = [Answer(0, [5, 6], [7, 8, 9], "stop"), Answer(1, [1], [2, 3], "stop")]
    token_map = np.array([3, 8, 9], dtype=np.int32)
    tokens, lengths, lm, heads = token_batch(answers, 2, draft_ids_of(token_map, 10))
    assert tokens.tolist() == [5, 6, 7, 8, 1, 2]
    assert lengths.tolist() == [4, 2]
    assert lm.tolist() == [NO_TARGET, 7, 8, 9, 2, 3]
    assert heads.tolist() == [[-1, -1], [1, 2], [2, -1], [-1, -1], [0, -1], [-1, -1]]
    assert head_rows(answers)[0].tolist() == [1, 2, 4]
    assert head_rows(answers)[1] == [2, 1]


def test_only_the_model_s_turns_are_learned() -> None:
    talk = Answer(0, [1, 2], [3, 4, 5, 6, 7, 8], "stop", [(0, 2), (4, 6)])
    tokens, _, lm, heads = token_batch([talk], 1, draft_ids_of(None, 10))
    assert tokens.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert lm.tolist() == [-1, 3, 4, -1, -1, 7, 8]
    assert heads[:, 0].tolist() == [-1, 4, -1, -1, -1, 8, -1]
    assert head_rows([talk])[0].tolist() == [1, 5]
    (cut, same) = documents_of([talk, Answer(1, [1], [2, 3], "stop")], 7)
    assert cut.token_ids == [3, 4]
    assert same.token_ids == [2, 3]
    with pytest.raises(InvalidArgument, match="at least 2 answers"):
        documents_of([talk], 7)


def test_what_cannot_be_trained_is_refused(
    model: Path, data: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = recipe.read_text()
    both = tmp_path / "both.toml"
    both.write_text(text.replace('["heads"]', '["heads", "backbone"]'))
    with pytest.raises(InvalidArgument, match=r"'stages' must train lora or backbone, found both"):
        train_recipe(model, data, tmp_path / "a", both)
    with pytest.raises(InvalidArgument, match="weight_format"):
        train_recipe(model, data, tmp_path / "b", recipe, weight_format="packed")
    monkeypatch.setattr("medusa_native.training.joint_options.available_memory", lambda: 1 << 20)
    with pytest.raises(MemoryError, match=r"needs about \d+ MiB, and 1 MiB"):
        train_recipe(model, data, tmp_path / "c", recipe)


def test_the_trained_model_is_what_is_exported(
    model: Path, data: Path, recipe: Path, tmp_path: Path
) -> None:
    """Merged at load, the adapter gives the states that the trainer's own forward pass gives."""
    from test_joint_gradients import make_trainer

    from medusa_native.engine import load_model

    report = train_recipe(model, data, tmp_path, recipe, dtype="float32")
    merged, adapter = load_adapted(model, report.adapter, "float32")
    assert adapter is not None
    trainer = make_trainer(model, noise=0.0)
    for name, array in trainer.weights().items():
        if ".lora_" in name:
            weight = name.removeprefix("base_model.model.").rsplit(".lora_", 1)[0] + ".weight"
            factors = adapter.factors[weight]
            array[...] = factors.down if ".lora_A." in name else factors.up
    trainer.refresh()
    tokens = np.arange(50, dtype=np.int32)
    nothing = np.full((50, 3), -1, dtype=np.int32)
    batch = (tokens, np.array([50], np.int32), nothing[:, 0].copy(), nothing)
    ours = trainer.hidden_states(batch)
    theirs = load_model(merged, "float32", 2).hidden_states([tokens.tolist()])
    before = load_model(load_checkpoint(model), "float32", 2).hidden_states([tokens.tolist()])
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
    assert np.abs(before - theirs).max() > 1e-3 * np.abs(theirs).max()


def test_the_command(model: Path, data: Path, recipe: Path, tmp_path: Path) -> None:
    arguments = ["train", "-m", str(model), "--data", str(data), "-o", str(tmp_path / "out")]
    runner = CliRunner()
    found = runner.invoke(app, [*arguments, "--recipe", str(recipe), "--json"])
    assert found.exit_code == 0, found.stderr
    facts = json.loads(found.stdout)
    assert Path(facts["adapter"], "adapter_config.json").exists()
    assert facts["validation"]["perplexity"] > 1
    wrong = runner.invoke(app, [*arguments, "--recipe", str(recipe), "--num-heads", "5"])
    assert wrong.exit_code == 2
    assert "--num-heads: belongs into the recipe" in wrong.stderr
