"""The best tree against brute force, and replayed decoding against a naive one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medusa_native.training.tree_search import best_paths, count_paths, expected_tokens, walk


def ranks_of(rows: int, heads: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ranks = rng.geometric(0.5, (rows, heads)) - 1
    return np.where(rng.random((rows, heads)) < 0.2, -1, ranks).astype(np.int32)


def test_counts() -> None:
    ranks = np.array([[0, 0, 2], [0, 1, 0], [0, -1, 0], [-1, 0, 0]], np.int32)
    counts = count_paths(ranks)
    assert counts[(0,)] == 3
    assert counts[(0, 0)] == counts[(0, 0, 2)] == counts[(0, 1)] == counts[(0, 1, 0)] == 1
    assert sum(counts.values()) == 7


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_every_prefix_of_the_best_paths_is_a_tree(seed: int, nodes: int) -> None:
    paths = [tuple(p) for p in best_paths(count_paths(ranks_of(60, 3, seed)), nodes)]
    assert len(paths) <= nodes
    for index, path in enumerate(paths):
        before = set(paths[:index])
        assert len(path) == 1 or path[:-1] in before


def test_no_tree_of_the_same_size_is_better() -> None:
    counts = count_paths(np.minimum(ranks_of(40, 2, 3), 2))
    candidates = [*counts]
    for size in range(1, 5):
        best = expected_tokens(counts, best_paths(counts, size), 40)
        for paths in itertools.combinations(candidates, size):
            if all(len(p) == 1 or p[:-1] in paths for p in paths):
                assert expected_tokens(counts, paths, 40) <= best


def test_expected_tokens_by_hand() -> None:
    ranks = np.array([[0, 0], [0, 1], [1, 0], [-1, 0]], np.int32)
    assert expected_tokens(count_paths(ranks), [[0], [0, 0]], 4) == 1 + (2 + 1) / 4


def test_a_walk_starts_where_the_last_step_ended() -> None:
    # Six tokens, so five rows: roots at 0 (accepts 2), 3 (accepts 0), 4 (accepts 1), then done.
    ranks = np.array([[0, 0], [9, 9], [9, 9], [3, 0], [0, -1]], np.int32)
    assert walk(ranks, [0, 5], [[0], [0, 0]]) == 6 / 3


def test_the_last_token_is_a_step_of_its_own() -> None:
    ranks = np.array([[5, 5]], np.int32)
    assert walk(ranks, [0, 1], [[0]]) == 2 / 2


@given(st.integers(0, 10**6))
def test_a_walk_against_a_naive_one(seed: int) -> None:
    ranks = ranks_of(30, 3, seed)
    ranks[29, 0] = ranks[28, 1] = ranks[27, 2] = -1  # nothing follows the last token
    ranks[29, 1:] = ranks[28, 2] = -1
    paths = best_paths(count_paths(ranks), 7)
    tokens, steps, row = 0, 0, 0
    while row < 31:
        depth = 0
        while row < 30 and depth < 3 and ranks[row, : depth + 1].tolist() in paths:
            depth += 1
        tokens, steps, row = tokens + 1 + depth, steps + 1, row + 1 + depth
    if tokens == 31:
        assert walk(ranks, [0, 30], paths) == pytest.approx(31 / steps)
