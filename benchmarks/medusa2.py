"""What Medusa-2 brings, and what it costs: heads trained with an adapter against heads alone.

Every set of heads decodes the same prompts with the same tree, the adapted ones over the adapted
model; tokens a step and tokens a second come from one interleaved run. Then the adapted model is
compared with the original on the prompts and on the original's own greedy answers to them: mean
KL(original || adapted) a token, and perplexity under both. Intervals are those of resampled prompts.

    python benchmarks/medusa2.py --medusa2 out --heads auto --prompts prompts.jsonl --limit 40
"""

from __future__ import annotations

import argparse
from typing import Any

import common
import numpy as np
import numpy.typing as npt
from decode import Contender, contender, interleave, summarize
from distributions import LogProbs, divergence, interval, log_softmax

from medusa_native import Decoder, SamplingParams
from medusa_native.engine import load_adapted, load_model
from medusa_native.loading import load_checkpoint

Text = tuple[list[int], int]  # ids, and how many of them are the prompt's


def contenders(args: argparse.Namespace, path: str) -> dict[str, Contender]:
    limits = {"dtype": args.dtype, "num_threads": args.threads, "max_num_seqs": 1}
    made = {
        "plain": contender(Decoder(path, **limits), args.max_tokens, speculative=False),
    }
    sets = [(heads, None) for heads in args.heads.split(",")]
    for heads, adapter in [*sets, (args.medusa2, f"{args.medusa2}/adapter")]:
        for rows in args.rows.split(","):
            speculation = {
                "model": heads,
                "medusa_choices": args.tree,
                "max_total_draft_tokens": int(rows) - 1,
            }
            decoder = Decoder(path, adapter=adapter, speculative_config=speculation, **limits)
            name = "medusa2" if adapter else heads
            made[f"{name}_{rows}"] = contender(decoder, args.max_tokens, speculative=True)
    return made


def original_answers(args: argparse.Namespace, path: str, prompts: list[str]) -> list[Text]:
    """Return each prompt with the original's greedy answer behind it."""
    decoder = Decoder(path, dtype=args.dtype, num_threads=args.threads)
    outputs = decoder.chat(
        [[{"role": "user", "content": prompt}] for prompt in prompts],
        SamplingParams(max_tokens=args.max_tokens),
    )
    return [
        ([*o.prompt_token_ids, *o.outputs[0].token_ids], len(o.prompt_token_ids)) for o in outputs
    ]


def distances(args: argparse.Namespace, path: str, texts: list[Text]) -> dict[str, Any]:
    """Return KL and perplexity over prompts and over answers."""
    original = load_model(load_checkpoint(path), args.dtype, args.threads)
    changed_weights, _ = load_adapted(path, f"{args.medusa2}/adapter", args.dtype)
    adapted = load_model(changed_weights, args.dtype, args.threads)
    found: dict[str, list[npt.NDArray[np.float64]]] = {"prompts": [], "answers": []}
    for ids, start in texts:
        expected, changed = (log_softmax(model.logits(ids)) for model in (original, adapted))
        rows = _figures(ids, expected, changed)
        found["prompts"].append(rows[: start - 1])
        found["answers"].append(rows[start - 1 :])
    return {name: _summary(rows) for name, rows in found.items()}


def _figures(ids: list[int], expected: LogProbs, changed: LogProbs) -> npt.NDArray[np.float64]:
    """Of each token but the first: KL before it, and its log-probability under either model."""
    tokens = np.asarray(ids[1:])
    at = np.arange(len(tokens))
    kl = divergence(expected[:-1], changed[:-1])
    return np.stack([kl, expected[at, tokens], changed[at, tokens]], axis=1)


def _summary(texts: list[npt.NDArray[np.float64]]) -> dict[str, Any]:
    every = np.concatenate(texts)
    kl, original, adapted = every.mean(axis=0)
    return {
        "tokens": len(every),
        "mean_kl": float(kl),
        "kl_interval": interval([text[:, 0] for text in texts]),
        "original_perplexity": float(np.exp(-original)),
        "adapted_perplexity": float(np.exp(-adapted)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--medusa2", required=True, help="folder of heads with adapter/ in it")
    parser.add_argument("--heads", default="auto", help="one or several others, by commas")
    parser.add_argument("--tree", default="mc_sim_7b_63", help="of all heads")
    parser.add_argument("--rows", default="16,64", help="tree sizes, root included")
    parser.add_argument("--prompts", help="JSON Lines with `prompt`")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()

    path = common.resolve_model(args.model)
    prompts = common.read_prompts(args.prompts, args.limit)
    runs = interleave(contenders(args, path), prompts)
    speed = {name: summarize(name, runs) for name in runs}
    text = distances(args, path, original_answers(args, path, prompts))
    rows = [
        (name, s["mean_acceptance_length"], s["tokens_per_second"], s["against_plain"])
        for name, s in speed.items()
    ]
    common.show("medusa2", ["heads", "tokens a step", "tokens/s", "against plain"], rows)
    common.show("text", ["text", *text["answers"]], [(k, *v.values()) for k, v in text.items()])
    print(common.save("medusa2", vars(args), {"contenders": speed, "text": text}))


if __name__ == "__main__":
    main()
