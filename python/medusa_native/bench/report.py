"""From timelines to the figures people compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_native.bench.runner import PARTS, Run
from medusa_native.metrics import ranks_by_depth

if TYPE_CHECKING:
    from medusa_native import _core

NEAR_ZERO = 1.05  # tokens a step below which guessing is in vain


def summarize(runs: Sequence[Run]) -> dict[str, Any]:
    """Return latencies in milliseconds, speeds, and what became of drafts.

    `tokens_per_second` is a median over runs, of all their requests together, prompts included;
    `decode_tokens_per_second` that of single requests after their first token.
    """
    requests = [request for run in runs for request in run.requests]
    per_token = [request.time_per_output_token for request in requests]
    gaps = [gap for request in requests for gap in request.inter_token_latencies]
    return {
        "requests": len(requests),
        "tokens": sum(run.num_tokens for run in runs),
        "tokens_per_second": float(np.median([run.num_tokens / run.seconds for run in runs])),
        "requests_per_second": float(np.median([len(r.requests) / r.seconds for r in runs])),
        "decode_tokens_per_second": float(np.median([1 / t if t > 0 else 0.0 for t in per_token])),
        "time_to_first_token_ms": spread([r.time_to_first_token for r in requests]),
        "time_per_output_token_ms": spread(per_token),
        "inter_token_latency_ms": spread(gaps),
        "latency_ms": spread([request.latency for request in requests]),
        **acceptance(runs),
        **step_times(runs),
    }


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return mean, median and 95th percentile in milliseconds."""
    if not seconds:
        return {"mean": 0.0, "p50": 0.0, "p95": 0.0}
    values = 1e3 * np.asarray(seconds)
    p50, p95 = np.percentile(values, [50, 95])
    return {"mean": float(values.mean()), "p50": float(p50), "p95": float(p95)}


def acceptance(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what became of the drafts of all requests together."""
    counters = [metrics for run in runs for metrics in run.counters]
    steps = sum(m.num_steps for m in counters)
    drafts = sum(m.num_drafts for m in counters)
    accepted = sum(m.num_accepted_tokens for m in counters)
    depth = max((len(m.accepted_per_position) for m in counters), default=0)
    positions = [sum(m.accepted_per_position[i] for m in counters) for i in range(depth)]
    return {
        "mean_acceptance_length": 1 + accepted / steps if steps else 1.0,
        "num_steps": steps,
        "num_drafts": drafts,
        "num_draft_tokens": sum(m.num_draft_tokens for m in counters),
        "num_accepted_tokens": accepted,
        "acceptance_per_position": [round(n / drafts, 4) if drafts else 0.0 for n in positions],
        "rank_histogram": rank_histogram(counters),
    }


def rank_histogram(counters: Sequence[_core.Metrics]) -> list[list[int]]:
    """Return ``[i][r]``: accepted nodes at depth i + 1 that were their head's guess of rank r."""
    each = [ranks_by_depth(m.rank_histogram, len(m.accepted_per_position)) for m in counters]
    return np.sum(each, axis=0).astype(int).tolist() if each else []


def step_times(runs: Sequence[Run]) -> dict[str, Any]:
    """Return how many forward passes there were, prompts included, and a mean one's parts."""
    count = sum(run.passes.count for run in runs)
    seconds = np.sum([run.passes.seconds for run in runs], axis=0)
    parts = 1e3 * seconds / max(count, 1)
    return {"num_forward_passes": count, "step_ms": dict(zip(PARTS, parts.tolist(), strict=True))}


def warnings_of(medusa: dict[str, Any]) -> list[str]:
    """Return what a user should know before believing the figures."""
    length = medusa["mean_acceptance_length"]
    if medusa["num_drafts"] == 0 or length >= NEAR_ZERO:
        return []
    question = "Do the heads belong to this model?"
    return [f"hardly any guess was right: {length:.3f} tokens a step. {question}"]
