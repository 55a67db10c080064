"""How fast: plain decoding, Transformers and Medusa on the same prompts, in one interleaved run.

Every prompt is answered by each contender in turn, in rotating order. Tokens a second count from
the first token on. A step's time is over all steps of a run; the share of a read stream compares
the weight bytes a step reads with a bare read of as many bytes in the same process.

    python benchmarks/decode.py --prompts prompts.jsonl --limit 16
    python benchmarks/decode.py --device cuda --name decode_gpu
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import common
from device_clock import DeviceClock, HostClock, clock_of

from medusa_native import Decoder, SamplingParams, _core


@dataclass(frozen=True)
class Run:
    tokens_per_second: float
    step_ms: float
    steps: int
    accepted: int
    answer_ms: float  # of prompt and answer, by the device's clock


Contender = Callable[[str], Run]
AnyClock = HostClock | DeviceClock
HOST = HostClock()
PEERS = ("transformers", "transformers, compiled")


def contender(
    decoder: Decoder, max_tokens: int, *, speculative: bool, clock: AnyClock = HOST
) -> Contender:
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True, speculative=speculative)

    def answer(prompt: str) -> Run:
        chat = [{"role": "user", "content": prompt}]
        (output,), answer_ms = clock.timed(lambda: decoder.chat(chat, params))
        m = output.metrics
        step_ms = 1e3 * m.decode_time / m.num_steps
        return Run(m.tokens_per_second, step_ms, m.num_steps, m.num_accepted_tokens, answer_ms)

    return answer


class Arrivals:
    """A Transformers streamer that notes when tokens come."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def why_no_transformers(device: str) -> str:
    """Say why Transformers cannot take part on a device; empty if it can."""
    import torch

    if find_spec("transformers") is None:
        return "it is not installed: pip install transformers"
    if device == "cpu" or torch.cuda.is_available():
        return ""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} has no CUDA"
    return f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no GPU"


def transformers_contender(
    path: str, max_tokens: int, threads: int, device: str, clock: AnyClock, *, compiled: bool
) -> Contender:
    """Greedy decoding by Transformers (torch, bfloat16) of the dequantised weights; `compiled`: by
    torch.compile over a static cache.
    """
    import torch
    import transformers
    from oracle import transformers_model

    from medusa_native.loading import load_checkpoint

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    tokenizer = load_checkpoint(path).tokenizer
    model = transformers_model(path, torch.bfloat16).to(device)
    if compiled:
        model.generation_config.cache_implementation = "static"
    on_stream = (
        contextlib.nullcontext()
        if clock.stream is None
        else torch.cuda.stream(torch.cuda.ExternalStream(clock.stream))
    )

    def answer(prompt: str) -> Run:
        chat = tokenizer.apply_chat_template([{"role": "user", "content": prompt}])
        ids = torch.tensor([chat], device=device)
        arrivals = Arrivals()
        with torch.inference_mode(), on_stream:
            _, answer_ms = clock.timed(
                lambda: model.generate(
                    ids, attention_mask=torch.ones_like(ids), streamer=arrivals, do_sample=False,
                    max_new_tokens=max_tokens, min_new_tokens=max_tokens, pad_token_id=0,
                )
            )  # fmt: skip
        seconds = arrivals.times[-1] - arrivals.times[1]  # the first call brings the prompt
        steps = max_tokens - 1
        return Run(steps / seconds, 1e3 * seconds / steps, steps, 0, answer_ms)

    return answer


def interleave(contenders: dict[str, Contender], prompts: list[str]) -> dict[str, list[Run]]:
    """Let each contender answer each prompt, rotating who begins."""
    runs = defaultdict(list)
    names = list(contenders)
    for name in names:
        contenders[name](prompts[0])  # touches every page before the clock runs
    for turn, prompt in enumerate(prompts):
        for shift in range(len(names)):
            name = names[(turn + shift) % len(names)]
            runs[name].append(contenders[name](prompt))
        print(f"{turn + 1}/{len(prompts)}", end="\r", file=sys.stderr, flush=True)
    return runs


def summarize(name: str, runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Return medians; ratios are medians of the ratios on each prompt."""
    mine, plain = runs[name], runs["plain"]
    steps, accepted = sum(r.steps for r in mine), sum(r.accepted for r in mine)
    ratios = [a.tokens_per_second / b.tokens_per_second for a, b in zip(mine, plain, strict=True)]
    speedup, length = statistics.median(ratios), 1 + accepted / steps
    return {
        "tokens_per_second": statistics.median(r.tokens_per_second for r in mine),
        "against_plain": speedup,
        "mean_acceptance_length": length,
        "speedup_over_length": speedup / length,
        "step_ms": statistics.median(r.step_ms for r in mine),
        "answer_ms": statistics.median(r.answer_ms for r in mine),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--heads", default="auto", help="one or several, by commas")
    parser.add_argument("--prompts", help="JSON Lines with `prompt`")
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--rows", default="8,16,32,64", help="tree sizes, root included")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help='"cuda": Transformers compiled as well')
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--name", default="decode", help="of the result's file")
    args = parser.parse_args()

    path = common.resolve_model(args.model)
    prompts = common.read_prompts(args.prompts, args.limit)
    limits = {"dtype": args.dtype, "num_threads": args.threads, "max_num_seqs": 1}
    clock = clock_of(args.device)
    limits |= {"device": args.device, "stream": clock.stream}
    plain = Decoder(path, **limits)
    contenders = {"plain": contender(plain, args.max_tokens, speculative=False, clock=clock)}
    for heads, rows in itertools.product(args.heads.split(","), args.rows.split(",")):
        speculation = {"model": heads, "max_total_draft_tokens": int(rows) - 1}
        medusa = Decoder(path, speculative_config=speculation, **limits)
        kind = "medusa" if heads == args.heads else heads
        name = f"{kind}_{medusa.info()['tree']['nodes']}"
        contenders[name] = contender(medusa, args.max_tokens, speculative=True, clock=clock)
    if args.no_transformers:
        pass
    elif reason := why_no_transformers(args.device):
        print(f"without Transformers: {reason}")
    else:
        for name in PEERS[: 1 if args.device == "cpu" else 2]:
            contenders[name] = transformers_contender(
                path, args.max_tokens, args.threads, args.device, clock, compiled=name == PEERS[1]
            )

    runs = interleave(contenders, prompts)
    step_bytes = plain.info()["memory"]["step"]
    by_name = {name: summarize(name, runs) for name in contenders}
    step = by_name["plain"]["step_ms"]
    figures = {
        "device": plain.info()["device"],
        "answers_timed_by": clock.name,
        "contenders": by_name,
        "rows_over_one": {
            name: found["step_ms"] / step
            for name, found in by_name.items()
            if name not in ("plain", *PEERS)
        },
        "step_bytes": step_bytes,
        "plain_gb_per_s": step_bytes / step / 1e6,
    }
    if args.device == "cpu":
        stream = statistics.median(_core.read_stream(step_bytes, args.threads, 15))
        figures["read_stream_gb_per_s"] = step_bytes / stream / 1e9
        figures["share_of_read_stream"] = 1e3 * stream / step
    columns = [
        "tokens/s",
        "against plain",
        "tokens a step",
        "speed-up / length",
        "step ms",
        "answer ms",
    ]
    rows_shown = [[name, *by_name[name].values()] for name in by_name]
    common.show(figures["device"], ["", *columns], rows_shown)
    rest = [(k, v) for k, v in figures.items() if k not in ("contenders", "device")]
    common.show("", ["figure", "value"], rest)
    print(common.save(args.name, vars(args), figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
