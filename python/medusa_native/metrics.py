"""From the engine's counters to the figures that users see."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from medusa_native.outputs import Metrics, StepTimes, TotalMetrics

if TYPE_CHECKING:
    from medusa_native import _core

PATIENCE = 64  # drafts before heads are judged
LEAST_ACCEPTED = 0.02  # tokens a draft


def summarize(counters: _core.Metrics, num_generated_tokens: int) -> Metrics:
    """Derive the figures of one request; tokens behind a stop string are not counted as generated."""
    seconds = counters.decode_time
    later = num_generated_tokens - 1
    return Metrics(
        **_common(counters, num_generated_tokens),
        time_to_first_token=counters.time_to_first_token,
        decode_time=seconds,
        tokens_per_second=later / seconds if seconds > 0 and later > 0 else 0.0,
    )


def total(counters: _core.Metrics) -> TotalMetrics:
    """Derive the figures of all requests together."""
    return TotalMetrics(
        **_common(counters, counters.num_generated_tokens), num_requests=counters.num_requests
    )


def _common(counters: _core.Metrics, num_generated_tokens: int) -> dict[str, Any]:
    steps, times = counters.num_steps, counters.step_times
    return {
        "num_prompt_tokens": counters.num_prompt_tokens,
        "num_cached_tokens": counters.num_cached_tokens,
        "num_preemptions": counters.num_preemptions,
        "num_generated_tokens": num_generated_tokens,
        "num_forward_passes": counters.num_forward_passes,
        "num_steps": steps,
        "mean_acceptance_length": 1 + counters.num_accepted_tokens / steps if steps else 1.0,
        "num_drafts": counters.num_drafts,
        "num_draft_tokens": counters.num_draft_tokens,
        "num_accepted_tokens": counters.num_accepted_tokens,
        "accepted_per_position": list(counters.accepted_per_position),
        "rank_histogram": ranks_by_depth(
            counters.rank_histogram, len(counters.accepted_per_position)
        ),
        "step_times": StepTimes(
            times.draft, times.forward, times.accept, times.commit, times.heads
        ),
    }


def ranks_by_depth(histogram: list[int], depth: int) -> list[list[int]]:
    """Return the core's flat histogram as a list for each depth."""
    ranks = len(histogram) // depth if depth else 0
    return [histogram[i * ranks : (i + 1) * ranks] for i in range(depth)]


class AcceptanceWatch:
    """Warns, once, of heads that guess next to nothing right.

    Wrong heads change no answer, so nothing else would tell.
    """

    def __init__(self, heads: object) -> None:
        self._heads = heads
        self._warned = False

    def look(self, counters: _core.Metrics) -> None:
        """Judge the counters of all requests so far."""
        drafts, accepted = counters.num_drafts, counters.num_accepted_tokens
        if self._warned or drafts < PATIENCE or accepted >= LEAST_ACCEPTED * drafts:
            return
        self._warned = True
        warnings.warn(
            f"the heads {str(self._heads)!r} are almost never right: {accepted} tokens of {drafts} "
            "drafts were accepted. Decoding with them is slower than without; were they trained "
            "for this model?",
            UserWarning,
            stacklevel=2,
        )
