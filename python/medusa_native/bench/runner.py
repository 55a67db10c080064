"""Requests on an engine, with the times at which their tokens came."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from medusa_native import _core

PARTS = ("draft", "forward", "accept", "commit", "heads")


@dataclass
class Timeline:
    """One request.

    Attributes
    ----------
    start
        When it was submitted.
    times
        When each step that gave tokens ended.
    tokens
        All tokens generated.
    """

    start: float
    times: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    @property
    def time_to_first_token(self) -> float:
        """Seconds from submission."""
        return self.times[0] - self.start

    @property
    def time_per_output_token(self) -> float:
        """Seconds a token after the first; 0 where there is none."""
        rest = len(self.tokens) - 1
        return (self.times[-1] - self.times[0]) / rest if rest > 0 else 0.0

    @property
    def inter_token_latencies(self) -> list[float]:
        """Seconds between one step that gave tokens and the next."""
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]

    @property
    def latency(self) -> float:
        """Seconds from submission to the last token."""
        return self.times[-1] - self.start


@dataclass(frozen=True)
class Passes:
    """Forward passes, each counted once however many requests shared it.

    Attributes
    ----------
    seconds
        What they took, by part, in the order of `PARTS`.
    """

    count: int = 0
    seconds: tuple[float, ...] = (0.0,) * len(PARTS)

    @classmethod
    def so_far(cls, engine: _core.Engine) -> Passes:
        """All passes of an engine."""
        totals = engine.totals()
        seconds = tuple(getattr(totals.step_times, part) for part in PARTS)
        return cls(totals.num_forward_passes, seconds)

    def since(self, earlier: Passes) -> Passes:
        """Return those that came after `earlier`."""
        pairs = zip(self.seconds, earlier.seconds, strict=True)
        return Passes(self.count - earlier.count, tuple(b - a for b, a in pairs))


@dataclass(frozen=True)
class Run:
    """Requests that were in flight together."""

    requests: list[Timeline]
    counters: list[_core.Metrics]
    seconds: float
    passes: Passes = Passes()

    @property
    def num_tokens(self) -> int:
        """Tokens generated."""
        return sum(len(request.tokens) for request in self.requests)


def run_requests(
    engine: _core.Engine, prompts: Sequence[Sequence[int]], max_tokens: int, *, speculative: bool
) -> Run:
    """Submit all prompts at once and step until each has `max_tokens` tokens.

    End tokens do not end an answer, so that every run does the same work.
    """
    before = Passes.so_far(engine)
    start = time.perf_counter()
    timelines: dict[int, Timeline] = {}
    for seed, prompt in enumerate(prompts):
        params = _core.SamplingParams(max_tokens=max_tokens, seed=seed, speculative=speculative)
        timelines[engine.submit(prompt, params)] = Timeline(start)
    try:
        while engine.has_unfinished():
            outputs = engine.step()
            now = time.perf_counter()
            for output in outputs:
                timelines[output.request_id].times.append(now)
                timelines[output.request_id].tokens += output.tokens
        seconds = time.perf_counter() - start
        counters = [engine.metrics(request) for request in timelines]
    finally:
        for request in timelines:
            engine.forget(request)
    passes = Passes.so_far(engine).since(before)
    return Run(list(timelines.values()), counters, seconds, passes)
