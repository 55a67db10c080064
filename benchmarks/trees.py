"""Which tree: the tuned one, the reference's stock tree and the top-1 chain, on the same prompts.

The tree is tuned on one set of prompts, which the model answers first, and measured on another.
What is expected there comes from replaying the answers and from timed steps; what is measured, from
the clock, all trees in turns on one engine.

    python benchmarks/trees.py --calibration train.jsonl --prompts dev.jsonl --limit 64
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from typing import Any

import common
import numpy as np

from medusa_native import _core
from medusa_native.engine import load_model, pack_heads
from medusa_native.heads import open_heads
from medusa_native.loading import load_checkpoint
from medusa_native.training.dataset import Dataset
from medusa_native.tuning.calibration import make_answers, rank_answers
from medusa_native.tuning.record import best_size
from medusa_native.tuning.replay import first_size, tokens_per_step
from medusa_native.tuning.run import path_table, reference_cost
from medusa_native.tuning.step_cost import StepTimer, measure_steps, prefix_tree
from medusa_native.tuning.verify import decode_in_turns, mean_context

CONTEXTS = (64, 128, 256, 512)


def stock_tree(num_heads: int) -> _core.Tree:
    """Return the reference's tree for Vicuna-7B, without what is deeper than there are heads."""
    return _core.Tree([p for p in _core.Tree.stock_paths("mc_sim_7b_63") if len(p) <= num_heads])


def time_trees(
    model: _core.Model, heads: _core.Heads, trees: list[_core.Tree], text: list[int], repeats: int
) -> dict[int, list[float]]:
    """Return the median seconds of a step with each tree, by context."""
    samples: dict[tuple[int, int], list[float]] = defaultdict(list)
    for turn in range(repeats):
        for context in CONTEXTS:
            for index, seconds in StepTimer(model, heads, trees, text, context).run(turn):
                samples[context, index].append(seconds)
    return {
        context: [statistics.median(samples[context, i]) for i in range(len(trees))]
        for context in CONTEXTS
    }


def replay(tree: _core.Tree, ranks: Any, first_row: list[int]) -> float:
    paths = sorted(tree.paths, key=len)
    return tokens_per_step(first_size(ranks, paths), first_row, tree.size)


def text_of(dataset: Dataset) -> list[int]:
    return [token for answer in dataset.answers[:64] for token in answer.token_ids]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--heads", default="auto")
    parser.add_argument("--calibration", required=True, help="JSON Lines of prompts to tune on")
    parser.add_argument("--calibration-limit", type=int, default=400)
    parser.add_argument("--prompts", required=True, help="JSON Lines of prompts to measure on")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--max-nodes", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7, help="rounds of timing steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()

    path = common.resolve_model(args.model)
    checkpoint = load_checkpoint(path)
    vocab, longest = (int(checkpoint.config[k]) for k in ("vocab_size", "max_position_embeddings"))
    opened = open_heads(args.heads, checkpoint)
    limits = {"max_tokens": args.max_tokens, "dtype": args.dtype, "num_threads": args.threads}
    tuned_on = make_answers(
        path, args.calibration, longest, vocab, args.calibration_limit, **limits
    )
    data = make_answers(path, args.prompts, longest, vocab, args.limit, **limits)
    model = load_model(checkpoint, args.dtype, args.threads)
    heads = pack_heads(model, opened)
    known = rank_answers(model, heads, tuned_on, progress=None)
    ranked = rank_answers(model, heads, data, progress=None)

    table = path_table(known, args.max_nodes)
    costs = measure_steps(
        model, heads, table.paths, text_of(data), contexts=CONTEXTS, batches=(1,),
        max_nodes=args.max_nodes, repeats=args.repeats,
    )  # fmt: skip
    nodes = best_size(reference_cost(costs), table.tokens_per_step)
    trees = {
        "plain": _core.Tree.root_only(),
        "chain": _core.Tree.chain(heads.num_heads),
        "mc_sim_7b_63": stock_tree(heads.num_heads),
        "tuned": prefix_tree(table.paths, nodes),
        "tuned_64": prefix_tree(table.paths, min(args.max_nodes, len(table.paths) + 1)),
    }
    listed = list(trees.values())
    seconds = time_trees(model, heads, listed, text_of(data), args.repeats)
    measured = decode_in_turns(model, heads, listed, data.answers)
    context = mean_context(data.answers)
    tokens = sum(len(answer.token_ids) - 1 for answer in data.answers)
    by_name: dict[str, Any] = {}
    for index, (name, tree) in enumerate(trees.items()):
        step = float(np.interp(context, CONTEXTS, [seconds[c][index] for c in CONTEXTS]))
        expected = replay(tree, ranked.ranks, ranked.first_row)
        steps, clock = measured[index]
        by_name[name] = {
            "nodes": tree.size,
            "tokens_a_step": tokens / steps,
            "tokens_a_step_calibrated": replay(tree, known.ranks, known.first_row),
            "step_ms": 1e3 * clock / steps,
            "step_ms_expected": 1e3 * step,
            "tokens_per_second": tokens / clock,
            "expected_tokens_per_second": expected / step,
            "measured_over_expected": tokens / clock * step / expected,
        }
    plain = by_name["plain"]["tokens_per_second"]
    for entry in by_name.values():
        entry["against_plain"] = entry["tokens_per_second"] / plain
    figures = {
        "device": model.device_name,
        "mean_context": context,
        "tuned_paths": [list(p) for p in table.paths[: nodes - 1]],
        "trees": by_name,
    }
    columns = ["", *(name.replace("_", " ") for name in by_name["plain"])]
    common.show(model.device_name, columns, [[n, *by_name[n].values()] for n in by_name])
    print(common.save("trees", vars(args), figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
