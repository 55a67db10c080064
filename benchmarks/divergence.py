"""What does computing with a file's quantised weights cost in quality?

Next-token distributions of the same weights in float32 against `dtype="bfloat16"` (all widened),
`dtype="auto"` (weights in their blocks, rows rounded to 8 bits) and, with `--llama-python`, an
interpreter that has llama-cpp-python, llama.cpp on the same file and token ids. Mean KL divergence
over all positions but those of the template that every prompt begins with; intervals are those of
resampled prompts.

    python benchmarks/divergence.py --prompts prompts.jsonl --limit 100 --llama-python PYTHON
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import common
import numpy as np
import numpy.typing as npt
from distributions import LogProbs, divergence, interval, log_softmax

from medusa_native.engine import load_model
from medusa_native.loading import load_checkpoint

MOST_TOKENS = 200
LLAMA = """
import json, sys
import numpy as np
from llama_cpp import Llama
model, ids, out, threads = sys.argv[1:]
llama = Llama(model, n_ctx=512, n_threads=int(threads), n_threads_batch=int(threads),
              logits_all=True, verbose=False)
rows = []
for tokens in json.load(open(ids)):
    llama.reset()
    llama.eval(tokens)
    rows.append(np.array(llama.scores[:len(tokens)], np.float32))
np.save(out, np.concatenate(rows))
"""


def shared_prefix(prompts: list[list[int]]) -> int:
    """Return how many tokens all prompts begin with."""
    return next(
        (i for i, column in enumerate(zip(*prompts, strict=False)) if len(set(column)) > 1), 0
    )


def llama_logits(
    python: str, model: str, prompts: list[list[int]], threads: int
) -> list[npt.NDArray[np.float32]]:
    with tempfile.TemporaryDirectory() as folder:
        ids, out = Path(folder) / "ids.json", Path(folder) / "logits.npy"
        ids.write_text(json.dumps(prompts))
        command = [python, "-c", LLAMA, model, str(ids), str(out), str(threads)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        ends = np.cumsum([len(prompt) for prompt in prompts])[:-1]
        return np.split(np.load(out), ends)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--prompts", help="JSON Lines with `prompt`")
    parser.add_argument("--limit", type=int, default=100, help="prompts to run")
    parser.add_argument("--llama-python", help="interpreter with llama-cpp-python")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    path = common.resolve_model(args.model)
    checkpoint = load_checkpoint(path)
    prompts = [
        checkpoint.tokenizer.apply_chat_template([{"role": "user", "content": prompt}])
        for prompt in common.read_prompts(args.prompts, args.limit)
    ]
    prompts = [list(prompt[:MOST_TOKENS]) for prompt in prompts]
    models = {t: load_model(checkpoint, t, args.threads) for t in ("float32", "bfloat16", "auto")}
    theirs = (
        llama_logits(args.llama_python, path, prompts, args.threads) if args.llama_python else []
    )
    first = shared_prefix(prompts)
    kl: dict[str, list[LogProbs]] = {}
    same: dict[str, list[npt.NDArray[np.bool_]]] = {}
    for index, ids in enumerate(prompts):
        logits = {name: model.logits(ids) for name, model in models.items()}
        logits |= {"llama.cpp": theirs[index]} if theirs else {}
        expected = log_softmax(logits.pop("float32")[first:])
        for name, rows in logits.items():
            found = log_softmax(rows[first:])
            kl.setdefault(name, []).append(divergence(expected, found))
            same.setdefault(name, []).append(expected.argmax(-1) == found.argmax(-1))

    figures: dict[str, object] = {"prompts": len(prompts), "weights": models["auto"].weight_formats}
    for name, rows in kl.items():
        every = np.concatenate(rows)
        figures[name] = {
            "rows": len(every),
            "mean_kl": float(every.mean()),
            "interval": interval(rows),
            "largest_kl": float(every.max()),
            "same_argmax": float(np.concatenate(same[name]).mean()),
        }
    if theirs:
        pairs = zip(kl["auto"], kl["llama.cpp"], strict=True)
        figures["auto_minus_llama_interval"] = interval([a - b for a, b in pairs])
    common.show("divergence", ["figure", "value"], [(k, repr(v)) for k, v in figures.items()])
    print(common.save("divergence", vars(args), figures))


if __name__ == "__main__":
    main()
