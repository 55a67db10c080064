"""Sampling parameters as the core takes them: texts as token ids, a seed for each answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from medusa_native import _core
from medusa_native.errors import InvalidArgument
from medusa_native.splitmix64 import splitmix64

if TYPE_CHECKING:
    from medusa_native.sampling_params import SamplingParams
    from medusa_native.tokenizer import Tokenizer


def child_seed(seed: int, index: int) -> int:
    """Return the seed of the answer with this index among the n to one prompt.

    The first has `seed` itself, so that it is the answer of ``n=1``. Number i > 0 has output i of
    SplitMix64 started at `seed`: neighbouring seeds, which other prompts of the call have, are not
    met.
    """
    if index == 0:
        return seed
    return int(splitmix64(seed, np.array([index], dtype=np.uint64))[0])


def check_typical(params: SamplingParams) -> None:
    """Raise InvalidArgument for what has no effect where nothing is drawn at random."""
    if not params.speculative:
        return
    for name, default in (("seed", None), ("n", 1), ("top_p", 1), ("top_k", 0), ("min_p", 0)):
        if getattr(params, name) != default:
            raise InvalidArgument(
                f'SamplingParams: {name} has no effect with acceptance_method "typical", which '
                "draws nothing at random; speculative=False does"
            )


def bad_word_tokens(tokenizer: Tokenizer, words: Iterable[str]) -> list[list[int]]:
    """Return the token sequences of words, as they begin a text and as they follow a space."""
    sequences: dict[tuple[int, ...], None] = {}
    for word in words:
        for text in (word.lstrip() or word, " " + word.lstrip()):
            ids = tuple(tokenizer.encode(text, add_special_tokens=False))
            if ids:
                sequences[ids] = None
    return [list(ids) for ids in sequences]


def core_sampling(
    params: SamplingParams,
    seed: int,
    end_tokens: frozenset[int],
    tokenizer: Tokenizer,
    vocab_size: int,
) -> _core.SamplingParams:
    """Return checked parameters of one answer.

    Parameters
    ----------
    end_tokens
        The model's own, empty where they are ignored.

    Raises
    ------
    InvalidArgument
        For a token id beyond the vocabulary, or bans that leave nothing to draw.
    """
    core = _core.SamplingParams(
        max_tokens=params.max_tokens,
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.min_p,
        seed=seed,
        stop_token_ids=sorted(set(params.stop_token_ids or ()) | end_tokens),
        min_tokens=params.min_tokens,
        speculative=params.speculative,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        logit_bias=sorted((params.logit_bias or {}).items()),
        allowed_token_ids=sorted(set(params.allowed_token_ids or ())),
        bad_words=bad_word_tokens(tokenizer, params.bad_words or ()),
        logprobs=-1 if params.logprobs is None else params.logprobs,
        prompt_logprobs=-1 if params.prompt_logprobs is None else params.prompt_logprobs,
    )
    core.check(vocab_size)
    return core
