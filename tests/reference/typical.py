"""Typical acceptance (Medusa, section 2.3.1) in float64: the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """What one tree comes to.

    `margin` is the least distance, in logarithms, by which anything was decided: to a threshold, or
    to the likelihood of another path. Siblings of one logit are equal in any arithmetic and do not
    count.
    """

    nodes: list[int]
    margin: float


def log_softmax(logits: Floats, temperature: float) -> Floats:
    """Log-probabilities of rows; at temperature 0 the first of the largest has it all."""
    with np.errstate(divide="ignore"):
        if temperature == 0:
            return np.log(np.eye(logits.shape[-1])[logits.argmax(-1)])
        z = (logits - logits.max(-1, keepdims=True)) / temperature
        return z - np.log(np.exp(z).sum(-1, keepdims=True))


def entropy(log_probs: Floats) -> Floats:
    """-sum p log p of rows, in nats; 0 log 0 is 0."""
    finite = np.where(np.isfinite(log_probs), log_probs, 0)
    return -(np.exp(log_probs) * finite).sum(-1)


def accept(
    parents: Sequence[int],
    log_probs: Sequence[float] | Floats,
    entropies: Sequence[float] | Floats,
    log_threshold: float,
    log_alpha: float,
) -> Verdict:
    """Keep the longest path of guesses with p > min(threshold, alpha exp(-H)), then the likeliest.

    All but the thresholds are per node: its parent (the root comes first), the log-probability of
    its token at its parent, and the entropy at the node itself.
    """
    paths: dict[int, list[int]] = {0: [0]}
    scores = {0: 0.0}
    margins = [np.inf]
    for node in range(1, len(parents)):
        parent = parents[node]
        if parent not in paths:
            continue
        bound = min(log_threshold, log_alpha - float(entropies[parent]))
        log_prob = float(log_probs[node])
        margins.append(abs(log_prob - bound))
        if log_prob > bound:
            paths[node] = [*paths[parent], node]
            scores[node] = scores[parent] + log_prob
    depth = max(map(len, paths.values()))
    longest = [node for node in paths if len(paths[node]) == depth]
    best = max(longest, key=lambda node: (scores[node], -node))
    ranked = sorted(longest, key=lambda node: scores[node])
    margins += [
        scores[b] - scores[a]
        for a, b in pairwise(ranked)
        if parents[a] != parents[b] or scores[a] != scores[b]
    ]
    return Verdict(paths[best], min(margins))
