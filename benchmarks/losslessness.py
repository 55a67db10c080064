"""Is Medusa's answer plain decoding's answer, token for token?

Plain decoding answers one prompt at a time. Medusa answers them one at a time, and again with
eight in flight in shuffled order. Exit status 1 unless all token ids are equal.

    python benchmarks/losslessness.py --prompts prompts.jsonl --limit 200
    MEDUSA_CPU_ISA=avx2 python benchmarks/losslessness.py --prompts prompts.jsonl --limit 20
    python benchmarks/losslessness.py --heads random --temperature 0.8
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np
from safetensors.numpy import save_file

from medusa_native import Decoder, SamplingParams
from medusa_native.loading import load_checkpoint

Answers = list[list[int]]


def random_heads(model: str, folder: Path, num_heads: int = 4) -> Path:
    """Write V2 heads that know nothing."""
    hidden = load_checkpoint(model).config["hidden_size"]
    rng = np.random.default_rng(0)
    tensors = {}
    for head in range(num_heads):
        weight = rng.standard_normal((hidden, hidden)) / hidden**0.5
        tensors[f"{head}.0.linear.weight"] = weight.astype(np.float32)
        tensors[f"{head}.0.linear.bias"] = rng.standard_normal(hidden).astype(np.float32)
    save_file(tensors, folder / "medusa_lm_head.safetensors")
    return folder


def answer(decoder: Decoder, prompts: list[str], params: SamplingParams) -> tuple[Answers, float]:
    """Return token ids and the mean acceptance length."""
    outputs = decoder.chat([[{"role": "user", "content": p}] for p in prompts], params)
    steps = sum(output.metrics.num_steps for output in outputs)
    accepted = sum(output.metrics.num_accepted_tokens for output in outputs)
    return [output.outputs[0].token_ids for output in outputs], 1 + accepted / max(steps, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--heads", default="auto", help='"auto", "random" or a folder')
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

    prompts = common.read_prompts(args.prompts, args.limit)
    model = common.resolve_model(args.model)
    params = SamplingParams(
        max_tokens=args.max_tokens, temperature=args.temperature, seed=args.seed
    )
    with tempfile.TemporaryDirectory() as folder:
        heads = random_heads(model, Path(folder)) if args.heads == "random" else args.heads
        speculation = {
            "model": str(heads),
            "medusa_choices": args.medusa_choices,
            "max_total_draft_tokens": args.max_total_draft_tokens,
        }
        limits = {"dtype": args.dtype, "num_threads": args.threads}
        plain = Decoder(model, max_num_seqs=1, **limits)
        alone = Decoder(model, speculative_config=speculation, max_num_seqs=1, **limits)
        crowd = Decoder(model, speculative_config=speculation, max_num_seqs=8, **limits)

    start = time.perf_counter()
    expected, _ = answer(plain, prompts, params)
    found_alone, length = answer(alone, prompts, params)
    order = list(range(len(prompts)))
    random.Random(args.seed).shuffle(order)
    shuffled, _ = answer(crowd, [prompts[i] for i in order], params)
    in_flight = dict(zip(order, shuffled, strict=True))
    different = {
        "one at a time": sum(a != b for a, b in zip(expected, found_alone, strict=True)),
        "eight in flight": sum(expected[i] != in_flight[i] for i in order),
    }
    figures = {
        "device": plain.info()["device"],
        "prompts": len(prompts),
        "tokens": sum(map(len, expected)),
        "different": different,
        "mean_acceptance_length": length,
        "seconds": time.perf_counter() - start,
    }
    common.show("losslessness", ["figure", "value"], list(figures.items()))
    print(common.save(args.name, vars(args), figures))
    return int(any(different.values()))


if __name__ == "__main__":
    sys.exit(main())
