"""How far one distribution of the next token is from another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LogProbs = npt.NDArray[np.float64]


def log_softmax(logits: npt.NDArray[np.float32]) -> LogProbs:
    """Return the natural logarithms of every row's probabilities."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def divergence(expected: LogProbs, found: LogProbs) -> LogProbs:
    """Return KL(expected || found) of every row, in nats."""
    return np.asarray((np.exp(expected) * (expected - found)).sum(axis=-1))
