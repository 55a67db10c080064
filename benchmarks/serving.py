"""How fast under load: requests of mixed lengths that arrive over time, few or many at once.

The same requests (prompts, lengths, Poisson arrivals; all from one seed) are served without heads,
with the tree pinned, and with the tree that adapts, for each max_num_seqs; who serves first
rotates. Every answer is compared: it must be the same everywhere.

    python benchmarks/serving.py --prompts prompts.jsonl --requests 64
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import common
import numpy as np

from medusa_native import SpeculativeConfig, _core
from medusa_native.engine import LoadedEngine, TreeTuning, load_engine
from medusa_native.tuning.step_cost import non_decreasing


@dataclass(frozen=True)
class Request:
    arrival: float  # seconds
    tokens: list[int]
    max_tokens: int


@dataclass
class Answer:
    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # of each delivery
    sizes: list[int] = field(default_factory=list)  # tokens of each


def draw_requests(
    loaded: LoadedEngine, prompts: list[str], count: int, rate: float, max_tokens: int, seed: int
) -> list[Request]:
    draw = random.Random(seed)
    requests, now = [], 0.0
    for i in range(count):
        message = {"role": "user", "content": prompts[i % len(prompts)]}
        ids = loaded.tokenizer.apply_chat_template([message])
        length = draw.randint(max(max_tokens // 8, 1), max_tokens)
        requests.append(Request(now, list(ids), length))
        now += draw.expovariate(rate)
    return requests


def serve(engine: _core.Engine, requests: list[Request]) -> list[Answer]:
    """Submit each request when its time has come, and step as long as there is work."""
    answers: dict[int, Answer] = {}
    waiting, start = list(requests), time.perf_counter()
    while waiting or engine.has_unfinished():
        now = time.perf_counter() - start
        while waiting and waiting[0].arrival <= now:
            request = waiting.pop(0)
            params = _core.SamplingParams(max_tokens=request.max_tokens)
            answers[engine.submit(request.tokens, params)] = Answer()
        if not engine.has_unfinished():
            time.sleep(max(waiting[0].arrival - now, 0))
            continue
        for output in engine.step():
            answer = answers[output.request_id]
            answer.tokens += output.tokens
            answer.times.append(time.perf_counter() - start)
            answer.sizes.append(len(output.tokens))
    for request_id in answers:
        engine.forget(request_id)
    return list(answers.values())


def summarize(requests: list[Request], answers: list[Answer]) -> dict[str, float]:
    """Aggregate tokens a second; milliseconds between deliveries, and a token."""
    gaps, per_token, first = [], [], []
    for request, answer in zip(requests, answers, strict=True):
        between = np.diff(answer.times)
        gaps += list(between)
        per_token += [g / n for g, n in zip(between, answer.sizes[1:], strict=True)]
        first.append(answer.times[0] - request.arrival)
    end = max(answer.times[-1] for answer in answers)
    tokens = sum(len(answer.tokens) for answer in answers)
    return {
        "tokens_per_second": tokens / end,
        "seconds": end,
        "gap_ms_p50": 1e3 * float(np.percentile(gaps, 50)),
        "gap_ms_p95": 1e3 * float(np.percentile(gaps, 95)),
        "token_ms_p50": 1e3 * float(np.percentile(per_token, 50)),
        "token_ms_p95": 1e3 * float(np.percentile(per_token, 95)),
        "first_token_ms_p50": 1e3 * float(np.percentile(first, 50)),
    }


def measure_step_seconds(model: _core.Model, most: int, rounds: int) -> list[float]:
    """Seconds of a forward pass of 1 to `most` rows: plain steps of as many sequences.

    Sizes take turns, so that a busy moment favours none.
    """
    engine = _core.Engine(model, None, _core.Tree.root_only(), max_num_seqs=most)
    sizes = sorted({n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, most) if n <= most})
    samples: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            samples[size] += time_steps(engine, size)
    seconds = non_decreasing([statistics.median(samples[size]) for size in sizes])
    return [float(x) for x in np.interp(range(1, most + 1), sizes, seconds)]


def time_steps(engine: _core.Engine, num_seqs: int, count: int = 5) -> list[float]:
    """Seconds of each of `count` plain steps of so many sequences."""
    params = _core.SamplingParams(max_tokens=count + 8)
    ids = [engine.submit([1 + i, 2, 3], params) for i in range(num_seqs)]
    for _ in range(4):
        engine.step()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - start)
    for request_id in ids:
        engine.cancel(request_id)
        engine.forget(request_id)
    return times


def contenders(loaded: LoadedEngine, rounds: int = 8) -> dict[str, dict[str, Any]]:
    """Engine options by name; an adaptive engine uses what was tuned, else what is measured now."""
    options = loaded.engine.options
    adapt = {
        "adaptive": True,
        "step_seconds": options.step_seconds,
        "path_probability": options.path_probability,
    }
    if not options.adaptive:
        adapt = TreeTuning(measure_step_seconds(loaded.model, 64, rounds)).options(loaded.tree)
    root = _core.Tree.root_only()
    return {
        "plain": {"heads": None, "tree": root},
        "pinned": {"heads": loaded.heads, "tree": loaded.tree},
        "adaptive": {"heads": loaded.heads, "tree": loaded.tree, **adapt},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--heads", default="auto")
    parser.add_argument("--prompts", help="JSON Lines with `prompt`")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2.0, help="arrivals a second")
    parser.add_argument("--max-tokens", type=int, default=128, help="of the longest answer")
    parser.add_argument("--seqs", default="1,2,4,8,16", help="max_num_seqs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nodes", type=int, help="of the tree, root included")
    parser.add_argument("--batched-tokens", type=int, default=0, help="max_num_batched_tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="serving", help="of the result's file")
    args = parser.parse_args()

    limit = None if args.nodes is None else args.nodes - 1
    speculation = SpeculativeConfig(model=args.heads, max_total_draft_tokens=limit)
    loaded = load_engine(
        common.resolve_model(args.model), speculation, None,
        dtype="bfloat16", num_threads=args.threads,
    )  # fmt: skip
    prompts = common.read_prompts(args.prompts, args.requests)
    requests = draw_requests(loaded, prompts, args.requests, args.rate, args.max_tokens, args.seed)
    by_name = contenders(loaded)
    figures: dict[str, Any] = {"device": loaded.model.device_name, "nodes": loaded.tree.size}
    same, rows = True, []
    for seqs in map(int, args.seqs.split(",")):
        limits = {
            "max_num_seqs": seqs,
            "max_num_batched_tokens": args.batched_tokens,
            "enable_prefix_caching": False,
        }
        engines = {
            name: _core.Engine(loaded.model, **options, **limits)
            for name, options in by_name.items()
        }
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
        expected = None
        for turn in range(args.rounds):
            names = list(engines)
            for shift in range(len(names)):
                name = names[(turn + shift) % len(names)]
                answers = serve(engines[name], requests)
                tokens = [answer.tokens for answer in answers]
                expected = expected or tokens
                same &= tokens == expected
                runs[name].append(summarize(requests, answers))
                print(f"{seqs} sequences: {name}", end="\r", file=sys.stderr, flush=True)
        medians = {
            name: {key: statistics.median(run[key] for run in all_runs) for key in all_runs[0]}
            for name, all_runs in runs.items()
        }
        best = max(medians[name]["tokens_per_second"] for name in ("plain", "pinned"))
        ratio = medians["adaptive"]["tokens_per_second"] / best
        figures[f"max_num_seqs_{seqs}"] = {**medians, "adaptive_over_better": ratio}
        rows += [[seqs, name, *figure.values()] for name, figure in medians.items()]
    figures["same_tokens"] = same
    columns = ["seqs", "", "tokens/s", "seconds", "gap p50", "gap p95", "token p50", "token p95"]
    common.show(figures["device"], [*columns, "first token"], rows)
    print(
        f"answers are {'the same' if same else 'DIFFERENT'}; {common.save(args.name, vars(args), figures)}"
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
