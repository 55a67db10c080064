"""100 updates of Medusa-2 beside torch, transformers and PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from joint_twin import JointTwin, random_batch
from test_joint_gradients import VOCAB, copies, make_trainer
from tiny_model import CONFIG, random_tensors, save_model

STEPS, WARMUP = 100, 10


@pytest.mark.parametrize(
    ("schedule", "loss", "version"),
    [("constant", "divergence", 2), ("sine", "cross_entropy", 1)],
)
def test_losses_agree_at_every_step(tmp_path: Path, schedule: str, loss: str, version: int) -> None:
    changes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "num_attention_heads": 2}
    changes |= {"num_key_value_heads": 1}
    folder = save_model(tmp_path, tensors=random_tensors(CONFIG | changes, 4), **changes)
    token_map = np.arange(0, VOCAB, 4, dtype=np.int32) if version == 2 else None
    common: dict[str, Any] = {
        "heads_schedule": schedule,
        "backbone_loss": loss,
        "heads_coefficient": 0.3,
        "num_heads": 2,
    }
    stage = {"steps": STEPS, "learning_rate": 1e-3, "warmup_steps": WARMUP}
    trainer = make_trainer(
        folder, token_map, noise=0.0, version=version, stages=[stage], seed=3, **common
    )
    twin = JointTwin(
        folder, copies(trainer.weights()), rank=8, alpha=16, token_map=token_map,
        learning_rate=1e-3, warmup_steps=WARMUP, total_steps=STEPS, dtype=torch.float32, **common,
    )  # fmt: skip
    rng = np.random.default_rng(9)
    data = [random_batch(rng, [24, 9], VOCAB, 2, token_map) for _ in range(6)]
    curves = []
    for step in range(STEPS):
        batches = data[2 * (step % 3) :][:2]
        ours = trainer.step([batch.core() for batch in batches]).loss
        curves.append((ours, twin.step(batches)))
    ours, theirs = np.array(curves).T
    assert np.abs(ours - theirs).max() < 1e-3
    assert ours[-10:].mean() < 0.9 * ours[:10].mean()  # something was learned
