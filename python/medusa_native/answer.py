"""The growing answer of one request: its tokens, its text, and where it stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medusa_native.outputs import FinishReason, Piece

if TYPE_CHECKING:
    from medusa_native.logprobs import Entries
    from medusa_native.params import SamplingParams
    from medusa_native.tokenizer import DetokenizeStream


class Answer:
    """Tokens and text, one token at a time, so that a stop string ends it within an accepted block.

    Attributes
    ----------
    token_ids
        Tokens kept so far; the one that completes a stop string is the last.
    text
        Decoded so far, and cut at a stop string.
    logprobs
        Of `token_ids`, as the core gives them; empty where none were asked for.
    finish_reason, stop_reason
        See `CompletionOutput`; None while the answer grows.
    """

    def __init__(
        self, detokenizer: DetokenizeStream, params: SamplingParams, end_tokens: frozenset[int]
    ) -> None:
        self.token_ids: list[int] = []
        self.text = ""
        self.logprobs: list[Entries] = []
        self.finish_reason: FinishReason | None = None
        self.stop_reason: str | int | None = None
        self._detokenizer = detokenizer
        self._params = params
        self._end_tokens = end_tokens
        self._stops: tuple[str, ...] = tuple(params.stop or ())
        self._runs: list[tuple[int, bool]] = []  # (end offset in text, drafted), ascending
        self._sent = 0  # characters given out
        self._checked = 0  # no stop string ends the answer within these characters

    def add(
        self,
        tokens: Sequence[int],
        finish_reason: str,
        stop_token: int,
        logprobs: Sequence[Entries] = (),
    ) -> list[int]:
        """Take what one step accepted and return the tokens that were kept.

        All but the last token were guessed by heads: the last is what the backbone itself produced
        after them.
        """
        before = len(self.token_ids)
        for index, token in enumerate(tokens):
            is_stop = stop_token >= 0 and index == len(tokens) - 1
            self._add_token(token, drafted=index < len(tokens) - 1, is_stop=is_stop)
            if self.finish_reason is not None:
                break
        else:
            if finish_reason != "none":
                self._finish(finish_reason, stop_token)
        kept = self.token_ids[before:]
        self.logprobs += logprobs[: len(kept)]
        return kept

    def _add_token(self, token: int, *, drafted: bool, is_stop: bool) -> None:
        self.token_ids.append(token)
        if not is_stop or self._params.include_stop_str_in_output:
            self._add_text(self._detokenizer.push([token]), drafted)
        if len(self.token_ids) <= self._params.min_tokens:
            self._checked = len(self.text)
        elif not is_stop:
            self._cut_at_stop_string()

    def _add_text(self, text: str, drafted: bool) -> None:
        if text:
            self.text += text
            self._runs.append((len(self.text), drafted))

    def _cut_at_stop_string(self) -> None:
        found = [
            (self.text.find(stop, max(0, self._checked - len(stop) + 1)), stop)
            for stop in self._stops
        ]
        found = [(at, stop) for at, stop in found if at >= 0]
        if not found:
            self._checked = len(self.text)
            return
        at, stop = min(found, key=lambda match: match[0])
        end = at + len(stop) if self._params.include_stop_str_in_output else at
        self.text = self.text[:end]
        self.finish_reason, self.stop_reason = "stop", stop

    def _finish(self, finish_reason: str, stop_token: int) -> None:
        self._add_text(self._detokenizer.finish(), drafted=False)
        self._cut_at_stop_string()
        if self.finish_reason is not None:
            return
        if finish_reason == "stop":
            self.finish_reason = "stop"
            self.stop_reason = None if stop_token in self._end_tokens else stop_token
        else:
            self.finish_reason = "length" if finish_reason == "length" else "abort"

    def take(self) -> list[Piece]:
        """Return text not given out yet, by origin; what may begin a stop string waits."""
        end = len(self.text) if self.finish_reason is not None else self._settled()
        pieces: list[Piece] = []
        for run_end, drafted in self._runs:
            stop = min(run_end, end)
            if stop > self._sent:
                pieces.append(Piece(self.text[self._sent : stop], drafted))
                self._sent = stop
        self._runs = [run for run in self._runs if run[0] > self._sent]
        return pieces

    def _settled(self) -> int:
        """Length of the text without the longest ending that begins a stop string."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(self.text)), longest, -1):
                if self.text.endswith(stop[:length]):
                    longest = length
                    break
        return max(self._sent, len(self.text) - longest)
