"""Which tree: the tuned one, the reference's stock tree and the top-1 chain, on the same prompts.

The tree is tuned on the answers to some prompts and measured on others: those of a second file, or
of the same one, held out. Expected are the tokens a step of the prompts it was tuned on and the
seconds of a step that stands alone; measured is decoding, all trees in turns on one engine, steps
that stand alone timed after every answer. Medians count, so that a busy moment favours neither side.

    python benchmarks/trees.py --calibration train.jsonl
    python benchmarks/trees.py --calibration train.jsonl --prompts dev.jsonl
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np

from medusa_native import _core
from medusa_native.engine import load_model, pack_heads
from medusa_native.heads import open_heads
from medusa_native.loading import load_checkpoint
from medusa_native.training.answering import AnswerSettings
from medusa_native.training.dataset import Dataset
from medusa_native.training.records import Prompt, read_prompts
from medusa_native.tuning.calibration import Calibration, answer_prompts, rank_answers, spread
from medusa_native.tuning.plot import plot_speeds
from medusa_native.tuning.record import PathTable, StepCost, best_size, speeds
from medusa_native.tuning.replay import first_size, relative_error, steps_of_answers
from medusa_native.tuning.run import path_table
from medusa_native.tuning.step_cost import StepTimer, measure_steps, prefix_tree
from medusa_native.tuning.verify import Decoded, Speed, decode_in_turns, mean_context

Trees = dict[str, _core.Tree]


@dataclass(frozen=True)
class Loaded:
    """A model with its heads."""

    model: _core.Model
    heads: _core.Heads
    tokenizer: Any

    def answer(self, prompts: list[Prompt], max_tokens: int) -> Dataset:
        return answer_prompts(self.model, self.tokenizer, prompts, AnswerSettings(max_tokens))


def load(args: argparse.Namespace) -> Loaded:
    checkpoint = load_checkpoint(common.resolve_model(args.model))
    model = load_model(checkpoint, args.dtype, args.threads)
    heads = pack_heads(model, open_heads(args.heads, checkpoint))
    return Loaded(model, heads, checkpoint.tokenizer)


def choose_prompts(args: argparse.Namespace) -> tuple[list[Prompt], list[Prompt]]:
    """Return prompts to tune on and others to measure on."""
    listed = read_prompts(Path(args.calibration))
    if args.prompts is not None:
        return spread(listed, args.calibration_limit), spread(
            read_prompts(Path(args.prompts)), args.limit
        )
    chosen = spread(listed, args.calibration_limit + args.limit)
    measured = spread(chosen, args.limit)
    held_out = {prompt.key for prompt in measured}
    return [prompt for prompt in chosen if prompt.key not in held_out], measured


def contenders(table: PathTable, nodes: int, num_heads: int) -> Trees:
    """Return all trees; of the stock tree, made for five heads, what is no deeper than ours."""
    stock = [p for p in _core.Tree.stock_paths("mc_sim_7b_63") if len(p) <= num_heads]
    largest = len(table.paths) + 1
    return {
        "plain": _core.Tree.root_only(),
        "chain": _core.Tree.chain(num_heads),
        "mc_sim_7b_63": _core.Tree(stock),
        "tuned": prefix_tree(table.paths, nodes),
        "tuned_16": prefix_tree(table.paths, min(16, largest)),
        "tuned_64": prefix_tree(table.paths, min(64, largest)),
    }


def measure(
    loaded: Loaded, trees: Trees, data: Dataset, context: int
) -> dict[str, tuple[Decoded, list[float]]]:
    """Decode the answers; after each of them time steps, of which the median is returned."""
    listed, text = list(trees.values()), text_of(data)
    runs: list[list[Decoded]] = [[] for _ in listed]
    timed: list[list[float]] = [[] for _ in listed]
    for number, answer in enumerate(data.answers):
        found = decode_in_turns(loaded.model, loaded.heads, listed, [answer])
        timer = StepTimer(loaded.model, loaded.heads, listed, text, context)
        samples = [*timer.run(2 * number), *timer.run(2 * number + 1)]
        for index, run in enumerate(found):
            runs[index].append(run)
            timed[index].append(statistics.median(s for i, s in samples if i == index))
        print(f"{number + 1}/{len(data.answers)}", end="\r", file=sys.stderr, flush=True)
    return {
        name: (joined(run), seconds) for name, run, seconds in zip(trees, runs, timed, strict=True)
    }


def joined(runs: list[Decoded]) -> Decoded:
    """Return runs over single answers as one."""
    fields = ("steps", "seconds", "step_seconds")
    return Decoded(*(sum((getattr(run, field) for run in runs), ()) for field in fields))


def figures_of(
    tree: _core.Tree, calibration: Calibration, timed: list[float], data: Dataset, run: Decoded
) -> dict[str, Any]:
    """Hold what is expected of one tree against what was measured.

    Step times are compared answer by answer, each with those timed right after it, and the median
    ratio counts: a machine that is slow for a while is so for both.
    """
    first = first_size(calibration.ranks, sorted(tree.paths, key=len))
    replayed = steps_of_answers(first, calibration.first_row, tree.size)
    rows, known = np.diff(data.first_row), np.diff(calibration.first_row)
    expected, tokens, steps = known.sum() / replayed.sum(), rows.sum(), sum(run.steps)
    length, usual = tokens / steps, run.usual_seconds
    off = float(np.median(np.divide(run.step_seconds, timed)))
    seconds = usual / steps / off
    errors = relative_error(rows, run.steps), relative_error(known, replayed)
    return {
        "nodes": tree.size,
        "tokens_a_step_expected": expected,
        "tokens_a_step": length,
        "tokens_a_step_off": length / expected - 1,
        "standard_error_of_off": math.hypot(*errors),
        "step_ms_expected": 1e3 * seconds,
        "step_ms": 1e3 * usual / steps,
        "step_off": off - 1,
        "tokens_per_second_expected": expected / seconds,
        "tokens_per_second": tokens / usual,
        "tokens_per_second_off": tokens / usual / (expected / seconds) - 1,
        "tokens_per_second_by_clock": tokens / sum(run.seconds),
    }


def against_plain(run: Decoded, plain: Decoded) -> float:
    """Return how many times as fast, the median over answers, each by the clock."""
    pairs = zip(plain.seconds, run.seconds, strict=True)
    return statistics.median(slow / fast for slow, fast in pairs)


def draw(by_name: dict[str, Any], cost: StepCost, table: PathTable) -> Path:
    """Plot tokens a second over the size of the tuned tree, beside its results."""
    tuned = [by_name[name] for name in by_name if name == "plain" or "tuned" in name]
    discs = [
        Speed(
            f["nodes"], 0, f["tokens_a_step"], f["tokens_per_second_expected"],
            f["tokens_per_second"],
        )
        for f in tuned
    ]  # fmt: skip
    path = common.RESULTS / "trees.svg"
    path.write_text(plot_speeds(speeds(cost, table.tokens_per_step), discs), encoding="utf-8")
    return path


def text_of(data: Dataset) -> list[int]:
    return [token for answer in data.answers[:64] for token in answer.token_ids]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--heads", default="auto")
    parser.add_argument("--calibration", required=True, help="JSON Lines of prompts to tune on")
    parser.add_argument("--calibration-limit", type=int, default=200)
    parser.add_argument("--prompts", help="JSON Lines to measure on; default: held out")
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--max-nodes", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16")
    return parser.parse_args()


def main() -> int:
    args = parse()
    loaded = load(args)
    tune_on, measure_on = choose_prompts(args)
    calibration = rank_answers(
        loaded.model, loaded.heads, loaded.answer(tune_on, args.max_tokens), progress=None
    )
    data = loaded.answer(measure_on, args.max_tokens)
    table = path_table(calibration, args.max_nodes)
    context = round(mean_context(data.answers))
    (cost,) = measure_steps(
        loaded.model, loaded.heads, table.paths, text_of(data), contexts=(context,), batches=(1,),
        max_nodes=args.max_nodes,
    )  # fmt: skip
    nodes = best_size(cost, table.tokens_per_step)
    trees = contenders(table, nodes, loaded.heads.num_heads)
    found = measure(loaded, trees, data, context)
    plain, _ = found["plain"]
    by_name = {
        name: figures_of(tree, calibration, timed, data, run)
        | {"against_plain": against_plain(run, plain)}
        for (name, tree), (run, timed) in zip(trees.items(), found.values(), strict=True)
    }
    figures = {
        "device": loaded.model.device_name,
        "mean_context": context,
        "tuned_paths": [list(p) for p in table.paths[: nodes - 1]],
        "trees": by_name,
    }
    rows = [[figure, *(by_name[name][figure] for name in by_name)] for figure in by_name["plain"]]
    common.show(figures["device"], ["", *by_name], rows)
    print(draw(by_name, cost, table))
    print(common.add("trees", vars(args), figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
