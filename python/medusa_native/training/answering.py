"""The model's own answers to prompts, many in flight at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medusa_native import _core
from medusa_native.core_sampling import child_seed
from medusa_native.training.records import Answer, Prompt
from medusa_native.training.talk import Talk, go_on, start

if TYPE_CHECKING:
    from medusa_native.tokenizer import Tokenizer


@dataclass(frozen=True)
class AnswerSettings:
    """How answers are drawn; temperature 0 is greedy. The seed of prompt i is ``seed + i``.

    With `replay` every user turn of a conversation is answered, at most `max_turns` of them.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    replay: bool = False
    max_turns: int | None = None


class Answering:
    """One engine that works through prompts.

    Parameters
    ----------
    length
        Longest prompt and answer together; longer ones are skipped, and conversations end there.
    width
        Answers in flight.

    Attributes
    ----------
    num_tokens, num_skipped, num_cut
        Generated tokens, skipped prompts, and conversations cut short so far.
    """

    def __init__(
        self,
        model: _core.Model,
        tokenizer: Tokenizer,
        settings: AnswerSettings,
        *,
        length: int,
        width: int = 64,
    ) -> None:
        self._tokenizer, self._settings = tokenizer, settings
        self._length, self._width = min(length, model.config.max_position_embeddings), width
        self._engine = _core.Engine(
            model, None, _core.Tree.root_only(), max_num_seqs=width, max_model_len=self._length
        )
        self._open: dict[int, tuple[Talk, list[int]]] = {}
        self.num_tokens = self.num_skipped = self.num_cut = 0

    def steps(self, prompts: Iterable[tuple[int, Prompt]]) -> Iterator[list[Answer]]:
        """Yield after each step the answers it finished; prompts come with their numbers."""
        waiting = deque(prompts)
        while waiting or self._open:
            self._submit(waiting)
            outputs = self._engine.step() if self._open else ()
            answers = [self._take(output) for output in outputs]
            yield [answer for answer in answers if answer is not None]

    def _submit(self, waiting: deque[tuple[int, Prompt]]) -> None:
        """Keep every slot of the engine busy."""
        s = self._settings
        while waiting and len(self._open) < 2 * self._width:
            index, prompt = waiting.popleft()
            talk = start(self._tokenizer, index, prompt, replay=s.replay, max_turns=s.max_turns)
            if self._fits(talk):
                self._answer(talk)
            else:
                self.num_skipped += 1

    def _fits(self, talk: Talk) -> bool:
        return len(talk.context) + self._settings.max_tokens <= self._length

    def _answer(self, talk: Talk) -> None:
        request = self._engine.submit(talk.context, self._sampling(talk))
        self._open[request] = talk, []

    def _sampling(self, talk: Talk) -> _core.SamplingParams:
        s = self._settings
        return _core.SamplingParams(
            max_tokens=s.max_tokens,
            temperature=s.temperature,
            top_p=s.top_p,
            seed=child_seed((s.seed + talk.index) % 2**64, talk.num_turns),
            stop_token_ids=list(self._tokenizer.eos_token_ids),
        )

    def _take(self, output: _core.StepOutput) -> Answer | None:
        """Add a step's tokens to their answer; return the record when nothing follows."""
        self.num_tokens += len(output.tokens)
        talk, tokens = self._open[output.request_id]
        tokens += output.tokens
        if output.finish_reason == "none":
            return None
        del self._open[output.request_id]
        self._engine.forget(output.request_id)
        talk.take(tokens)
        unasked = len(talk.waiting)
        if unasked and self._goes_on(talk, output.finish_reason):
            self._answer(talk)
            return None
        self.num_cut += unasked > 0
        return talk.finish(output.finish_reason, replay=self._settings.replay)

    def _goes_on(self, talk: Talk, reason: str) -> bool:
        """Prepare the next turn: after an answer with an end, where there is room for another."""
        return reason == "stop" and go_on(self._tokenizer, talk) and self._fits(talk)
