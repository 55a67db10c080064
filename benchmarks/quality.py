"""How near is bfloat16 decoding to Transformers in float32?

The same weights, dequantised, run in both: mean KL divergence of the next-token distributions over
prompts and the start of their answers, and whether token ids, chat template included, are equal.

    python benchmarks/quality.py --prompts prompts.jsonl --limit 50
"""

from __future__ import annotations

import argparse
import sys

import common
import numpy as np
import torch
import transformers
from distributions import divergence, log_softmax
from oracle import transformers_model, transformers_tokenizer

from medusa_native.engine import load_model
from medusa_native.loading import load_checkpoint


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--prompts", help="JSON Lines with `prompt`")
    parser.add_argument("--limit", type=int, default=50, help="prompts to run")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)

    path = common.resolve_model(args.model)
    checkpoint = load_checkpoint(path)
    every_prompt = common.read_prompts(args.prompts, None)
    theirs = transformers_tokenizer(path)
    unequal = 0
    for prompt in every_prompt:
        conversation = [{"role": "user", "content": prompt}]
        expected = theirs.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        unequal += list(expected) != checkpoint.tokenizer.apply_chat_template(conversation)
        unequal += theirs(prompt)["input_ids"] != checkpoint.tokenizer.encode(prompt)

    ours = load_model(checkpoint, args.dtype, args.threads)
    oracle = transformers_model(path, torch.float32)
    kl, same, worst = [], [], 0.0
    for prompt in every_prompt[: args.limit]:
        ids = checkpoint.tokenizer.apply_chat_template([{"role": "user", "content": prompt}])
        with torch.inference_mode():
            expected_logits = oracle(torch.tensor([ids])).logits[0].float().numpy()
        found = ours.logits(ids)
        kl.append(divergence(log_softmax(expected_logits), log_softmax(found)))
        same.append(expected_logits.argmax(-1) == found.argmax(-1))
        difference = np.abs(expected_logits - found).max() / np.abs(expected_logits).max()
        worst = max(worst, float(difference))
    rows = np.concatenate(kl)
    figures = {
        "device": ours.device_name,
        "prompts": len(kl),
        "rows": len(rows),
        "mean_kl": float(rows.mean()),
        "largest_kl": float(rows.max()),
        "same_argmax": float(np.concatenate(same).mean()),
        "largest_relative_difference": worst,
        "tokenised_prompts": len(every_prompt),
        "unequal_tokenisations": unequal,
    }
    common.show("quality", ["figure", "value"], [(k, repr(v)) for k, v in figures.items()])
    print(common.save("quality", vars(args), figures))
    return int(unequal > 0)


if __name__ == "__main__":
    sys.exit(main())
