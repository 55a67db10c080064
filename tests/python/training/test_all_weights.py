"""All of a backbone's weights trained, against torch and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from joint_twin import JointTwin, random_batch
from test_joint_gradients import FAMILIES, VOCAB, compare, copies, make_trainer, save_family
from tiny_model import save_model

from medusa_native import InvalidArgument, _core

ALL: dict[str, Any] = {"all_weights": True, "target_modules": []}


def twin_of(folder: Path, trainer: _core.JointTrainer, **options: Any) -> JointTwin:
    options = {"num_heads": 3} | options
    return JointTwin(
        folder, copies(trainer.weights()), rank=1, alpha=1, all_weights=True, **options
    )


@pytest.mark.parametrize(
    ("family", "loss"),
    [(name, ("divergence", "cross_entropy")[i % 2]) for i, name in enumerate(FAMILIES)],
)
def test_a_whole_model(tmp_path: Path, family: str, loss: str) -> None:
    """Embeddings, norms, biases and linear layers, lm_head tied or not."""
    folder = save_family(tmp_path, family)
    trainer = make_trainer(folder, noise=0.02, backbone_loss=loss, **ALL)
    names = {*trainer.weights()}
    assert ("lm_head.weight" in names) == (family != "tied")
    assert ("model.layers.1.self_attn.k_proj.bias" in names) == (family == "qwen2")
    assert ("model.layers.0.self_attn.q_norm.weight" in names) == (family == "qwen3")
    rng = np.random.default_rng(0)
    batches = [random_batch(rng, lengths, VOCAB, 3) for lengths in ([40, 7, 30], [90])]
    compare(trainer, twin_of(folder, trainer, backbone_loss=loss), batches, 2e-5)


@pytest.mark.parametrize(
    ("version", "trimmed", "grounded", "layers", "tied"),
    [
        (1, False, False, 1, False),
        (2, True, False, 2, True),
        (1, True, True, 1, True),
        (2, False, True, 2, False),
    ],
)
def test_kinds_of_heads(
    tmp_path: Path, version: int, trimmed: bool, grounded: bool, layers: int, tied: bool
) -> None:
    """Heads that share lm_head or look up embeddings add to their gradients."""
    folder = save_model(tmp_path, tie_word_embeddings=tied)
    token_map = np.arange(3, 130, 3, dtype=np.int32) if trimmed else None
    kind = {"version": version, "num_layers": layers}
    trainer = make_trainer(folder, token_map, grounded, noise=0.02, **kind, **ALL)
    twin = twin_of(folder, trainer, token_map=token_map, grounded=grounded, num_layers=layers)
    rng = np.random.default_rng(1)
    compare(trainer, twin, [random_batch(rng, [33, 50], VOCAB, 3, token_map)], 2e-5)


@pytest.mark.parametrize("loss", ["divergence", "cross_entropy"])
def test_updates_are_those_of_adamw(tmp_path: Path, loss: str) -> None:
    """20 steps with weight decay and clipping: losses and every weight."""
    folder = save_family(tmp_path, "qwen2")
    options: dict[str, Any] = {"backbone_loss": loss, "weight_decay": 0.05, "max_grad_norm": 0.5}
    stage = {"steps": 20, "learning_rate": 1e-3, "warmup_steps": 3}
    trainer = make_trainer(folder, noise=0.0, stages=[stage], **options, **ALL)
    start = copies(trainer.weights())
    twin = twin_of(
        folder, trainer, learning_rate=1e-3, warmup_steps=3, total_steps=20, dtype=torch.float32,
        **options,
    )  # fmt: skip
    rng = np.random.default_rng(2)
    data = [random_batch(rng, [40, 24], VOCAB, 3) for _ in range(4)]
    for step in range(20):
        batches = data[2 * (step % 2) :][:2]
        ours, theirs = trainer.step([batch.core() for batch in batches]).loss, twin.step(batches)
        assert ours == pytest.approx(theirs, abs=1e-4)
    for name, array in trainer.weights().items():
        expected = twin.parameters[name].detach().numpy()
        moved = np.abs(expected - start[name])
        assert moved.max() > 0, name
        error = np.abs(array - expected)
        assert np.linalg.norm(error) < 0.01 * np.linalg.norm(moved), name


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["tied", "qwen3"])
def test_it_begins_as_the_model(tmp_path: Path, family: str, compute: str) -> None:
    """The first divergence is 0, for copies of masters have the bits of the file's weights."""
    trainer = make_trainer(
        save_family(tmp_path, family), noise=0.0, compute_type=compute, stages=[{"steps": 2}], **ALL
    )
    batch = random_batch(np.random.default_rng(3), [60], VOCAB, 3).core()
    assert trainer.backward([batch]).backbone_loss == 0
    scores = trainer.evaluate(batch)
    assert (scores["divergence"] == 0).all()
    assert (scores["log_prob"] == scores["base_log_prob"]).all()
    before = trainer.hidden_states(batch, trained=False)
    trainer.step([batch])
    assert (trainer.hidden_states(batch, trained=False) == before).all()
    assert (trainer.hidden_states(batch) != before).any()
    assert trainer.evaluate(batch)["divergence"].max() > 0


def test_bits_do_not_depend_on_threads(tmp_path: Path) -> None:
    folder = save_family(tmp_path, "qwen2")
    batch = random_batch(np.random.default_rng(4), [70, 20], VOCAB, 3).core()
    found = []
    for threads in (1, 2, 4):
        trainer = make_trainer(
            folder, num_threads=threads, compute_type="bfloat16", stages=[{"steps": 9}], **ALL
        )
        losses = [trainer.step([batch]).loss for _ in range(3)]
        found.append((losses, copies(trainer.weights())))
    for losses, weights in found[1:]:
        assert losses == found[0][0]
        assert all((weights[name] == found[0][1][name]).all() for name in weights)


def test_adapters_exclude_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"target_modules must be empty .*, found 1"):
        make_trainer(save_model(tmp_path), all_weights=True, target_modules=["q_proj"])
