"""Probabilities of paths, and the trees made of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medusa_native.tuning.paths import BACK_OFF_ROWS, MISS, NO_TARGET, PathModel, fit_paths
from medusa_native.tuning.replay import first_size, relative_error, tokens_per_step


def random_ranks(rows: int, heads: int, seed: int, most: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ranks = rng.geometric(0.5, (rows, heads)).astype(np.int32) - 1
    ranks[ranks >= most] = MISS
    return ranks


def all_paths(model: PathModel) -> list[tuple[int, ...]]:
    num_ranks = model.accuracy.shape[1]
    lengths = range(1, model.num_heads + 1)
    return [p for n in lengths for p in itertools.product(range(num_ranks), repeat=n)]


def test_by_hand() -> None:
    rows = [[0, 0], [0, 1], [1, 0], [MISS, 0], [0, NO_TARGET], [NO_TARGET, NO_TARGET]]
    model = fit_paths(np.array(rows, np.int32), 2)
    assert model.trials[()] == 5
    assert model.trials[(0,)] == 2  # on one of the three rows nothing follows
    assert model.accuracy.tolist() == [[3 / 5, 1 / 5], [3 / 4, 1 / 4]]
    below = (1 + BACK_OFF_ROWS * 3 / 4) / (2 + BACK_OFF_ROWS)
    assert model.probability((0,)) == pytest.approx(3 / 5)
    assert model.probability((0, 0)) == pytest.approx(3 / 5 * below)


def test_a_path_never_seen_goes_by_the_product() -> None:
    ranks = np.array([[0, 0], [1, 1]] * 50 + [[2, MISS], [MISS, 2]], np.int32)
    model = fit_paths(ranks, 3)
    assert model.hits[(2, 2)] == 0
    product = model.accuracy[0, 2] * model.accuracy[1, 2]
    assert 0 < model.probability((2, 2)) < product
    assert model.probability((2, 2)) == pytest.approx(product, rel=0.1)


def test_a_path_seen_often_goes_by_its_count() -> None:
    """Heads that are right together: the product would say a quarter."""
    ranks = np.array([[0, 0], [1, 1]] * 5000, np.int32)
    model = fit_paths(ranks, 2)
    assert model.probability((0, 0)) == pytest.approx(0.5, abs=1e-3)
    assert model.probability((0, 1)) == pytest.approx(0.0, abs=1e-3)


@given(st.integers(0, 10**6), st.integers(1, 12))
def test_every_prefix_is_the_most_probable_tree_of_its_size(seed: int, nodes: int) -> None:
    model = fit_paths(random_ranks(50, 3, seed, 3), 3)
    best = model.best_paths(nodes)
    listed = [path for path, _ in best]
    for index, path in enumerate(listed):
        assert path[:-1] in {(), *listed[:index]}
    chances = sorted((model.probability(path) for path in all_paths(model)), reverse=True)
    assert [chance for _, chance in best] == pytest.approx([c for c in chances[:nodes] if c > 0])


def test_paths_that_cannot_be_right_are_left_out() -> None:
    model = fit_paths(np.array([[0], [0]], np.int32), 4)
    assert model.best_paths(10) == [((0,), 1.0)]


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_replay_against_a_naive_one(seed: int, nodes: int) -> None:
    ranks = random_ranks(40, 3, seed)
    first_row = [0, 17, 40]
    for end in first_row[1:]:
        for depth in (1, 2):
            ranks[end - depth, depth:] = NO_TARGET
    paths = [path for path, _ in fit_paths(ranks, 4).best_paths(8)]
    tree = set(paths[: nodes - 1])
    steps = 0
    for start, end in itertools.pairwise(first_row):
        row = start
        while row < end:
            depth = 0
            while depth < 3 and tuple(ranks[row, : depth + 1].tolist()) in tree:
                depth += 1
            row += 1 + depth
            steps += 1
    found = tokens_per_step(first_size(ranks, paths), first_row, nodes)
    assert found == pytest.approx(40 / steps)


def test_the_error_of_tokens_a_step_is_that_of_drawing_anew() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(50, 128, 400)
    steps = (tokens / rng.uniform(1.3, 2.5, 400)).round().astype(int)
    drawn = [rng.integers(0, 400, 400) for _ in range(2000)]
    ratios = [tokens[i].sum() / steps[i].sum() for i in drawn]
    found = relative_error(tokens.tolist(), steps.tolist())
    assert found == pytest.approx(np.std(ratios) / np.mean(ratios), rel=0.1)
    assert relative_error([4, 8], [2, 4]) == 0
