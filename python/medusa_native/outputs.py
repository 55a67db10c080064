"""What decoding gives back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from medusa_native.logprobs import Logprob

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True)
class StepTimes:
    """Seconds of forward passes, by what they were spent on.

    Parameters
    ----------
    draft
        Laying out trees and prompts.
    forward
        The backbone, its logits included.
    accept
        Judging the drafts.
    commit
        Appending what was accepted to the cache, and recording it.
    heads
        The next guesses.
    """

    draft: float
    forward: float
    accept: float
    commit: float
    heads: float


@dataclass(frozen=True)
class Counters:
    """What is counted of one request, and of all together.

    A draft is one tree offered to the backbone. `num_draft_tokens` counts tree nodes without roots,
    so that its ratio to `num_accepted_tokens` is small for any tree: the figure to compare is
    `mean_acceptance_length`, tokens a step with the root included, as vLLM defines it.

    Parameters
    ----------
    num_cached_tokens
        Positions whose keys and values were taken from the prefix cache instead of computed.
    num_preemptions
        How often older requests took a request's pages; it then computes them again.
    num_forward_passes
        Of the backbone, prefill included. One that several requests share counts once for each of
        them, and once in the total.
    num_steps
        Decode steps of a sequence; prefill is not one.
    accepted_per_position
        ``[i]``: drafts whose node at depth i + 1 was accepted.
    rank_histogram
        ``[i][r]``: accepted nodes at depth i + 1 that were their head's guess of rank r, 0 the
        best.
    step_times
        Of those forward passes; one that is shared counts in full for each request.
    """

    num_prompt_tokens: int
    num_cached_tokens: int
    num_preemptions: int
    num_generated_tokens: int
    num_forward_passes: int
    num_steps: int
    mean_acceptance_length: float
    num_drafts: int
    num_draft_tokens: int
    num_accepted_tokens: int
    accepted_per_position: list[int]
    rank_histogram: list[list[int]]
    step_times: StepTimes


@dataclass(frozen=True)
class Metrics(Counters):
    """Counters of one request.

    Parameters
    ----------
    time_to_first_token, decode_time
        Seconds from submission to the first token, and from there to the last.
    tokens_per_second
        After the first token; 0 where there is no second one.
    """

    time_to_first_token: float
    decode_time: float
    tokens_per_second: float


@dataclass(frozen=True)
class TotalMetrics(Counters):
    """Counters of all requests of a decoder so far; `num_requests` were submitted.

    `num_generated_tokens` includes tokens behind stop strings, which answers leave out.
    """

    num_requests: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain types, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class CompletionOutput:
    """One answer.

    Parameters
    ----------
    token_ids
        All tokens generated, the one that ended the answer included.
    finish_reason
        ``"stop"``: an end token, a stop token or a stop string; ``"length"``: max_tokens or
        max_model_len; ``"abort"``: cancelled.
    stop_reason
        The stop string or stop token that was met; None for the model's own end token.
    logprobs
        For each token, id to `Logprob`: the token itself, then the likeliest, best first. None
        where `SamplingParams.logprobs` did not ask.
    cumulative_logprob
        Sum over `token_ids`, likewise.
    """

    index: int
    text: str
    token_ids: list[int]
    finish_reason: FinishReason | None
    stop_reason: str | int | None
    logprobs: list[dict[int, Logprob]] | None = None
    cumulative_logprob: float | None = None


@dataclass(frozen=True)
class RequestOutput:
    """One prompt and what was made of it; `prompt` is None where ids were given.

    Parameters
    ----------
    outputs
        As many as `SamplingParams.n`.
    metrics
        Of all outputs together: counts are sums, times from the first to the last.
    prompt_logprobs
        As `CompletionOutput.logprobs`, of the prompt's tokens; the first, which nothing precedes,
        has None. None where `SamplingParams.prompt_logprobs` did not ask.
    """

    request_id: int
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    metrics: Metrics
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain types, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Piece:
    """A stretch of text; `drafted` where heads guessed it, so that it cost no step of its own."""

    text: str
    drafted: bool


@dataclass(frozen=True)
class StreamChunk:
    """What one step added to a streamed answer.

    Parameters
    ----------
    text
        New text: whole characters only, and nothing that may turn out to begin a stop string.
        Texts of all chunks together are the text of the answer.
    token_ids
        Tokens the step accepted; those after a stop string are left out.
    pieces
        `text`, by origin.
    finish_reason, stop_reason, metrics
        Of the whole answer, on its last chunk; else None.
    logprobs
        Of `token_ids`, as in `CompletionOutput`.
    """

    request_id: int
    text: str
    token_ids: list[int]
    pieces: list[Piece]
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    metrics: Metrics | None = None
    logprobs: list[dict[int, Logprob]] | None = None
