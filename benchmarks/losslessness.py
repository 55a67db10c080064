"""Is Medusa's answer plain decoding's answer, token for token?

Plain decoding answers one prompt at a time. Medusa answers them one at a time, and again with
eight in flight in shuffled order. Exit status 1 unless all token ids are equal. Runs of other
settings and instruction sets are kept side by side in one result.

    python benchmarks/losslessness.py --prompts prompts.jsonl --limit 200
    MEDUSA_CPU_ISA=avx2 python benchmarks/losslessness.py --prompts prompts.jsonl --limit 20
    python benchmarks/losslessness.py --heads random --temperature 0.8

`--heads memory` makes heads that know the answers by heart (see memory_heads.py): then every step
must also accept the full depth of the tree.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
from safetensors.numpy import save_file

from medusa_native import Decoder, RequestOutput, SamplingParams
from medusa_native.engine import load_model
from medusa_native.loading import load_checkpoint

NUM_HEADS = 4


def random_heads(model: str, folder: Path) -> Path:
    """Write V2 heads that know nothing."""
    hidden = load_checkpoint(model).config["hidden_size"]
    rng = np.random.default_rng(0)
    tensors = {}
    for head in range(NUM_HEADS):
        weight = rng.standard_normal((hidden, hidden)) / hidden**0.5
        tensors[f"{head}.0.linear.weight"] = weight.astype(np.float32)
        tensors[f"{head}.0.linear.bias"] = rng.standard_normal(hidden).astype(np.float32)
    save_file(tensors, folder / "medusa_lm_head.safetensors")
    return folder


def answer_heads(
    args: argparse.Namespace, model: str, plain: list[RequestOutput], folder: Path
) -> Path:
    """Write V1 heads that know the plain answers."""
    from memory_heads import memory_heads

    core = load_model(load_checkpoint(model), args.dtype, args.threads or 0)
    prompts = [output.prompt_token_ids for output in plain]
    return memory_heads(core, prompts, ids(plain), folder, NUM_HEADS)


def ids(outputs: list[RequestOutput]) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in outputs]


@dataclass(frozen=True)
class Questions:
    """Prompts, each with its own sampling parameters, so that order does not matter."""

    prompts: list[str]
    params: SamplingParams

    def ask(self, decoder: Decoder, order: list[int] | None = None) -> list[RequestOutput]:
        """Return answers in the order of the prompts, whatever order they are asked in."""
        order = list(range(len(self.prompts))) if order is None else order
        conversations = [[{"role": "user", "content": self.prompts[i]}] for i in order]
        answers = dict(zip(order, decoder.chat(conversations, self.params), strict=True))
        return [answers[i] for i in range(len(order))]


def mean_acceptance_length(outputs: list[RequestOutput]) -> float:
    steps = sum(output.metrics.num_steps for output in outputs)
    return 1 + sum(output.metrics.num_accepted_tokens for output in outputs) / max(steps, 1)


def shallow_steps(outputs: list[RequestOutput], depth: int) -> int:
    """Count steps beyond those that answers take when each step accepts the full depth."""
    needed = sum(-(-(len(tokens) - 1) // (depth + 1)) for tokens in ids(outputs))
    return sum(output.metrics.num_steps for output in outputs) - needed


def compare(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    prompts = common.read_prompts(args.prompts, args.limit)
    model = common.resolve_model(args.model)
    params = SamplingParams(
        max_tokens=args.max_tokens, temperature=args.temperature, seed=args.seed
    )
    questions = Questions(prompts, params)
    limits = {"dtype": args.dtype, "num_threads": args.threads}
    decoder = Decoder(model, max_num_seqs=1, **limits)
    device, start = decoder.info()["device"], time.perf_counter()
    plain = questions.ask(decoder)

    heads: str | Path = args.heads
    if args.heads == "random":
        heads = random_heads(model, folder)
    elif args.heads == "memory":
        heads = answer_heads(args, model, plain, folder)
    speculation = {
        "model": str(heads),
        "medusa_choices": args.medusa_choices,
        "max_total_draft_tokens": args.max_total_draft_tokens,
    }
    order = random.Random(args.seed).sample(range(len(prompts)), len(prompts))
    decoder = Decoder(model, speculative_config=speculation, max_num_seqs=1, **limits)
    alone = questions.ask(decoder)
    tree = decoder.info()["tree"]
    decoder = Decoder(model, speculative_config=speculation, max_num_seqs=8, **limits)
    crowd = questions.ask(decoder, order)

    figures = {
        "device": device,
        "prompts": len(prompts),
        "tokens": sum(map(len, ids(plain))),
        "different": {
            "one at a time": sum(a != b for a, b in zip(ids(plain), ids(alone), strict=True)),
            "eight in flight": sum(a != b for a, b in zip(ids(plain), ids(crowd), strict=True)),
        },
        "tree": tree,
        "mean_acceptance_length": mean_acceptance_length(alone),
        "seconds": time.perf_counter() - start,
    }
    if args.heads == "memory":
        figures["shallow_steps"] = {
            "one at a time": shallow_steps(alone, tree["depth"]),
            "eight in flight": shallow_steps(crowd, tree["depth"]),
        }
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--heads", default="auto", help='"auto", "random", "memory" or a folder')
    parser.add_argument("--prompts", help="JSON Lines with `prompt`")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--medusa-choices", default="auto")
    parser.add_argument("--max-total-draft-tokens", type=int)
    parser.add_argument("--name", default="losslessness", help="of the result's file")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        figures = compare(args, Path(folder))
    common.show("losslessness", ["figure", "value"], list(figures.items()))
    print(common.add(args.name, vars(args), figures))
    wrong = (*figures["different"].values(), *figures.get("shallow_steps", {}).values())
    return int(any(wrong))


if __name__ == "__main__":
    sys.exit(main())
