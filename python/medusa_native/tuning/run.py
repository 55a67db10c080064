"""Tuning: the tree that makes given heads fastest on this device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_native.checks import check_integer
from medusa_native.engine import load_model, pack_heads
from medusa_native.errors import InvalidArgument
from medusa_native.heads import SHIPPED, open_heads
from medusa_native.loading import load_checkpoint
from medusa_native.training.answering import AnswerSettings
from medusa_native.training.records import read_prompts
from medusa_native.tuning.calibration import (
    answer_prompts,
    check_source,
    load_answers,
    rank_answers,
    spread,
)
from medusa_native.tuning.paths import fit_paths
from medusa_native.tuning.record import DeviceTuning, PathTable, Tuning, best_size, speeds
from medusa_native.tuning.replay import first_size, tokens_per_step
from medusa_native.tuning.step_cost import measure_steps
from medusa_native.tuning.store import device_key, heads_fingerprint, store_tuning
from medusa_native.tuning.verify import Speed, beginning, expect, mean_context, measure_speeds

if TYPE_CHECKING:
    from medusa_native.loading import Checkpoint
    from medusa_native.training.records import Prompt
    from medusa_native.tuning.calibration import Calibration
    from medusa_native.tuning.record import StepCost

CONTEXTS = (128, 512, 2048)
BATCHES = (1, 2, 4, 8)
_VERIFIED, _VERIFIED_TOKENS = 8, 48  # answers that are decoded again, and how much of them


@dataclass(frozen=True)
class TuneReport:
    """What `tune` found, and where it is stored.

    Attributes
    ----------
    expected
        Nodes and tokens a second of one sequence, for the answers and contexts of `speeds`.
    speeds
        Trees of several sizes, decoding some of the answers.
    """

    path: Path
    tuning: Tuning
    device: DeviceTuning
    expected: list[tuple[int, float]]
    speeds: list[Speed]

    @property
    def tree_paths(self) -> tuple[tuple[int, ...], ...]:
        """Paths of the tree that was chosen."""
        return self.tuning.table.paths[: self.device.nodes - 1]

    @property
    def tokens_per_step(self) -> float:
        """Of the tree that was chosen."""
        return self.tuning.table.tokens_per_step[self.device.nodes - 1]

    def best_of(self, cost: StepCost) -> tuple[int, float, float]:
        """Nodes and tokens a second of the fastest tree, and plain decoding's tokens a second."""
        by_size = dict(speeds(cost, self.tuning.table.tokens_per_step))
        nodes = best_size(cost, self.tuning.table.tokens_per_step)
        return nodes, by_size[nodes], by_size[1]


def tune(
    model: str | Path,
    heads: str | Path,
    prompts: str | Path | None = None,
    *,
    answers: str | Path | None = None,
    limit: int = 200,
    max_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    max_nodes: int = 64,
    contexts: Sequence[int] = CONTEXTS,
    batches: Sequence[int] = BATCHES,
    repeats: int = 3,
    dtype: str = "auto",
    num_threads: int | None = None,
    progress: bool | None = None,
) -> TuneReport:
    """Find the tree that gives the most tokens a second, and store it for ``"auto"``.

    Measured are, on the model's own answers, how often each path of ranks is right, and on this
    device what a step costs for trees of every size. Interrupting it stores nothing.

    Parameters
    ----------
    model
        A GGUF file, a Hugging Face folder or a hub id.
    heads
        A folder, a file, a hub id, or the name of a set that ships; ``"auto"``: the one shipped
        for this model.
    prompts
        JSON Lines with ``prompt`` or ``messages``, which the model answers first.
    answers
        Instead of prompts: answers that `distill` wrote.
    limit
        Answers to look at.
    max_tokens, temperature, seed
        Of the answers to prompts.
    max_nodes
        Of the largest tree, root included.
    contexts
        Lengths at which steps are timed; those beyond the model are left out. The tree is chosen
        for one sequence at the middle one.
    batches
        Sequences that share a step; one alone is always measured too.
    repeats
        Rounds of timing.
    dtype, num_threads
        As of `Decoder`; the result holds for these alone.
    progress
        Show it on standard error; None: when that is a terminal.

    Raises
    ------
    InvalidArgument
        A parameter is out of range, a file cannot be read, or the result cannot be written.
    """
    check_source(prompts, answers)
    _check(limit, max_nodes, repeats, contexts, batches)
    listed = [] if prompts is None else spread(read_prompts(Path(prompts)), limit)
    run = _Run(load_checkpoint(model), heads, dtype, num_threads or 0, progress)
    if answers is not None:
        run.read_answers(answers, limit)
    else:
        run.answer(listed, AnswerSettings(max_tokens, temperature, seed=seed))
    table = path_table(run.rank(), max_nodes)
    costs = run.time_steps(
        table,
        contexts=contexts,
        batches=sorted({1, *batches}),
        max_nodes=max_nodes,
        repeats=repeats,
    )
    tuning, device = run.choose(table, costs)
    expected, found = run.verify(table, costs)
    return TuneReport(run.store(tuning), tuning, device, expected, found)


class _Run:
    """One model with its heads, and answers of it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        heads: str | Path,
        dtype: str,
        num_threads: int,
        progress: bool | None,
    ) -> None:
        self._checkpoint = checkpoint
        self._heads = open_heads(heads, checkpoint)
        named = not Path(heads).exists()  # and not given as a path, which is to be written to
        self._shipped = named and SHIPPED in self._heads.path.parents
        self._shown = progress
        self._vocab = int(checkpoint.config["vocab_size"])
        self._longest = int(checkpoint.config["max_position_embeddings"])
        self._model = load_model(checkpoint, dtype, num_threads)
        self._packed = pack_heads(self._model, self._heads)

    def read_answers(self, path: str | Path, limit: int) -> None:
        """Take answers that `distill` wrote."""
        self._dataset = load_answers(path, self._vocab, self._longest, limit)

    def answer(self, prompts: Sequence[Prompt], settings: AnswerSettings) -> None:
        """Let the model answer prompts."""
        tokenizer = self._checkpoint.tokenizer
        self._dataset = answer_prompts(
            self._model, tokenizer, prompts, settings, progress=self._shown
        )

    def rank(self) -> Calibration:
        """Ask the heads at every row of the answers."""
        self._ranks = rank_answers(self._model, self._packed, self._dataset, progress=self._shown)
        return self._ranks

    def time_steps(self, table: PathTable, **options: Any) -> list[StepCost]:
        """Time engine steps over text of the answers."""
        answers = self._dataset.answers[:64]
        text = [token for answer in answers for token in answer.token_ids]
        return measure_steps(
            self._model, self._packed, table.paths, text, progress=self._shown, **options
        )

    def choose(self, table: PathTable, costs: list[StepCost]) -> tuple[Tuning, DeviceTuning]:
        """Take the size that is fastest for one sequence at the middle context."""
        reference = reference_cost(costs)
        key = device_key(self._model)
        nodes = best_size(reference, table.tokens_per_step)
        device = DeviceTuning(key, nodes, reference.context, tuple(costs))
        return Tuning(heads_fingerprint(self._heads), table, (device,)), device

    def verify(
        self, table: PathTable, costs: list[StepCost]
    ) -> tuple[list[tuple[int, float]], list[Speed]]:
        """Decode some of the answers again, with trees of several sizes."""
        first = self._dataset.first_row
        chosen = spread(range(len(self._dataset.answers)), _VERIFIED)
        answers = [beginning(self._dataset.answers[i], _VERIFIED_TOKENS) for i in chosen]
        ranks = [
            self._ranks.ranks[first[i] :][: len(answer.token_ids) - 1]
            for i, answer in zip(chosen, answers, strict=True)
        ]
        bounds = np.cumsum([0, *map(len, ranks)]).tolist()
        context = mean_context(answers)
        expected = expect(np.concatenate(ranks), bounds, table.paths, costs, context)
        found = measure_speeds(
            self._model, self._packed, table.paths, answers, expected, progress=self._shown
        )
        return expected, found

    def store(self, tuning: Tuning) -> Path:
        """Keep the result where loading the heads finds it."""
        return store_tuning(tuning, self._heads, shipped=self._shipped)


def path_table(calibration: Calibration, max_nodes: int) -> PathTable:
    """Return the best paths, and what trees of every size yield on these answers."""
    best = fit_paths(calibration.ranks, calibration.num_ranks).best_paths(max_nodes - 1)
    if not best:
        raise InvalidArgument("tune: no guess of any head was right on these answers")
    paths = tuple(path for path, _ in best)
    first = first_size(calibration.ranks, paths)
    return PathTable(
        paths,
        tuple(_rounded(probability) for _, probability in best),
        tuple(
            _rounded(tokens_per_step(first, calibration.first_row, nodes))
            for nodes in range(1, len(paths) + 2)
        ),
        len(calibration.ranks),
    )


def reference_cost(costs: Sequence[StepCost]) -> StepCost:
    """Return the measurement a tree is chosen by: one sequence, the middle context."""
    single = sorted((c for c in costs if c.batch == 1), key=lambda cost: cost.context)
    return single[(len(single) - 1) // 2]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _check(
    limit: int, max_nodes: int, repeats: int, contexts: Sequence[int], batches: Sequence[int]
) -> None:
    check_integer("tune", "limit", limit, 2)
    check_integer("tune", "max_nodes", max_nodes, 2, 256)
    check_integer("tune", "repeats", repeats, 1)
    for name, values in (("contexts", contexts), ("batches", batches)):
        if not values:
            raise InvalidArgument(f"tune: {name} is empty")
        for value in values:
            check_integer("tune", name, value, 1)
