"""What typical acceptance buys and what it costs: tokens a step against greedy's own tokens.

For each posterior_threshold the prompts are answered by typical acceptance. Then the backbone reads
each answer once more, and every token is compared with the one that plain greedy decoding would
have put in its place, the same tokens being before it. Exact acceptance, which puts that token
everywhere, is the reference. posterior_alpha is the square root of the threshold, as in the paper,
unless given.

    python benchmarks/typical.py --prompts prompts.jsonl --limit 64
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

import common
import numpy as np
from plot import Point, save_plot

from medusa_native import Decoder, SamplingParams, _core
from medusa_native.engine import load_model
from medusa_native.loading import load_checkpoint
from medusa_native.outputs import RequestOutput

THRESHOLDS = "0.5,0.3,0.2,0.15,0.09,0.05,0.03,0.02,0.01,0.005"


def answer(args: argparse.Namespace, prompts: list[str], **acceptance: Any) -> list[RequestOutput]:
    """Answer all prompts under one acceptance; temperature 0 where it is exact."""
    speculation = {"model": args.heads, "max_total_draft_tokens": args.rows - 1, **acceptance}
    decoder = Decoder(
        common.resolve_model(args.model), speculative_config=speculation, num_threads=args.threads,
        dtype=args.dtype, max_num_seqs=args.max_num_seqs,
    )  # fmt: skip
    temperature = args.temperature if acceptance else 0.0
    params = SamplingParams(
        max_tokens=args.max_tokens, temperature=temperature, ignore_eos=args.ignore_eos
    )
    return decoder.chat([[{"role": "user", "content": prompt}] for prompt in prompts], params)


def agreement(model: _core.Model, output: RequestOutput) -> tuple[int, int]:
    """Return how many tokens greedy decoding would have produced too, and of how many."""
    prompt, tokens = output.prompt_token_ids, output.outputs[0].token_ids
    logits = model.logits([*prompt, *tokens])[len(prompt) - 1 : -1]
    return int(np.sum(logits.argmax(-1) == np.array(tokens))), len(tokens)


def summarize(model: _core.Model, outputs: list[RequestOutput]) -> dict[str, float]:
    same = np.array([agreement(model, output) for output in outputs])
    metrics = [output.metrics for output in outputs]
    steps = sum(m.num_steps for m in metrics)
    return {
        "tokens_per_step": 1 + sum(m.num_accepted_tokens for m in metrics) / steps,
        "greedy_share": float(same[:, 0].sum() / same[:, 1].sum()),
        "answers_equal_to_greedy": float(np.mean(same[:, 0] == same[:, 1])),
        "tokens": int(same[:, 1].sum()),
        "steps": steps,
    }


def sweep(args: argparse.Namespace, prompts: list[str]) -> dict[str, dict[str, float]]:
    checkpoint = load_checkpoint(common.resolve_model(args.model))
    model = load_model(checkpoint, args.dtype, args.threads)
    figures = {"exact": summarize(model, answer(args, prompts))}
    if figures["exact"]["greedy_share"] != 1:
        raise SystemExit("exact acceptance differs from plain greedy decoding")
    for threshold in map(float, args.thresholds.split(",")):
        alpha = args.alpha or math.sqrt(threshold)
        outputs = answer(
            args, prompts, acceptance_method="typical",
            posterior_threshold=threshold, posterior_alpha=alpha,
        )  # fmt: skip
        figures[f"{threshold:g}"] = {**summarize(model, outputs), "posterior_alpha": alpha}
        print(f"{threshold:g}: {figures[f'{threshold:g}']}", file=sys.stderr, flush=True)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--heads", default="auto")
    parser.add_argument("--prompts", help="JSON Lines with `prompt`")
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--thresholds", default=THRESHOLDS)
    parser.add_argument("--alpha", type=float, help="default: the square root of the threshold")
    parser.add_argument("--rows", type=int, default=32, help="tree size, root included")
    parser.add_argument("--ignore-eos", action="store_true")
    parser.add_argument("--max-num-seqs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--name", default="typical", help="of the result's files")
    args = parser.parse_args()

    prompts = common.read_prompts(args.prompts, args.limit)
    figures = sweep(args, prompts)
    columns = ["threshold", "tokens a step", "greedy's own", "answers equal"]
    keys = ["tokens_per_step", "greedy_share", "answers_equal_to_greedy"]
    common.show(
        "typical acceptance", columns, [[n, *(f[k] for k in keys)] for n, f in figures.items()]
    )
    points = [
        Point(100 * f["greedy_share"], f["tokens_per_step"], name, marked=name == "exact")
        for name, f in figures.items()
    ]
    title = f"Typical acceptance at temperature {args.temperature:g}, by posterior_threshold"
    x_title = "tokens that plain greedy decoding would have produced too (%)"
    path = common.save(args.name, vars(args), figures)
    print(path, save_plot(path.with_suffix(".svg"), title, x_title, "tokens a step", points))
    return 0


if __name__ == "__main__":
    sys.exit(main())
