"""Small random training problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medusa_native import _core


@dataclass
class Problem:
    """States, targets and a projection, all random; targets follow the states, so loss can fall.

    Grounded problems have an embedding table and a root for each row, too.
    """

    hidden: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int32]
    lm_head: npt.NDArray[np.float32]
    num_heads: int
    embedding: npt.NDArray[np.float32] | None = None
    roots: npt.NDArray[np.int32] | None = None

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        return np.arange(len(self.hidden), dtype=np.int64)

    @property
    def inputs(self) -> npt.NDArray[np.float32]:
        """What heads see: the states, and behind them the embeddings of the roots."""
        if self.embedding is None:
            return self.hidden
        return np.concatenate([self.hidden, self.embedding[self.roots]], axis=1)

    def trainer(self, noise: float = 0.0, **options: Any) -> _core.Trainer:
        """Return a float32 trainer; `noise` moves its weights off their initial zeros."""
        options = {"compute_type": "float32", "num_threads": 2, "total_steps": 1000} | options
        embedding = self.embedding
        if embedding is not None and options["compute_type"] == "bfloat16":
            embedding = to_bf16(embedding)
        trainer = _core.Trainer(self.lm_head, embedding, num_heads=self.num_heads, **options)
        rng = np.random.default_rng(7)
        for array in trainer.weights().values():
            array += (noise * rng.standard_normal(array.shape)).astype(np.float32)
        trainer.refresh()
        return trainer


def make_problem(
    rows: int = 100,
    hidden: int = 64,
    vocab: int = 100,
    num_heads: int = 3,
    seed: int = 0,
    *,
    grounded: bool = False,
) -> Problem:
    """Return a problem; a tenth of the targets is missing."""
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((rows, hidden)).astype(np.float32)
    maps = rng.standard_normal((num_heads, hidden, vocab))
    targets = np.stack([(states @ m).argmax(axis=1) for m in maps], axis=1).astype(np.int32)
    targets[rng.random(targets.shape) < 0.1] = -1
    lm_head = (0.3 * rng.standard_normal((vocab, hidden))).astype(np.float32)
    problem = Problem(states, targets, lm_head, num_heads)
    if grounded:
        problem.embedding = rng.standard_normal((2 * vocab, hidden)).astype(np.float32)
        problem.roots = rng.integers(0, 2 * vocab, rows).astype(np.int32)
    return problem


def to_bf16(array: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Bits of the nearest bfloat16."""
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Widen."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
