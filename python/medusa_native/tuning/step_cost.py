"""What a step costs on this device: real engine steps, timed for trees of many sizes.

A step is everything from one accepted token to the next: draft, forward pass, acceptance, commit
and heads. All sizes take turns, in an order that is drawn anew each round, and the median of all
rounds counts, so that a busy moment or a growing context favours none.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

from medusa_native import _core
from medusa_native.errors import InvalidArgument
from medusa_native.training.progress import Meter
from medusa_native.tuning.record import StepCost

MAX_ROWS = 128
MAX_CACHED = 2048  # positions of all sequences of one measurement
_UNTIMED, _TIMED = 1, 3  # steps with one size before the next: the first has guesses for the last
_FINE = (*range(1, 13), 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)
_COARSE = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def sizes_to_measure(max_nodes: int, batch: int = 1) -> list[int]:
    """Small sizes, then wider and wider apart, the largest included; fewer for many sequences."""
    grid = [*(_FINE if batch == 1 else _COARSE), *range(80, max_nodes, 16)]
    return [*(n for n in grid if n < max_nodes), max_nodes]


def cells(
    contexts: Sequence[int], batches: Sequence[int], max_length: int
) -> list[tuple[int, int]]:
    """Pairs of context and batch that fit the model and `MAX_CACHED`; one sequence always may."""
    return [
        (context, batch)
        for context in contexts
        for batch in batches
        if _longest(context) <= max_length and (batch == 1 or context * batch <= MAX_CACHED)
    ]


def measure_steps(
    model: _core.Model,
    heads: _core.Heads,
    paths: Sequence[Sequence[int]],
    tokens: Sequence[int],
    *,
    contexts: Sequence[int] = (128, 512, 2048),
    batches: Sequence[int] = (1, 2, 4, 8),
    max_nodes: int = 64,
    repeats: int = 3,
    progress: bool | None = None,
) -> list[StepCost]:
    """Time engine steps for every context, batch size and tree size.

    Parameters
    ----------
    paths
        Best first; a tree of n nodes is the first n - 1.
    tokens
        Text to fill the contexts with; repeated where it is short.
    max_nodes
        Of a tree; trees of all sequences together have at most `MAX_ROWS`, or `max_nodes` if that
        is more.
    repeats
        Rounds; each gives three samples.

    Raises
    ------
    InvalidArgument
        No context fits the model.
    """
    measured = cells(contexts, batches, model.config.max_position_embeddings)
    if not measured:
        raise InvalidArgument(
            f"tune: no context of {list(contexts)} fits the model's "
            f"{model.config.max_position_embeddings} positions"
        )
    max_nodes = min(max_nodes, len(paths) + 1)
    samples: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    with Meter("step cost", repeats * len(measured), shown=progress) as meter:
        for turn in range(repeats):
            for context, batch in measured:
                most = max(min(max_nodes, max(MAX_ROWS, max_nodes) // batch), 1)
                sizes = sizes_to_measure(most, batch)
                trees = [prefix_tree(paths, nodes) for nodes in sizes]
                timer = StepTimer(model, heads, trees, tokens, context, batch)
                for index, seconds in timer.run(turn):
                    samples[context, batch, sizes[index]].append(seconds)
                meter.update(meter.done + 1, f"context {context}, {batch} sequences")
    return [_cost(samples, context, batch) for context, batch in measured]


def prefix_tree(paths: Sequence[Sequence[int]], nodes: int) -> _core.Tree:
    """Return the tree of the root and the first `nodes` - 1 paths."""
    return _core.Tree(paths[: nodes - 1]) if nodes > 1 else _core.Tree.root_only()


def union_tree(trees: Sequence[_core.Tree]) -> _core.Tree:
    """Return the smallest tree that holds all of `trees`: what an engine must have room for."""
    paths = sorted({tuple(path) for tree in trees for path in tree.paths})
    return _core.Tree(paths) if paths else _core.Tree.root_only()


def _cost(samples: dict[tuple[int, int, int], list[float]], context: int, batch: int) -> StepCost:
    cell = {n: times for (c, b, n), times in samples.items() if (c, b) == (context, batch)}
    nodes = sorted(cell)
    seconds = non_decreasing([statistics.median(cell[n]) for n in nodes])
    return StepCost(context, batch, tuple(nodes), tuple(round(s, 8) for s in seconds))


def non_decreasing(values: Sequence[float]) -> list[float]:
    """Return the nearest values, by squares, that never fall: a larger tree never costs less.

    Pool adjacent violators (Barlow et al. 1972). Without it the size of a tree would be chosen by
    the luckiest of the timings.
    """
    pools: list[tuple[float, int]] = []  # mean and count, means rising
    for value in values:
        mean, count = value, 1
        while pools and pools[-1][0] >= mean:
            before, members = pools.pop()
            mean = (before * members + mean * count) / (members + count)
            count += members
        pools.append((mean, count))
    return [mean for mean, count in pools for _ in range(count)]


def _growth(context: int) -> int:
    """How far a sequence may grow before it is begun anew."""
    return max(context // 4, 32)


def _longest(context: int) -> int:
    """Return the positions of a sequence at most; the last visit may go beyond the growth."""
    return context + 2 * _growth(context) + 64


def _text_from(tokens: Sequence[int], start: int, size: int) -> list[int]:
    """Return `size` tokens from `start` on, going round: sequences share no pages, as in use."""
    return list(itertools.islice(itertools.cycle(tokens), start, start + size))


class StepTimer:
    """One engine whose sequences are held near one context, for steps with any of `trees`."""

    def __init__(
        self,
        model: _core.Model,
        heads: _core.Heads,
        trees: Sequence[_core.Tree],
        tokens: Sequence[int],
        context: int,
        batch: int = 1,
    ) -> None:
        self._trees = list(trees)
        self._growth = _growth(context)
        self._grown = 0
        self._running: list[int] = []
        size = max(context - self._growth // 2, 1)
        self._prompts = [_text_from(tokens, i * len(tokens) // batch, size) for i in range(batch)]
        self._engine = _core.Engine(
            model,
            heads,
            union_tree(trees),
            max_num_seqs=batch,
            max_model_len=_longest(context),
        )

    def run(self, seed: int) -> Iterator[tuple[int, float]]:
        """Yield the index of a tree and the seconds of one step with it, all trees in turn."""
        order = list(range(len(self._trees)))
        random.Random(seed).shuffle(order)
        for index in order:
            if not self._running or self._grown > self._growth:
                self._begin()
            self._engine.set_tree(self._trees[index])
            for _ in range(_UNTIMED):
                self._step()
            for _ in range(_TIMED):
                start = time.perf_counter()
                self._step()
                yield index, time.perf_counter() - start

    def _begin(self) -> None:
        """Put every sequence at the context's start."""
        for request in self._running:
            self._engine.forget(request)
        length = self._engine.options.max_model_len - len(self._prompts[0])
        params = _core.SamplingParams(max_tokens=length)
        self._running = [self._engine.submit(prompt, params) for prompt in self._prompts]
        waiting = set(self._running)
        while waiting:
            waiting -= {output.request_id for output in self._engine.step()}
        self._grown = 0

    def _step(self) -> None:
        outputs = self._engine.step()
        self._grown += max(len(output.tokens) for output in outputs)
