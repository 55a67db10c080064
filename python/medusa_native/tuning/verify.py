"""Expected against measured: the same answers, decoded with trees of several sizes."""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
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
SIZES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


@dataclass(frozen=True)
class Speed:
    """One tree size, decoding one sequence: figures after the first token of each answer.

    Attributes
    ----------
    steps
        Decoding steps of all answers together.
    expected, measured
        Tokens a second: from the paths and the measured step cost, and by the clock.
    """

    nodes: int
    steps: int
    tokens_per_step: float
    expected: float
    measured: float


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


def measure_speeds(
    model: _core.Model,
    heads: _core.Heads,
    paths: Paths,
    answers: Sequence[Answer],
    expected: Sequence[tuple[int, float]],
    *,
    repeats: int = 1,
    progress: bool | None = None,
) -> list[Speed]:
    """Decode `answers` greedily with trees of several sizes, in turns.

    Parameters
    ----------
    paths
        Best first; a tree of n nodes is the first n - 1.
    expected
        Tokens a second by size; sizes of `SIZES` that are among them are measured.
    repeats
        Times each answer is decoded with each size; the median counts.
    """
    expectation = dict(expected)
    sizes = [nodes for nodes in SIZES if nodes in expectation]
    trees = [prefix_tree(paths, nodes) for nodes in sizes]
    found = decode_in_turns(model, heads, trees, answers, repeats=repeats, progress=progress)
    tokens = sum(len(answer.token_ids) - 1 for answer in answers)
    return [
        Speed(nodes, steps, tokens / steps, expectation[nodes], tokens / seconds)
        for nodes, (steps, seconds) in zip(sizes, found, strict=True)
    ]


def decode_in_turns(
    model: _core.Model,
    heads: _core.Heads,
    trees: Sequence[_core.Tree],
    answers: Sequence[Answer],
    *,
    repeats: int = 3,
    progress: bool | None = None,
) -> list[tuple[int, float]]:
    """Decode answers greedily, one at a time, with every tree in turn on one engine.

    Returns
    -------
    list
        Of each tree: steps of all answers together, and seconds after their first tokens, of each
        answer the median of `repeats`.
    """
    seconds: dict[tuple[int, int], list[float]] = defaultdict(list)
    steps = [0] * len(trees)
    longest = max(len(a.prompt_token_ids) + len(a.token_ids) for a in answers)
    engine = _core.Engine(model, heads, union_tree(trees), max_num_seqs=1, max_model_len=longest)
    order = list(range(len(trees)))
    with Meter("speed", repeats * len(answers) * len(trees), shown=progress) as meter:
        for turn in range(repeats):
            for number, answer in enumerate(answers):
                random.Random(turn * len(answers) + number).shuffle(order)
                for index in order:
                    found = _decode(engine, trees[index], answer)
                    seconds[index, number].append(found.decode_time)
                    steps[index] += found.num_steps if turn == 0 else 0
                    meter.update(meter.done + 1, f"{trees[index].size} nodes")
    clock = [
        sum(statistics.median(seconds[index, number]) for number in range(len(answers)))
        for index in range(len(trees))
    ]
    return list(zip(steps, clock, strict=True))


def _decode(engine: _core.Engine, tree: _core.Tree, answer: Answer) -> _core.Metrics:
    engine.set_tree(tree)
    params = _core.SamplingParams(max_tokens=len(answer.token_ids))
    request = engine.submit(answer.prompt_token_ids, params)
    while engine.has_unfinished():
        engine.step()
    metrics = engine.metrics(request)
    engine.forget(request)
    return metrics
