"""From answers to heads that decode, whatever interrupts the training."""

from __future__ import annotations

import json
import random
import signal
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import kill_when, run_on_a_full_disk, size
from killing import start as start_process
from safetensors import safe_open
from safetensors.numpy import save
from tiny_model import permutation_tensors, save_model

from medusa_native import Decoder, InvalidArgument, ModelFormatError, SamplingParams, _core
from medusa_native.training import train
from medusa_native.training.checkpoint import load_checkpoint

SMALL: dict[str, Any] = {
    "num_heads": 3,
    "draft_vocab": 160,
    "epochs": 3,
    "batch_size": 64,
    "validation_fraction": 0.1,
    "learning_rate": 3e-3,
}


@pytest.fixture(scope="module")
def chain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose next token is a fixed permutation of the last: heads can learn it."""
    tensors, _ = permutation_tensors()
    return save_model(tmp_path_factory.mktemp("chain"), tensors=tensors)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the model answers to prompts of one token each, without its end token."""
    _, permutation = permutation_tensors()
    starts = np.random.default_rng(0).choice(256, 60, replace=False)
    lines = []
    for start in starts.tolist():
        tokens = [int(permutation[start])]
        while len(tokens) < 40:
            tokens.append(int(permutation[tokens[-1]]))
        lines.append({"id": start, "prompt_token_ids": [start], "token_ids": tokens})
    path = tmp_path_factory.mktemp("data") / "answers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def files(folder: Path) -> dict[str, str]:
    """Digests: where two files differ, pytest would lay both open, byte by byte, for hours."""
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("grounded", [False, True])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("draft_vocab", [None, 160])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_heads_are_read_back_and_never_change_an_answer(
    chain_model: Path,
    data: Path,
    tmp_path: Path,
    version: int,
    draft_vocab: int | None,
    dtype: str,
    grounded: bool,
) -> None:
    options = SMALL | {"version": version, "draft_vocab": draft_vocab, "num_layers": 2}
    options |= {"dtype": dtype, "grounded": grounded}
    report = train(chain_model, data, tmp_path / "heads", **options)
    assert not (tmp_path / "heads" / ".training").exists()
    config = json.loads((tmp_path / "heads" / "config.json").read_text())
    assert config["medusa_num_heads"] == 3
    assert config["medusa_num_layers"] == 2
    assert config.get("version") == ("2" if version == 2 else None)
    assert config.get("medusa_grounded", False) == grounded
    assert config["medusa_choices"] == report.validation.paths
    with safe_open(tmp_path / "heads" / "medusa_lm_head.safetensors", framework="np") as file:
        tensors = set(file.keys())
        assert file.get_slice("0.0.linear.weight").get_shape() == [128, 256 if grounded else 128]
        assert file.get_slice("0.1.linear.weight").get_shape() == [128, 128]
    assert ("token_map" in tensors) == (draft_vocab is not None)
    assert ("0.2.weight" in tensors) == (version == 1)
    params = SamplingParams(max_tokens=30)
    plain = Decoder(chain_model, dtype=dtype).generate(["a", "bc"], params)
    fast = Decoder(chain_model, tmp_path / "heads", dtype=dtype).generate(["a", "bc"], params)
    assert [o.outputs[0].token_ids for o in plain] == [o.outputs[0].token_ids for o in fast]


def test_heads_learn_what_can_be_learned(chain_model: Path, data: Path, tmp_path: Path) -> None:
    report = train(
        chain_model, data, tmp_path, **SMALL | {"version": 1, "draft_vocab": None, "epochs": 20}
    )
    assert min(head[0] for head in report.validation.top) > 0.9
    assert report.validation.tokens_per_step > 3
    assert [entry["epoch"] for entry in report.history] == list(range(1, 21))
    assert report.history[-1]["loss"][0] < report.history[0]["loss"][0]
    output = Decoder(chain_model, tmp_path).generate(["a"], SamplingParams(max_tokens=60))[0]
    assert output.metrics.mean_acceptance_length > 2.5


def test_tokens_outside_the_draft_vocabulary_are_misses(
    chain_model: Path, data: Path, tmp_path: Path
) -> None:
    report = train(chain_model, data, tmp_path, **SMALL | {"draft_vocab": 16, "epochs": 1})
    assert all(head[-1] < 0.3 for head in report.validation.top)


@pytest.mark.parametrize(("version", "grounded"), [(1, False), (2, False), (2, True)])
def test_a_killed_run_ends_with_the_same_bits(
    chain_model: Path, data: Path, tmp_path: Path, version: int, grounded: bool
) -> None:
    options = SMALL | {"version": version, "checkpoint_seconds": 0.0, "num_threads": 1}
    options |= {"grounded": grounded}
    train(chain_model, data, tmp_path / "whole", **options)
    out = tmp_path / "out"
    checkpoint, states = out / ".training/checkpoint", out / ".training/hidden.bin"
    rng = random.Random(version)
    for kill in range(4):
        process = start_process("train", str(chain_model), str(data), str(out), **options)
        if kill == 0:
            kill_when(process, lambda: size(states) > 0)
            continue
        stamps = [0, rng.randrange(1, 12)]

        def reached(stamps: list[int] = stamps, seen: list[int] = []) -> bool:  # noqa: B006
            now = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
            if now and now not in seen[-1:]:
                seen.append(now)
            return len(seen) >= stamps[1]

        if not kill_when(process, reached, rng.choice([signal.SIGKILL, signal.SIGINT])):
            break
    train(chain_model, data, out, **options)
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.parametrize("last", [False, True], ids=["within an epoch", "at its end"])
def test_ctrl_c_after_an_update_counts_the_update(
    chain_model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    """Python raises it between the update and the line that notes the step."""
    options = SMALL | {"num_threads": 1}
    whole = train(chain_model, data, tmp_path / "whole", **options)
    stop_at = whole.history[0]["step"] - (0 if last else 3)
    step = _core.Trainer.step

    def interrupted(*arguments: Any) -> _core.StepReport:
        report = step(*arguments)
        if report.step == stop_at:
            raise KeyboardInterrupt
        return report

    with monkeypatch.context() as patched:
        patched.setattr(_core.Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(chain_model, data, tmp_path / "out", **options)
    rest = train(chain_model, data, tmp_path / "out", **options)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert rest.history == whole.history


@pytest.mark.parametrize("limit", [10_000, 700_000], ids=["states", "checkpoint"])
def test_a_full_disk(chain_model: Path, data: Path, tmp_path: Path, limit: int) -> None:
    out = tmp_path / "out"
    options = SMALL | {"checkpoint_seconds": 0.0, "version": 1}
    text = run_on_a_full_disk(limit, "train", str(chain_model), str(data), str(out), **options)
    assert f"InvalidArgument: {out}: cannot be written: [Errno 27] File too large" in text
    assert [path.name for path in out.iterdir()] == [".training"]
    train(chain_model, data, out, **options)
    train(chain_model, data, tmp_path / "whole", **options)
    assert files(out) == files(tmp_path / "whole")


def test_unfinished_work_of_other_settings(chain_model: Path, data: Path, tmp_path: Path) -> None:
    options = SMALL | {"checkpoint_seconds": 0.0}
    process = start_process("train", str(chain_model), str(data), str(tmp_path / "out"), **options)
    assert kill_when(process, (tmp_path / "out/.training/checkpoint").exists)
    with pytest.raises(InvalidArgument, match="other settings"):
        train(chain_model, data, tmp_path / "out", **options | {"seed": 1})
    with pytest.raises(InvalidArgument, match="other settings"):
        train(chain_model, data, tmp_path / "out", **options | {"grounded": True})
    train(chain_model, data, tmp_path / "out", restart=True, **options | {"seed": 1})
    train(chain_model, data, tmp_path / "anew", **options | {"seed": 1})
    assert files(tmp_path / "out") == files(tmp_path / "anew")


def test_damaged_checkpoints(chain_model: Path, data: Path, tmp_path: Path) -> None:
    options = SMALL | {"checkpoint_seconds": 0.0}
    process = start_process("train", str(chain_model), str(data), str(tmp_path), **options)
    checkpoint = tmp_path / ".training/checkpoint"
    assert kill_when(process, checkpoint.exists)
    whole = bytearray(checkpoint.read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(whole), 20):
        damaged = whole.copy()
        damaged[position] ^= 1 << int(rng.integers(8))
        checkpoint.write_bytes(damaged)
        with pytest.raises(ModelFormatError, match="checkpoint is damaged"):
            train(chain_model, data, tmp_path, **options)
    for length in (0, 10, 40, len(whole) // 2, len(whole) - 1):
        checkpoint.write_bytes(whole[:length])
        with pytest.raises(ModelFormatError, match="checkpoint is damaged"):
            train(chain_model, data, tmp_path, **options)
    checkpoint.write_bytes(whole)
    train(chain_model, data, tmp_path, **options)


def test_a_checkpoint_nested_too_deeply(tmp_path: Path) -> None:
    body = save({}, metadata={"state": "[" * 100_000})
    path = tmp_path / "checkpoint"
    path.write_bytes(sha256(body).digest() + body)
    trainer = _core.Trainer(np.zeros((4, 32), np.float32), num_heads=1, total_steps=1)
    with pytest.raises(ModelFormatError, match="not a checkpoint: nested too deeply"):
        load_checkpoint(path, "key", trainer)


def test_shared_states_are_kept_and_reused(chain_model: Path, data: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    train(chain_model, data, tmp_path / "a", cache_dir=cache, **SMALL)
    stamp = (cache / "hidden.bin").stat().st_mtime_ns
    train(chain_model, data, tmp_path / "b", cache_dir=cache, **SMALL)
    train(chain_model, data, tmp_path / "c", **SMALL)
    assert (cache / "hidden.bin").stat().st_mtime_ns == stamp
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "c")


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_states_that_were_lost_are_computed_again(
    chain_model: Path, data: Path, tmp_path: Path, damage: str
) -> None:
    states = tmp_path / "cache" / "hidden.bin"
    train(chain_model, data, tmp_path / "a", cache_dir=states.parent, **SMALL)
    if damage == "missing":
        states.unlink()
    else:
        states.write_bytes(states.read_bytes()[:-1])
    train(chain_model, data, tmp_path / "b", cache_dir=states.parent, **SMALL)
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "holds no answers"),
        ('{"id": 1, "prompt_token_ids": [1], "token_ids": [2, 320]}\n', "holds token 320"),
        ('{"id": 1, "prompt_token_ids": [-1], "token_ids": [2]}\n', "holds token -1"),
        ('{"id": 1, "prompt_token_ids": [1], "token_ids": [2.5]}\n', "list of token ids"),
        ('{"id": 1, "prompt_token_ids": [], "token_ids": [2]}\n', "is empty"),
        ('{"id": 1, "prompt_token_ids": [1], "token_ids": [2, 3]}\n', "at least 2 answers"),
        ("nonsense\n", "line 1: not valid JSON"),
    ],
)
def test_malformed_data(chain_model: Path, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "data.jsonl").write_text(line)
    with pytest.raises(InvalidArgument, match=message):
        train(chain_model, tmp_path / "data.jsonl", tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        {"num_heads": 0},
        {"version": 3},
        {"epochs": 0},
        {"batch_size": 0},
        {"draft_vocab": 0},
        {"learning_rate": -1.0},
        {"head_decay": 2.0},
        {"max_tree_nodes": 1},
        {"dtype": "float16"},
        {"warmup_ratio": 1.0},
        {"grounded": 1},
    ],
)
def test_parameters_out_of_range(
    chain_model: Path, data: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(change))):
        train(chain_model, data, tmp_path / "out", **SMALL | change)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_read_or_written(chain_model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="cannot be written"):
        train(chain_model, data, tmp_path / "file" / "out", **SMALL)
    with pytest.raises(InvalidArgument, match="cannot be read"):
        train(chain_model, tmp_path / "missing", tmp_path / "out", **SMALL)
