"""What heads are worth, on answers they have not learned from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_native.training.tree_search import best_paths, count_paths, expected_tokens, walk

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native import _core

TOP = 5


@dataclass(frozen=True)
class ValidationSet:
    """Rows of whole answers.

    Attributes
    ----------
    rows
        Into the hidden states.
    first_row
        Position in `rows` of each answer's first row, and at the end their number.
    targets
        Draft ids (rows, heads), -1 where the heads cannot name the token or none follows.
    exists
        bool (rows, heads): a token follows, whether or not the heads can name it.
    roots
        Token id of each row's root, for grounded heads; else None.
    """

    rows: npt.NDArray[np.int64]
    first_row: list[int]
    targets: npt.NDArray[np.int32]
    exists: npt.NDArray[np.bool_]
    roots: npt.NDArray[np.int32] | None


@dataclass(frozen=True)
class Validation:
    """Accuracies and the best tree.

    Attributes
    ----------
    loss
        [head] mean cross-entropy of the tokens in the draft vocabulary.
    top
        [head][n - 1] share of tokens among the head's best n; a token outside the draft vocabulary
        counts as missed.
    paths
        The best tree, most valuable path first.
    expected_tokens
        Tokens a step with that tree, averaged over all positions.
    tokens_per_step
        The same when decoding is replayed: a step starts where the last one ended.
    chain_tokens_per_step
        Replayed with each head's best guess only.
    """

    loss: list[float]
    top: list[list[float]]
    paths: list[list[int]]
    expected_tokens: float
    tokens_per_step: float
    chain_tokens_per_step: float

    def summary(self) -> dict[str, Any]:
        """Return the figures without the tree, rounded."""
        return {
            "loss": [round(x, 4) for x in self.loss],
            "top": [[round(x, 4) for x in head] for head in self.top],
            "tokens_per_step": round(self.tokens_per_step, 4),
            "expected_tokens": round(self.expected_tokens, 4),
            "chain_tokens_per_step": round(self.chain_tokens_per_step, 4),
            "tree_nodes": 1 + len(self.paths),
        }


def validate(
    trainer: _core.Trainer, hidden: npt.NDArray[Any], data: ValidationSet, max_nodes: int
) -> Validation:
    """Measure the trainer's heads; the tree has at most `max_nodes` nodes, root included.

    The tree is chosen on these rows too. It has few choices to make and many rows to make them on,
    so the figure is hardly flattered; measure on other prompts to be sure.
    """
    log_probs, ranks = trainer.evaluate(hidden, data.rows, data.targets, data.roots)
    return summarise(log_probs, ranks, data.targets, data.exists, data.first_row, max_nodes)


def summarise(
    log_probs: npt.NDArray[np.float32],
    ranks: npt.NDArray[np.int32],
    targets: npt.NDArray[np.int32],
    exists: npt.NDArray[np.bool_],
    first_row: list[int],
    max_nodes: int,
) -> Validation:
    """Return accuracies and the best tree from (rows, heads) of whole answers."""
    counts = count_paths(ranks)
    paths = best_paths(counts, max_nodes - 1)
    chain = [[0] * depth for depth in range(1, ranks.shape[1] + 1)]
    return Validation(
        loss=_mean(-log_probs, targets >= 0),
        top=np.transpose(
            [_mean((ranks >= 0) & (ranks < n), exists) for n in range(1, TOP + 1)]
        ).tolist(),
        paths=paths,
        expected_tokens=expected_tokens(counts, paths, len(ranks)),
        tokens_per_step=walk(ranks, first_row, paths),
        chain_tokens_per_step=walk(ranks, first_row, chain),
    )


def _mean(values: npt.NDArray[Any], where: npt.NDArray[np.bool_]) -> list[float]:
    """Mean of each column over the marked rows; 0 for a column without any."""
    count = np.maximum(where.sum(axis=0), 1)
    return [float(x) for x in np.where(where, values, 0).sum(axis=0, dtype=np.float64) / count]
