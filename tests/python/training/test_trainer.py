"""Properties of the native trainer that need no oracle."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from problem import Problem, make_problem, to_bf16

from medusa_native import InvalidArgument, MedusaError, _core


def train(problem: Problem, steps: int = 5, **options: Any) -> _core.Trainer:
    trainer = problem.trainer(**options)
    bits = options.get("compute_type") == "bfloat16"
    hidden = to_bf16(problem.hidden) if bits else problem.hidden
    for _ in range(steps):
        trainer.step(hidden, problem.rows, problem.targets, problem.roots)
    return trainer


def same_bits(a: _core.Trainer, b: _core.Trainer) -> bool:
    return all(
        np.array_equal(x, y)
        for group in ("weights", "mean", "square")
        for x, y in zip(getattr(a, group)().values(), getattr(b, group)().values(), strict=True)
    )


@pytest.mark.parametrize("grounded", [False, True])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("compute_type", ["float32", "bfloat16"])
def test_bits_do_not_depend_on_threads(version: int, compute_type: str, grounded: bool) -> None:
    problem = make_problem(500, hidden=96, vocab=300, grounded=grounded)
    options: dict[str, Any] = {"version": version, "compute_type": compute_type, "num_layers": 2}
    one = train(problem, num_threads=1, **options)
    for threads in (2, 3):
        assert same_bits(one, train(problem, num_threads=threads, **options))


def test_seeds_differ_and_repeat() -> None:
    problem = make_problem()
    a, b, c = (problem.trainer(seed=seed).weights()["0.0.linear.bias"] for seed in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert np.abs(a).max() <= 64**-0.5


def test_initial_heads_are_the_base_model() -> None:
    problem = make_problem()
    weights = problem.trainer(version=1).weights()
    assert np.array_equal(weights["2.1.weight"], problem.lm_head)
    assert not weights["2.0.linear.weight"].any()


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16"])
def test_grounded_heads_that_ignore_the_root_are_plain_heads(compute_type: str) -> None:
    plain, grounded = make_problem(50), make_problem(50, grounded=True)
    hidden = plain.hidden if compute_type == "float32" else to_bf16(plain.hidden)
    one, other = (p.trainer(compute_type=compute_type) for p in (plain, grounded))
    rng = np.random.default_rng(3)
    for name, array in one.weights().items():
        array[...] = 0.2 * rng.standard_normal(array.shape)
        other.weights()[name][..., : array.shape[-1]] = array
    one.refresh()
    other.refresh()
    expected = one.evaluate(hidden, plain.rows, plain.targets)
    found = other.evaluate(hidden, plain.rows, plain.targets, grounded.roots)
    assert np.array_equal(expected[1], found[1])
    assert np.array_equal(expected[0], found[0])


def test_the_embedding_lives_as_long_as_the_trainer() -> None:
    problem = make_problem(20, grounded=True)
    batch = (problem.hidden, problem.rows, problem.targets, problem.roots)
    expected = problem.trainer(0.1).evaluate(*batch)
    assert problem.embedding is not None
    trainer, table = problem.trainer(0.1), weakref.ref(problem.embedding)
    problem.embedding = None
    assert np.array_equal(trainer.evaluate(*batch)[0], expected[0])
    del trainer
    assert table() is None


def test_ranks_and_probabilities() -> None:
    problem = make_problem(50)
    trainer = problem.trainer(0.1)
    log_probs, ranks = trainer.evaluate(problem.hidden, problem.rows, problem.targets)
    w = trainer.weights()
    for head in range(problem.num_heads):
        z = problem.hidden @ w[f"{head}.0.linear.weight"].T + w[f"{head}.0.linear.bias"]
        logits = (problem.hidden + z / (1 + np.exp(-z))) @ problem.lm_head.T
        for row, target in enumerate(problem.targets[:, head]):
            if target < 0:
                assert (ranks[row, head], log_probs[row, head]) == (-1, 0)
                continue
            assert ranks[row, head] == (logits[row] > logits[row, target]).sum()
            expected = logits[row, target] - np.log(np.exp(logits[row].astype(np.float64)).sum())
            assert log_probs[row, head] == pytest.approx(expected, abs=1e-4)


def test_equal_logits_rank_by_index() -> None:
    problem = make_problem(3, vocab=40)
    problem.lm_head[:] = 0
    problem.targets[:] = [[0, 7, 39]] * 3
    _, ranks = problem.trainer().evaluate(problem.hidden, problem.rows, problem.targets)
    assert ranks.tolist() == [[0, 7, 39]] * 3


def test_a_loss_that_is_not_finite_stops_and_changes_nothing() -> None:
    problem = make_problem()
    trainer = train(problem, steps=2)
    before = {name: array.copy() for name, array in trainer.weights().items()}
    problem.hidden[5, 5] = np.nan
    with pytest.raises(MedusaError, match="step 3: the loss is nan"):
        trainer.step(problem.hidden, problem.rows, problem.targets)
    assert trainer.num_steps == 2
    assert all(np.array_equal(before[name], array) for name, array in trainer.weights().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 3}, "version must be 1 or 2, found 3"),
        ({"num_layers": 0}, "num_layers"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"head_decay": 0.0}, "head_decay"),
        ({"warmup_steps": 10, "total_steps": 10}, "warmup_steps"),
        ({"compute_type": "float16"}, "compute_type"),
    ],
)
def test_options_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        make_problem().trainer(**change)


def test_batches_out_of_range() -> None:
    problem = make_problem(10)
    trainer = problem.trainer()
    good = (problem.hidden, problem.rows, problem.targets)
    with pytest.raises(InvalidArgument, match="row 10 is outside"):
        trainer.step(good[0], good[1] + 1, good[2])
    with pytest.raises(InvalidArgument, match="target 100 is outside"):
        trainer.step(good[0], good[1], np.full_like(good[2], 100))
    with pytest.raises(InvalidArgument, match="at least one target"):
        trainer.step(good[0], good[1], np.full_like(good[2], -1))
    with pytest.raises(InvalidArgument, match="hidden must be"):
        trainer.step(good[0].astype(np.float64), good[1], good[2])
    with pytest.raises(InvalidArgument, match="hidden must be"):
        trainer.step(np.zeros((10, 32), np.float32), good[1], good[2])
    with pytest.raises(InvalidArgument, match="targets must be"):
        trainer.step(good[0], good[1], np.zeros((10, 2), np.int32))
    with pytest.raises(InvalidArgument, match="roots of plain heads: expected 0, found 10"):
        trainer.step(*good, np.zeros(10, np.int32))
    assert trainer.num_steps == 0


def test_roots_out_of_range() -> None:
    problem = make_problem(10, grounded=True)
    assert problem.embedding is not None
    trainer = problem.trainer()
    good = (problem.hidden, problem.rows, problem.targets)
    with pytest.raises(InvalidArgument, match="roots of grounded heads: expected 10, found 0"):
        trainer.step(*good)
    for root in (-1, 200):
        with pytest.raises(InvalidArgument, match=f"root {root} is outside \\[0, 200\\)"):
            trainer.step(*good, np.full(10, root, np.int32))
    problem.embedding = problem.embedding[:, :32].copy()
    with pytest.raises(InvalidArgument, match="embedding must be f32 or bf16 \\(N, 64\\)"):
        problem.trainer()
    assert trainer.num_steps == 0
