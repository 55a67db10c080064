"""How far one distribution of the next token is from another."""

from __future__ import annotations

from collections.abc import Sequence

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


def interval(texts: Sequence[LogProbs]) -> tuple[float, float]:
    """Return the 95 % interval of the mean over all tokens when texts are resampled."""
    chosen = np.random.default_rng(0).integers(len(texts), size=(10_000, len(texts)))
    sums = np.asarray([text.sum() for text in texts])[chosen].sum(axis=1)
    counts = np.asarray([len(text) for text in texts])[chosen].sum(axis=1)
    low, high = np.quantile(sums / counts, [0.025, 0.975])
    return float(low), float(high)
