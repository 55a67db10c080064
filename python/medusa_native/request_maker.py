"""From prompts to requests: tokenised, checked, and seeded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medusa_native.answer import Answer
from medusa_native.arguments import Message, Prompt, token_list
from medusa_native.core_sampling import check_typical, child_seed, core_sampling
from medusa_native.errors import InvalidArgument
from medusa_native.request import Request
from medusa_native.tokenizer import DetokenizeStream

if TYPE_CHECKING:
    from medusa_native.engine import LoadedEngine
    from medusa_native.params import SamplingParams


class RequestMaker:
    """Makes the requests of one decoder; `seed`: of those that bring none."""

    def __init__(self, loaded: LoadedEngine, seed: int) -> None:
        options = loaded.engine.options
        self._tokenizer = loaded.tokenizer
        self._vocab_size = loaded.vocab_size
        self._max_model_len = options.max_model_len
        self._typical = options.acceptance_method == "typical"
        self._seed = seed

    def of_conversation(
        self, index: int, conversation: Sequence[Message], params: SamplingParams
    ) -> list[Request]:
        """Render one conversation by the chat template; then as `of_prompt`."""
        text = self._tokenizer.render_chat(conversation)
        return self.of_prompt(index, text, params, add_special_tokens=False)

    def of_prompt(
        self, index: int, prompt: Prompt, params: SamplingParams, *, add_special_tokens: bool = True
    ) -> list[Request]:
        """Tokenise and check one prompt; `n` requests, and nothing is queued yet."""
        text = prompt if isinstance(prompt, str) else None
        ids = (
            self._tokenizer.encode(text, add_special_tokens)
            if text is not None
            else token_list(index, prompt)
        )
        self._check(index, ids)
        if self._typical:
            check_typical(params)
        seed = (self._seed + index) % 2**64 if params.seed is None else params.seed
        return [
            self._request(text, ids, params, child_seed(seed, answer)) for answer in range(params.n)
        ]

    def _request(
        self, text: str | None, ids: list[int], params: SamplingParams, seed: int
    ) -> Request:
        end_tokens = frozenset(() if params.ignore_eos else self._tokenizer.eos_token_ids)
        sampling = core_sampling(params, seed, end_tokens, self._tokenizer, self._vocab_size)
        detokenizer = DetokenizeStream(self._tokenizer, params.skip_special_tokens)
        return Request(
            text, ids, sampling, Answer(detokenizer, params, end_tokens), self._tokenizer
        )

    def _check(self, index: int, ids: list[int]) -> None:
        vocab_size = self._vocab_size
        if not ids:
            raise InvalidArgument(f"prompt {index} is empty")
        for position, token in enumerate(ids):
            if not 0 <= token < vocab_size:
                raise InvalidArgument(
                    f"prompt {index}: token {token} at position {position} is out of range; the "
                    f"vocabulary has {vocab_size} tokens"
                )
        if len(ids) >= self._max_model_len:
            raise InvalidArgument(
                f"prompt {index} has {len(ids)} tokens, which leaves no room for an answer within "
                f"max_model_len ({self._max_model_len})"
            )
