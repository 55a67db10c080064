"""The model's own answers to prompts, many in flight at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medusa_native import _core
from medusa_native.training.records import Answer, Prompt

if TYPE_CHECKING:
    from medusa_native.tokenizer import Tokenizer


@dataclass(frozen=True)
class AnswerSettings:
    """How answers are drawn; temperature 0 is greedy. The seed of prompt i is ``seed + i``."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class Answering:
    """One engine that works through prompts.

    Parameters
    ----------
    length
        Longest prompt and answer together; longer ones are skipped.
    width
        Answers in flight.

    Attributes
    ----------
    num_tokens, num_skipped
        Generated tokens and skipped prompts so far.
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
        self._open: dict[int, Answer] = {}
        self.num_tokens = self.num_skipped = 0

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
        while waiting and len(self._open) < 2 * self._width:
            index, prompt = waiting.popleft()
            ids = self._tokenizer.apply_chat_template(prompt.messages)
            if len(ids) + self._settings.max_tokens > self._length:
                self.num_skipped += 1
                continue
            request = self._engine.submit(ids, self._sampling(index))
            self._open[request] = Answer(prompt.key, ids, [], "")

    def _sampling(self, index: int) -> _core.SamplingParams:
        s = self._settings
        return _core.SamplingParams(
            max_tokens=s.max_tokens,
            temperature=s.temperature,
            top_p=s.top_p,
            seed=(s.seed + index) % 2**64,
            stop_token_ids=list(self._tokenizer.eos_token_ids),
        )

    def _take(self, output: _core.StepOutput) -> Answer | None:
        """Add a step's tokens to their answer; return it when it is complete."""
        self.num_tokens += len(output.tokens)
        answer = self._open[output.request_id]
        tokens = [*answer.token_ids, *output.tokens]
        answer = Answer(answer.key, answer.prompt_token_ids, tokens, output.finish_reason)
        self._open[output.request_id] = answer
        if output.finish_reason == "none":
            return None
        del self._open[output.request_id]
        self._engine.forget(output.request_id)
        return answer
