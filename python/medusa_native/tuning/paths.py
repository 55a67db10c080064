"""How likely each path of ranks is to be right, from counts over the model's own answers.

A row is a position of an answer with its successors known; its ranks say at which place head k
ranked the token that came. A path (i1, ..., ik) is right on a row when the first k ranks are these.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

Path = tuple[int, ...]
MISS = -1  # the head did not name the token among its guesses
NO_TARGET = -2  # the answer ends before
# Rows' worth of belief in the product of single heads' accuracies: a path seen on many more rows
# goes by its own count, one seen on fewer by the product.
BACK_OFF_ROWS = 16.0


@dataclass(frozen=True)
class PathModel:
    """Estimated probabilities of paths.

    P(i | path) is the share of rows, among those where `path` is right and a further token exists,
    on which the next head ranks it i-th; it is drawn towards that head's overall accuracy at rank
    i, the estimate of Medusa's section 2.3.3, where rows are few.

    Attributes
    ----------
    trials
        Rows on which a path is right and its next head has a target; () counts all rows.
    hits
        Rows on which a path is right.
    accuracy
        float64 (heads, ranks): share of a head's targets that it ranked i-th.
    num_rows
        Rows in all.
    """

    trials: Counter[Path]
    hits: Counter[Path]
    accuracy: npt.NDArray[np.float64]
    num_rows: int

    @property
    def num_heads(self) -> int:
        """Heads that were measured."""
        return len(self.accuracy)

    def children(self, path: Path) -> npt.NDArray[np.float64]:
        """P(i | path) for every rank i of the next head."""
        prior = self.accuracy[len(path)]
        hits = np.array([self.hits.get((*path, i), 0) for i in range(prior.size)])
        share = (hits + BACK_OFF_ROWS * prior) / (self.trials[path] + BACK_OFF_ROWS)
        return np.asarray(share, dtype=np.float64)

    def probability(self, path: Path) -> float:
        """P(all of `path` is right)."""
        result = 1.0
        for depth, rank in enumerate(path):
            result *= float(self.children(path[:depth])[rank])
        return result

    def best_paths(self, num_paths: int) -> list[tuple[Path, float]]:
        """Return the most probable paths with their probabilities, best first.

        A path is no more probable than its parent, so every prefix of the list is a tree, and the
        most probable one of its size. Ties go to the shorter, then the lower path.
        """
        found: list[tuple[Path, float]] = []
        frontier: list[tuple[float, int, Path]] = []
        self._push_children(frontier, (), 1.0)
        while frontier and len(found) < num_paths:
            negative, _, path = heapq.heappop(frontier)
            found.append((path, -negative))
            if len(path) < self.num_heads:
                self._push_children(frontier, path, -negative)
        return found

    def _push_children(
        self, frontier: list[tuple[float, int, Path]], path: Path, probability: float
    ) -> None:
        for rank, share in enumerate(self.children(path)):
            if share > 0:
                heapq.heappush(frontier, (-probability * share, len(path) + 1, (*path, rank)))


def fit_paths(ranks: npt.NDArray[np.int32], num_ranks: int) -> PathModel:
    """Count paths.

    Parameters
    ----------
    ranks
        (rows, heads): 0 for a head's best guess; `MISS`; `NO_TARGET` where the answer has ended.
    num_ranks
        Guesses of a head that were looked at.
    """
    trials: Counter[Path] = Counter()
    hits: Counter[Path] = Counter()
    for row in ranks.tolist():
        path: Path = ()
        for rank in row:
            if rank == NO_TARGET:
                break
            trials[path] += 1
            if rank == MISS:
                break
            path = (*path, rank)
            hits[path] += 1
    return PathModel(trials, hits, _accuracy(ranks, num_ranks), len(ranks))


def _accuracy(ranks: npt.NDArray[np.int32], num_ranks: int) -> npt.NDArray[np.float64]:
    targets = np.maximum((ranks != NO_TARGET).sum(axis=0), 1)
    share = [(ranks == rank).sum(axis=0) / targets for rank in range(num_ranks)]
    return np.transpose(np.array(share, dtype=np.float64))
