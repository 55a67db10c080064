"""The best candidate tree for given heads, and what it yields.

Input is one tuple of ranks a row: at which place head k ranked the token that came. A path
(i1, ..., ik) would have been accepted exactly on the rows whose first k ranks are i1, ..., ik, so
counting rows per path measures its value directly, without the independence that the published
construction assumes (Medusa, section 2.3.3).
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

Path = tuple[int, ...]
MAX_RANK = 32  # guesses of one head that a tree may use


def count_paths(ranks: npt.NDArray[np.int32]) -> Counter[Path]:
    """Count the rows on which each path is right; `ranks` is (rows, heads), negative: a miss."""
    counts: Counter[Path] = Counter()
    for row in ranks.tolist():
        for depth, rank in enumerate(row, 1):
            if not 0 <= rank < MAX_RANK:
                break
            counts[tuple(row[:depth])] += 1
    return counts


def best_paths(counts: Counter[Path], num_nodes: int) -> list[list[int]]:
    """Return at most `num_nodes` paths, most valuable first; every prefix of the list is a tree.

    A path is right on no more rows than its parent, and of two siblings the lower rank comes
    first, so the most frequent paths form a tree; ties go to the shorter, then the lower path.
    """
    ranked = heapq.nsmallest(
        num_nodes, counts.items(), key=lambda item: (-item[1], len(item[0]), item[0])
    )
    return [list(path) for path, _ in ranked]


def expected_tokens(counts: Counter[Path], paths: Sequence[Sequence[int]], num_rows: int) -> float:
    """Tokens a step, root included, averaged over all rows."""
    return 1.0 + sum(counts[tuple(path)] for path in paths) / max(num_rows, 1)


def walk(
    ranks: npt.NDArray[np.int32], first_row: Sequence[int], paths: Sequence[Sequence[int]]
) -> float:
    """Tokens a step of greedy decoding with this tree: each step starts where the last one ended.

    Parameters
    ----------
    ranks
        (rows, heads), rows of one answer after those of another.
    first_row
        First row of each answer, and at the end the number of rows.
    """
    tree = {tuple(path) for path in paths}
    steps = tokens = 0
    table = ranks.tolist()
    for first, end in itertools.pairwise(first_row):
        row = first
        while row <= end:  # the answer's last token has no row: it is a root without a tree
            accepted = _accepted(table[row], tree) if row < end else 0
            steps += 1
            tokens += 1 + accepted
            row += 1 + accepted
    return tokens / max(steps, 1)


def _accepted(ranks: Sequence[int], tree: set[Path]) -> int:
    depth = 0
    while depth < len(ranks) and tuple(ranks[: depth + 1]) in tree:
        depth += 1
    return depth
