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
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import common
import numpy as np
import numpy.typing as npt
from distributions import LogProbs, divergence, interval, log_softmax

from medusa_native import _core
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
for index, tokens in enumerate(json.load(open(ids))):
    llama.reset()
    llama.eval(tokens)
    np.save(f"{out}/{index}.npy", np.array(llama.scores[:len(tokens)], np.float32))
"""


def shared_prefix(prompts: list[list[int]]) -> int:
    """Return how many tokens all prompts begin with."""
    return next(
        (i for i, column in enumerate(zip(*prompts, strict=False)) if len(set(column)) > 1), 0
    )


def llama_logits(
    python: str, model: str, prompts: list[list[int]], threads: int, folder: str
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield each prompt's logits; all together they are too many to hold."""
    ids = Path(folder) / "ids.json"
    ids.write_text(json.dumps(prompts))
    command = [python, "-c", LLAMA, model, str(ids), folder, str(threads)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for index in range(len(prompts)):
        yield np.load(Path(folder) / f"{index}.npy")


def compare(
    models: Mapping[str, _core.Model],
    prompts: list[list[int]],
    theirs: Iterator[npt.NDArray[np.float32]] | None,
) -> tuple[dict[str, list[LogProbs]], dict[str, list[npt.NDArray[np.bool_]]]]:
    """Return each prompt's divergence from float32, and where the likeliest token is the same."""
    first = shared_prefix(prompts)
    kl: dict[str, list[LogProbs]] = {}
    same: dict[str, list[npt.NDArray[np.bool_]]] = {}
    for index, ids in enumerate(prompts):
        logits = {name: model.logits(ids) for name, model in models.items()}
        if theirs is not None:
            logits["llama.cpp"] = next(theirs)
        expected = log_softmax(logits.pop("float32")[first:])
        for name, rows in logits.items():
            found = log_softmax(rows[first:])
            kl.setdefault(name, []).append(divergence(expected, found))
            same.setdefault(name, []).append(expected.argmax(-1) == found.argmax(-1))
        print(f"prompt {index + 1} of {len(prompts)}", end="\033[K\r", file=sys.stderr, flush=True)
    return kl, same


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
    with tempfile.TemporaryDirectory() as folder:
        python = args.llama_python
        theirs = llama_logits(python, path, prompts, args.threads, folder) if python else None
        kl, same = compare(models, prompts, theirs)

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
    if "llama.cpp" in kl:
        pairs = zip(kl["auto"], kl["llama.cpp"], strict=True)
        figures["auto_minus_llama_interval"] = interval([a - b for a, b in pairs])
    common.show("divergence", ["figure", "value"], [(k, repr(v)) for k, v in figures.items()])
    print(common.save("divergence", vars(args), figures))


if __name__ == "__main__":
    main()
