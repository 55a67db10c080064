"""Benchmarks: plain decoding and Medusa on the same prompts, in alternating order."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medusa_native import _core
from medusa_native.bench.report import summarize, warnings_of
from medusa_native.bench.runner import Run, run_requests
from medusa_native.bench.workload import write_random_heads
from medusa_native.checks import check_number
from medusa_native.engine import LoadedEngine, load_engine
from medusa_native.errors import InvalidArgument
from medusa_native.loading import load_checkpoint
from medusa_native.params import SpeculativeConfig
from medusa_native.training.progress import Meter

Prompts = Sequence[Sequence[int]]
Runs = dict[str, list[Run]]


def open_engine(
    model: str,
    config: SpeculativeConfig,
    *,
    synthetic_acceptance_length: float | None = None,
    num_heads: int = 4,
    draft_vocab: int = 8192,
    **options: Any,
) -> LoadedEngine:
    """Start an engine with the heads `config` names.

    With `synthetic_acceptance_length` drafted tokens are kept at random, so many a step on average
    (the root included), right or wrong. Then no trained heads are needed: without any, random ones
    of the given number and draft vocabulary are made, for their cost.

    Raises
    ------
    InvalidArgument
        A length that the tree cannot yield.
    """
    if synthetic_acceptance_length is None:
        given = None if config.model is None else config
        return load_engine(model, given, None, **options)
    owner, name = "bench", "synthetic_acceptance_length"
    options[name] = check_number(owner, name, synthetic_acceptance_length, 1, 64, "[1, 64]")
    if config.model is not None:
        return load_engine(model, config, None, **options)
    shape = load_checkpoint(model).config
    with tempfile.TemporaryDirectory(prefix="medusa-bench-") as folder:
        write_random_heads(
            Path(folder), int(shape["hidden_size"]), int(shape["vocab_size"]),
            num_heads=num_heads, draft_vocab=draft_vocab, seed=0,
        )  # fmt: skip
        made = SpeculativeConfig(
            model=folder,
            medusa_choices=config.medusa_choices,
            max_total_draft_tokens=config.max_total_draft_tokens,
        )
        return load_engine(model, made, None, **options)


def measure_latency(
    engine: _core.Engine, prompts: Prompts, max_tokens: int, num_iters: int, *, sides: Sequence[str]
) -> Runs:
    """Decode prompts one at a time; each side answers each prompt in turn."""
    return _interleave(engine, [[prompt] for prompt in prompts], max_tokens, num_iters, sides)


def measure_throughput(
    engine: _core.Engine, prompts: Prompts, max_tokens: int, num_iters: int, *, sides: Sequence[str]
) -> Runs:
    """Decode all prompts at once, as many at a time as the engine takes."""
    return _interleave(engine, [prompts], max_tokens, num_iters, sides)


def _interleave(
    engine: _core.Engine,
    batches: Sequence[Prompts],
    max_tokens: int,
    num_iters: int,
    sides: Sequence[str],
) -> Runs:
    runs: Runs = {side: [] for side in sides}
    for side in sides:  # touches every page before the clock counts
        run_requests(engine, batches[0], min(max_tokens, 16), speculative=side != "plain")
    with Meter("bench", num_iters * len(batches) * len(sides)) as meter:
        for turn in range(num_iters):
            for index, batch in enumerate(batches):
                order = sides if (turn + index) % 2 == 0 else list(reversed(sides))
                for side in order:
                    found = run_requests(engine, batch, max_tokens, speculative=side != "plain")
                    runs[side].append(found)
                    meter.update(meter.done + 1, side)
    return runs


def report(loaded: LoadedEngine, runs: Runs) -> dict[str, Any]:
    """Return figures of both sides, and how they compare."""
    info = loaded.describe()
    length = loaded.engine.options.synthetic_acceptance_length
    result: dict[str, Any] = {
        **{key: info[key] for key in ("device", "num_threads", "dtype", "heads", "tree")},
        "weight_formats": info["weight_formats"],
        "synthetic_acceptance_length": length or None,
        "sides": {side: summarize(found) for side, found in runs.items()},
        "warnings": [],
    }
    if "medusa" in runs and "plain" in runs:
        plain, medusa = result["sides"]["plain"], result["sides"]["medusa"]
        speed = "tokens_per_second"
        result["speedup"] = medusa[speed] / plain[speed]
        result["identical"] = None if length else _identical(runs["plain"], runs["medusa"])
        result["warnings"] = warnings_of(medusa)
    return result


def _identical(plain: Sequence[Run], medusa: Sequence[Run]) -> bool:
    return all(
        [request.tokens for request in a.requests] == [request.tokens for request in b.requests]
        for a, b in zip(plain, medusa, strict=True)
    )


def check_lengths(loaded: LoadedEngine, prompts: Prompts, max_tokens: int) -> None:
    """Raise InvalidArgument for a prompt that leaves no room for the answer."""
    longest = max(len(prompt) for prompt in prompts)
    most = loaded.engine.options.max_model_len
    if longest + max_tokens > most:
        raise InvalidArgument(
            f"bench: a prompt of {longest} tokens and {max_tokens} generated ones exceed "
            f"max_model_len ({most})"
        )
