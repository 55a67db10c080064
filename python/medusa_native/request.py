"""One answer on its way through the engine, and the answers to one prompt brought together."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import astuple, fields, replace
from typing import TYPE_CHECKING, Any

from medusa_native.logprobs import Logprob, as_dicts, cumulative
from medusa_native.outputs import (
    CompletionOutput,
    Metrics,
    RequestOutput,
    StepTimes,
    StreamChunk,
)

if TYPE_CHECKING:
    from medusa_native import _core
    from medusa_native.answer import Answer
    from medusa_native.logprobs import Entries
    from medusa_native.tokenizer import Tokenizer


class Request:
    """A prompt, its sampling parameters as the core takes them, and its growing answer."""

    def __init__(
        self,
        prompt: str | None,
        prompt_token_ids: list[int],
        sampling: _core.SamplingParams,
        answer: Answer,
        tokenizer: Tokenizer,
    ) -> None:
        self.request_id = -1
        self.prompt = prompt
        self.prompt_token_ids = prompt_token_ids
        self.sampling = sampling
        self.answer = answer
        self.chunks: deque[StreamChunk] | None = None  # one a step, where somebody streams
        self.metrics: Metrics | None = None
        self._tokenizer = tokenizer
        self._prompt_logprobs: Sequence[Entries] = ()

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""
        return self.metrics is not None

    def has_news(self) -> bool:
        """Whether there is a chunk to read, or nothing more to wait for."""
        return bool(self.chunks) or self.finished

    def take(self, output: _core.StepOutput) -> list[int]:
        """Add what one step brought to the answer; return the tokens that were kept."""
        self._prompt_logprobs = output.prompt_logprobs or self._prompt_logprobs
        return self.answer.add(
            output.tokens, output.finish_reason, output.stop_token, output.logprobs
        )

    def add_chunk(self, kept: list[int]) -> None:
        """Queue what the last step brought, where somebody streams."""
        if self.chunks is None:
            return
        answer = self.answer
        pieces = answer.take()
        text = "".join(piece.text for piece in pieces)
        rows = answer.logprobs[len(answer.logprobs) - len(kept) :]
        end = (answer.finish_reason, answer.stop_reason, self.metrics)
        self.chunks.append(
            StreamChunk(self.request_id, text, kept, pieces, *end, self._logprobs(rows))
        )

    def completion(self, index: int) -> CompletionOutput:
        """Return the answer."""
        answer, rows = self.answer, self.answer.logprobs
        return CompletionOutput(
            index,
            answer.text,
            answer.token_ids,
            answer.finish_reason,
            answer.stop_reason,
            self._logprobs(rows),
            None if self.sampling.logprobs < 0 else cumulative(rows),
        )

    def _logprobs(self, rows: Sequence[Entries]) -> list[dict[int, Logprob]] | None:
        return None if self.sampling.logprobs < 0 else as_dicts(self._tokenizer, rows)

    def prompt_logprobs(self) -> list[dict[int, Logprob] | None] | None:
        """Return those of the prompt's tokens, None for the first, or None where unasked for."""
        if self.sampling.prompt_logprobs < 0:
            return None
        return [None, *as_dicts(self._tokenizer, self._prompt_logprobs)]


def output_of(answers: Sequence[Request]) -> RequestOutput:
    """Return the result of finished requests that share a prompt."""
    first = answers[0]
    return RequestOutput(
        first.request_id,
        first.prompt,
        first.prompt_token_ids,
        [request.completion(index) for index, request in enumerate(answers)],
        True,
        combine([request.metrics for request in answers if request.metrics is not None]),
        first.prompt_logprobs(),
    )


def combine(metrics: Sequence[Metrics]) -> Metrics:
    """Return the counters of several answers to one prompt: counts are sums."""
    first = metrics[0]
    if len(metrics) == 1:
        return first
    names = [field.name for field in fields(Metrics)]
    total = replace(first, **{n: _sum([getattr(m, n) for m in metrics]) for n in names})
    seconds = max(m.decode_time for m in metrics)
    behind_first = total.num_generated_tokens - len(metrics)
    return replace(
        total,
        num_prompt_tokens=first.num_prompt_tokens,
        mean_acceptance_length=1 + total.num_accepted_tokens / total.num_steps
        if total.num_steps
        else 1.0,
        time_to_first_token=min(m.time_to_first_token for m in metrics),
        decode_time=seconds,
        tokens_per_second=behind_first / seconds if seconds > 0 else 0.0,
    )


def _sum(values: Sequence[Any]) -> Any:
    """Add numbers, or lists and times element by element."""
    if isinstance(values[0], StepTimes):
        return StepTimes(*map(sum, zip(*map(astuple, values), strict=True)))
    if isinstance(values[0], list):
        return [_sum(column) for column in zip(*values, strict=True)]
    return sum(values)
