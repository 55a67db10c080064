"""AdamW, clipping and schedule against torch.optim, step by step."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from problem import Problem, make_problem
from torch_twin import Twin

from medusa_native import _core

OPTIONS: dict[str, Any] = {
    "learning_rate": 3e-3,
    "weight_decay": 0.05,
    "max_grad_norm": 0.5,
    "warmup_steps": 5,
    "total_steps": 50,
}


def pair(problem: Problem, version: int, **options: Any) -> tuple[_core.Trainer, Twin]:
    trainer = problem.trainer(0.1, version=version, **options)
    weights = {name: array.copy() for name, array in trainer.weights().items()}
    return trainer, Twin(
        weights, problem.lm_head, num_heads=problem.num_heads, num_layers=1, **options
    )


def assert_near(ours: npt.NDArray[np.float32], theirs: torch.Tensor) -> None:
    expected = theirs.numpy()
    assert np.abs(ours - expected).max() < 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("grounded", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_weights_and_moments_step_by_step(version: int, grounded: bool) -> None:
    problem = make_problem(64, grounded=grounded)
    trainer, twin = pair(problem, version, **OPTIONS)
    for _ in range(10):
        trainer.step(problem.hidden, problem.rows, problem.targets, problem.roots)
        for name, gradient in trainer.gradients().items():
            twin.weights[name].grad = torch.tensor(gradient, dtype=torch.float64)
        twin.update()
        for name, weight in twin.weights.items():
            state = twin.optimizer.state[weight]
            assert_near(trainer.weights()[name], weight.detach())
            assert_near(trainer.mean()[name], state["exp_avg"])
            assert_near(trainer.square()[name], state["exp_avg_sq"])


@pytest.mark.parametrize("grounded", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_the_loss_curve_of_fifty_steps(version: int, grounded: bool) -> None:
    problem = make_problem(600, grounded=grounded)
    trainer, twin = pair(problem, version, **OPTIONS)
    rng = np.random.default_rng(5)
    losses = []
    for _ in range(50):
        rows = rng.choice(600, 200, replace=False).astype(np.int64)
        targets = np.ascontiguousarray(problem.targets[rows])
        roots = None if problem.roots is None else problem.roots[rows]
        ours = trainer.step(problem.hidden, rows, targets, roots)
        x = torch.tensor(problem.inputs[rows], dtype=torch.float64)
        theirs = twin.step(x, torch.tensor(targets.astype(np.int64)))
        assert ours.loss == pytest.approx(theirs, rel=1e-5)
        losses.append(theirs)
    assert losses[-1] < 0.8 * losses[0]


def test_the_schedule_warms_up_and_reaches_zero() -> None:
    trainer = make_problem().trainer(learning_rate=1.0, warmup_steps=4, total_steps=12)
    rates = [trainer.learning_rate(step) for step in range(1, 13)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[7] == pytest.approx(0.5)
    assert rates[11] == pytest.approx(0.0, abs=1e-7)
    assert all(a > b for a, b in itertools.pairwise(rates[3:]))


def test_clipping_scales_the_gradient_to_the_limit() -> None:
    problem = make_problem()
    free, clipped = (problem.trainer(0.1, max_grad_norm=limit) for limit in (0.0, 0.01))
    for trainer in (free, clipped):
        report = trainer.step(problem.hidden, problem.rows, problem.targets)
        assert report.grad_norm > 0.01
    ratio = 0.01 / report.grad_norm
    for name, mean in free.mean().items():
        assert np.allclose(clipped.mean()[name], mean * ratio, rtol=1e-4, atol=1e-12)
