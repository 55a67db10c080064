"""Gradients against torch's automatic differentiation in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from problem import Problem, from_bf16, make_problem, to_bf16
from torch_twin import Twin

from medusa_native import _core


def relative(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float64]) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def twin_of(problem: Problem, trainer: _core.Trainer, num_layers: int) -> Twin:
    twin = Twin(
        trainer.weights(), problem.lm_head, num_heads=problem.num_heads, num_layers=num_layers
    )
    targets = torch.tensor(problem.targets.astype(np.int64))
    twin.loss(torch.tensor(problem.inputs, dtype=torch.float64), targets).backward()
    return twin


@pytest.mark.parametrize("grounded", [False, True])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize(("rows", "vocab"), [(1, 33), (37, 100), (800, 130), (384, 16)])
def test_float32(version: int, num_layers: int, rows: int, vocab: int, grounded: bool) -> None:
    problem = make_problem(rows, vocab=vocab, grounded=grounded)
    problem.targets[0] = 3
    trainer = problem.trainer(0.1, version=version, num_layers=num_layers)
    report = trainer.backward(problem.hidden, problem.rows, problem.targets, problem.roots)
    twin = twin_of(problem, trainer, num_layers)
    norm = sum(float((w.grad**2).sum()) for w in twin.weights.values()) ** 0.5
    assert report.grad_norm == pytest.approx(norm, rel=1e-5)
    for name, gradient in trainer.gradients().items():
        assert relative(gradient, twin.weights[name].grad.numpy()) < 5e-6, name


@pytest.mark.parametrize("grounded", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_bfloat16_products_are_near(version: int, grounded: bool) -> None:
    problem = make_problem(500, hidden=128, grounded=grounded)
    problem.hidden = from_bf16(to_bf16(problem.hidden))
    if problem.embedding is not None:
        problem.embedding = from_bf16(to_bf16(problem.embedding))
    trainer = problem.trainer(0.05, version=version, num_layers=2, compute_type="bfloat16")
    trainer.backward(to_bf16(problem.hidden), problem.rows, problem.targets, problem.roots)
    twin = twin_of(problem, trainer, 2)
    for name, gradient in trainer.gradients().items():
        assert relative(gradient, twin.weights[name].grad.numpy()) < 0.03, name


def test_losses_and_accuracies() -> None:
    problem = make_problem(500)
    trainer = problem.trainer(0.1)
    report = trainer.backward(problem.hidden, problem.rows, problem.targets)
    twin = twin_of(problem, trainer, 1)
    x = torch.tensor(problem.hidden, dtype=torch.float64)
    for head in range(problem.num_heads):
        targets = torch.tensor(problem.targets[:, head].astype(np.int64))
        logits = twin.logits(head, x).detach()
        loss = torch.nn.functional.cross_entropy(logits, targets, ignore_index=-1)
        right = (logits.argmax(dim=1) == targets)[targets >= 0].double().mean()
        assert report.head_loss[head] == pytest.approx(float(loss), rel=1e-6)
        assert report.head_accuracy[head] == pytest.approx(float(right))
    total = sum(0.8**k * loss for k, loss in enumerate(report.head_loss))
    assert report.loss == pytest.approx(total)


def test_a_head_without_targets_gets_no_gradient() -> None:
    problem = make_problem(50)
    problem.targets[:, 1] = -1
    trainer = problem.trainer(0.1)
    report = trainer.backward(problem.hidden, problem.rows, problem.targets)
    assert report.head_loss[1] == 0
    assert not trainer.gradients()["1.0.linear.weight"].any()
    assert trainer.gradients()["0.0.linear.weight"].any()


@pytest.mark.parametrize("grounded", [False, True])
def test_rows_choose_and_repeat(grounded: bool) -> None:
    problem = make_problem(50, grounded=grounded)
    rows = np.array([3, 3, 41, 0], dtype=np.int64)
    trainer, other = problem.trainer(0.1), problem.trainer(0.1)
    targets = np.ascontiguousarray(problem.targets[rows])
    roots = None if problem.roots is None else problem.roots[rows]
    trainer.backward(problem.hidden, rows, targets, roots)
    other.backward(np.ascontiguousarray(problem.hidden[rows]), np.arange(4), targets, roots)
    for name, gradient in trainer.gradients().items():
        assert np.array_equal(gradient, other.gradients()[name])
