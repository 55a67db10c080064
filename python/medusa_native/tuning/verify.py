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
    repeats: int = 3,
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
    seconds: dict[tuple[int, int], list[float]] = defaultdict(list)
    steps: dict[int, int] = defaultdict(int)
    longest = max(len(a.prompt_token_ids) + len(a.token_ids) for a in answers)
    largest = _tree(paths, max(sizes))
    engine = _core.Engine(model, heads, largest, max_num_seqs=1, max_model_len=longest)
    with Meter("speed", repeats * len(answers) * len(sizes), shown=progress) as meter:
        for turn in range(repeats):
            for index, answer in enumerate(answers):
                for nodes in random.Random(turn * len(answers) + index).sample(sizes, len(sizes)):
                    found = _decode(engine, _tree(paths, nodes), answer)
                    seconds[nodes, index].append(found.decode_time)
                    steps[nodes] += found.num_steps if turn == 0 else 0
                    meter.update(meter.done + 1, f"{nodes} nodes")
    tokens = sum(len(answer.token_ids) - 1 for answer in answers)
    clock = {n: sum(statistics.median(seconds[n, i]) for i in range(len(answers))) for n in sizes}
    return [Speed(n, steps[n], tokens / steps[n], expectation[n], tokens / clock[n]) for n in sizes]


def _tree(paths: Paths, nodes: int) -> _core.Tree:
    return _core.Tree(list(paths[: nodes - 1])) if nodes > 1 else _core.Tree.root_only()


def _decode(engine: _core.Engine, tree: _core.Tree, answer: Answer) -> _core.Metrics:
    engine.set_tree(tree)
    params = _core.SamplingParams(max_tokens=len(answer.token_ids))
    request = engine.submit(answer.prompt_token_ids, params)
    while engine.has_unfinished():
        engine.step()
    metrics = engine.metrics(request)
    engine.forget(request)
    return metrics
