"""How fast others are: the same model, prompts, threads and token counts, interleaved with ours.

Each peer has an environment of its own, made below --folder at the first run, and each contender a
process that runs only in its turn. A contender that cannot be installed or run is a line with the
reason; the others go on. Exit status 1 where Medusa's tokens are not plain decoding's.

    python benchmarks/peers/run.py --prompts prompts.jsonl --limit 8
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import common
from peers import report
from peers.contenders import FORMATS, Settings, contenders, many_at_once
from peers.environments import RECIPES
from peers.opening import Opener
from peers.rounds import answer_many, answer_prompts, session

from medusa_native.loading import load_checkpoint

OPTIONS_OF_A_MACHINE = ("folder", "python", "install_minutes")  # results say nothing of them


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo", help="a GGUF file")
    parser.add_argument("--heads", default="auto")
    parser.add_argument("--nodes", type=int, help="of the tree, root included, at most")
    parser.add_argument("--prompts", help="JSON Lines with `prompt`")
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm", type=int, default=4, help="untimed tokens before each answer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--peers", default=",".join(RECIPES))
    parser.add_argument("--batch", type=int, default=0, help="also this many sequences at once")
    parser.add_argument("--name", default="peers", help="of the result's files")
    parser.add_argument(
        "--folder", default=str(common.ROOT / "build/peers"), help="for what is made"
    )
    parser.add_argument(
        "--python", action="append", default=[], type=lambda text: tuple(text.split("=", 1)),
        help="PEER=PATH: an interpreter that has the peer",
    )  # fmt: skip
    parser.add_argument("--install-minutes", type=float, default=30, help="of one peer, at most")
    return parser.parse_args()


def token_ids(model: str, prompts: list[str]) -> list[list[int]]:
    tokenizer = load_checkpoint(model).tokenizer
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return [list(tokenizer.apply_chat_template(chat)) for chat in chats]


def measure_format(
    form: str, args: argparse.Namespace, prompts: list[list[int]], opener: Opener
) -> dict[str, Any]:
    """Let everyone who reads a format answer all prompts."""
    taking_part = [c for c in contenders(form, settings(args, prompts)) if is_chosen(c.peer, args)]
    with session(taking_part, opener.open) as running:
        answers = answer_prompts(running, prompts, args.rounds, args.max_tokens, args.warm)
    return report.of_format(form, taking_part, running, answers)


def measure_many(
    args: argparse.Namespace, prompts: list[list[int]], opener: Opener
) -> dict[str, Any]:
    """Let vLLM and ours answer many prompts at once."""
    many = [prompts[i % len(prompts)] for i in range(args.batch)]
    taking_part = list(many_at_once(args.batch, settings(args, prompts)))
    with session([c for c in taking_part if is_chosen(c.peer, args)], opener.open) as running:
        answers = answer_many(running, many, args.rounds, args.max_tokens)
    return report.of_many(args.batch, running, answers)


def is_chosen(peer: str, args: argparse.Namespace) -> bool:
    return peer == "ours" or peer in args.peers.split(",")


def settings(args: argparse.Namespace, prompts: list[list[int]]) -> Settings:
    longest = max(map(len, prompts)) + args.max_tokens + 64  # guesses need room beyond the end
    return Settings(args.threads, longest, args.heads, args.nodes)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # workers end with us
    args = arguments()
    texts = common.read_prompts(args.prompts, max(args.limit, args.batch))
    opener = Opener(args)
    model = common.resolve_model(args.model)
    prompts = token_ids(model, texts)
    groups = {
        form: measure_format(form, args, prompts[: args.limit], opener)
        for form in filter(None, args.formats.split(","))
    }
    result = {"formats": groups}
    if args.batch:
        result["many"] = measure_many(args, prompts, opener)
    shown = {k: v for k, v in vars(args).items() if k not in OPTIONS_OF_A_MACHINE}
    path = common.save(args.name, shown, result)
    title = f"Tokens a second, one sequence, greedy, {args.threads} threads: {Path(model).stem}"
    print(path, report.draw(path.with_suffix(".svg"), title, groups))
    return 0 if all(group["medusa_is_plain"] for group in groups.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
