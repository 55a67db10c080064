"""Tokens a step of trees of every size, by replaying decoding over the model's own answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def first_size(
    ranks: npt.NDArray[np.int32], paths: Sequence[Sequence[int]]
) -> npt.NDArray[np.int64]:
    """Nodes, root included, from which on a tree holds the row's path to each depth.

    Parameters
    ----------
    ranks
        (rows, heads), negative where no guess is right.
    paths
        Best first: a tree of n nodes is the first n - 1.

    Returns
    -------
    ndarray
        int64 (rows, heads), growing along a row; a number above any size where no tree does.
    """
    never = len(paths) + 2
    size = {tuple(path): index + 2 for index, path in enumerate(paths)}
    out = np.full(ranks.shape, never, dtype=np.int64)
    for row, listed in enumerate(ranks.tolist()):
        for depth in range(len(listed)):
            found = size.get(tuple(listed[: depth + 1]))
            if found is None:
                break
            out[row, depth] = found
    return out


def steps_of_answers(
    first: npt.NDArray[np.int64], first_row: Sequence[int], num_nodes: int
) -> npt.NDArray[np.int64]:
    """Return the decoding steps of each answer, each step starting where the last one ended.

    The first token of an answer comes with its prompt and counts as none; a path that goes beyond
    the answer's end yields what is left. So steps are those of the engine, one for one.

    Parameters
    ----------
    first
        Of `first_size`.
    first_row
        First row of each answer, and at the end the number of rows; as many as tokens after the
        first.
    """
    gained = (1 + (first <= num_nodes).sum(axis=1)).tolist()
    steps = np.zeros(len(first_row) - 1, dtype=np.int64)
    for number, (row, end) in enumerate(itertools.pairwise(first_row)):
        at = row
        while at < end:
            at += gained[at]
            steps[number] += 1
    return steps


def tokens_per_step(
    first: npt.NDArray[np.int64], first_row: Sequence[int], num_nodes: int
) -> float:
    """Tokens a decoding step with a tree of `num_nodes`, over all answers."""
    steps = steps_of_answers(first, first_row, num_nodes)
    return float((first_row[-1] - first_row[0]) / max(steps.sum(), 1))


def relative_error(tokens: Sequence[int], steps: Sequence[int]) -> float:
    """Return the standard error of tokens a step as a share of it, answers being a random draw.

    That of a ratio of two sums (Cochran 1977, section 2.11).
    """
    count = len(steps)
    off = np.asarray(tokens) / np.sum(tokens) - np.asarray(steps) / np.sum(steps)
    return float(np.sqrt(count / max(count - 1, 1) * np.sum(off**2)))
