"""Expected against measured: the same answers, decoded with trees of several sizes."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from medusa_native import _core
from medusa_native.training.progress import Meter
from medusa_native.tuning.replay import first_size, tokens_per_step
from medusa_native.tuning.step_cost import prefix_tree, union_tree

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native.training.records import Answer
    from medusa_native.tuning.record import StepCost

Paths = Sequence[Sequence[int]]
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Speed:
    """One tree size, decoding one sequence: figures after the first token of each answer.

    Attributes
    ----------
    steps
        Decoding steps of all answers together.
    expected, measured
        Tokens a second: from the paths and the measured step cost, and from decoding.
    """

    nodes: int
    steps: int
    tokens_per_step: float
    expected: float
    measured: float


@dataclass(frozen=True)
class Decoded:
    """Answers, decoded with one tree.

    Attributes
    ----------
    steps
        Of each answer, those that brought its first token left out.
    seconds
        Of each answer after its first token, by the clock.
    step_seconds
        Of each answer, the median step: what a busy moment of the machine does not touch.
    """

    steps: tuple[int, ...]
    seconds: tuple[float, ...]
    step_seconds: tuple[float, ...]

    @property
    def usual_seconds(self) -> float:
        """Seconds of all steps, had each taken as long as the median one of its answer."""
        return float(np.dot(self.steps, self.step_seconds))


def seconds_at(costs: Sequence[StepCost], context: float, nodes: int) -> float:
    """Seconds of a step of one sequence, between measured contexts on a straight line."""
    single = sorted((c for c in costs if c.batch == 1), key=lambda cost: cost.context)
    seconds = [cost.at(nodes) for cost in single]
    return float(np.interp(context, [cost.context for cost in single], seconds))


def expect(
    ranks: npt.NDArray[np.int32],
    first_row: Sequence[int],
    paths: Paths,
    costs: Sequence[StepCost],
    context: float,
) -> list[tuple[int, float]]:
    """Return the tokens a second to expect, for every size that was timed at all contexts."""
    first = first_size(ranks, paths)
    single = [set(cost.nodes) for cost in costs if cost.batch == 1]
    sizes = sorted(set.intersection(*single))
    return [
        (nodes, tokens_per_step(first, first_row, nodes) / seconds_at(costs, context, nodes))
        for nodes in sizes
    ]


def mean_context(answers: Sequence[Answer]) -> float:
    """Positions in the cache at a step, averaged over the tokens of all answers."""
    positions = [len(a.prompt_token_ids) + len(a.token_ids) / 2 for a in answers]
    weights = [len(a.token_ids) for a in answers]
    return float(np.average(positions, weights=weights))


def beginning(answer: Answer, num_tokens: int) -> Answer:
    """Return an answer as it is with its first tokens alone."""
    return replace(answer, token_ids=answer.token_ids[:num_tokens])


def measure_speeds(
    model: _core.Model,
    heads: _core.Heads,
    paths: Paths,
    answers: Sequence[Answer],
    expected: Sequence[tuple[int, float]],
    *,
    progress: bool | None = None,
) -> list[Speed]:
    """Decode `answers` greedily with trees of several sizes, in turns; median steps count.

    Parameters
    ----------
    paths
        Best first; a tree of n nodes is the first n - 1.
    expected
        Tokens a second by size; sizes of `SIZES` that are among them are measured.
    """
    expectation = dict(expected)
    sizes = [nodes for nodes in SIZES if nodes in expectation]
    trees = [prefix_tree(paths, nodes) for nodes in sizes]
    tokens = sum(len(answer.token_ids) - 1 for answer in answers)
    speeds = []
    found = decode_in_turns(model, heads, trees, answers, progress=progress)
    for nodes, decoded in zip(sizes, found, strict=True):
        steps, measured = sum(decoded.steps), tokens / decoded.usual_seconds
        speeds.append(Speed(nodes, steps, tokens / steps, expectation[nodes], measured))
    return speeds


def decode_in_turns(
    model: _core.Model,
    heads: _core.Heads,
    trees: Sequence[_core.Tree],
    answers: Sequence[Answer],
    *,
    progress: bool | None = None,
) -> list[Decoded]:
    """Decode answers greedily, one at a time, with every tree in turn on one engine."""
    longest = max(len(a.prompt_token_ids) + len(a.token_ids) for a in answers)
    engine = _core.Engine(model, heads, union_tree(trees), max_num_seqs=1, max_model_len=longest)
    found: list[list[tuple[int, float, float]]] = [[] for _ in trees]
    order = list(range(len(trees)))
    with Meter("speed", len(answers) * len(trees), shown=progress) as meter:
        for number, answer in enumerate(answers):
            random.Random(number).shuffle(order)
            for index in order:
                found[index].append(_decode(engine, trees[index], answer))
                meter.update(meter.done + 1, f"{trees[index].size} nodes")
    return [Decoded(*zip(*runs, strict=True)) for runs in found]


def _decode(engine: _core.Engine, tree: _core.Tree, answer: Answer) -> tuple[int, float, float]:
    """Return steps, seconds and the median step of one answer after its first token."""
    engine.set_tree(tree)
    params = _core.SamplingParams(max_tokens=len(answer.token_ids))
    request = engine.submit(answer.prompt_token_ids, params)
    times: list[float] = []
    while engine.has_unfinished():
        if engine.step():
            times.append(time.perf_counter())
    metrics = engine.metrics(request)
    engine.forget(request)
    return metrics.num_steps, metrics.decode_time, float(np.median(np.diff(times)))
