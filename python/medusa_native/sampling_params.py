"""How one request is decoded: names and meanings are vLLM's."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medusa_native.checks import (
    Kwargs,
    check_flag,
    check_integer,
    check_number,
    checked_init,
    rename,
)
from medusa_native.errors import InvalidArgument

SAMPLING_ALIASES = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "num_return_sequences": "n",
    "repeat_penalty": "repetition_penalty",
    "stop_strings": "stop",
    "stop_words": "stop",
    "random_seed": "seed",
    "rng_seed": "seed",
}
MAX_LOGPROBS = 64
MAX_COMPLETIONS = 4096
_OWNER = "SamplingParams"


def _translate_sampling(kwargs: Kwargs) -> Kwargs:
    translated = rename(_OWNER, kwargs, SAMPLING_ALIASES)
    if "do_sample" in translated:
        sample = check_flag(_OWNER, "do_sample", translated.pop("do_sample"))
        temperature = translated.setdefault("temperature", 1.0 if sample else 0.0)
        if sample != bool(temperature):
            raise InvalidArgument(
                f"SamplingParams: do_sample={sample} contradicts temperature={temperature}"
            )
    return translated


@checked_init(_translate_sampling)
@dataclass(frozen=True)
class SamplingParams:
    """How one request is decoded.

    Parameters
    ----------
    max_tokens
        Most tokens to generate.
    temperature
        0, the default, takes the most likely token (lowest id on ties).
    top_p, top_k, min_p
        Restrict sampling to the most likely tokens; 1, 0 and 0 switch them off.
    seed
        Of the noise that sampling adds. The same seed gives the same tokens, whatever else runs
        and whether or not heads speculate. None: the decoder's seed plus the index of the prompt
        in the call, so that calls repeat and prompts of one call differ.
    stop
        Strings that end the answer; the text is cut before the first of them.
    stop_token_ids
        Tokens that end the answer, besides the model's own end tokens.
    ignore_eos
        Go on after the model's end tokens.
    min_tokens
        Stop tokens cannot be drawn, and stop strings do not end the answer, before.
    speculative
        False decodes this request plainly, on the same decoder.
    include_stop_str_in_output
        Leave the stop string, or the text of the stop token, in the text.
    skip_special_tokens
        Leave special tokens such as ``<|im_end|>`` out of the text.
    n
        Answers to the prompt, at a temperature above 0. The first has `seed`; see
        `medusa_native.core_sampling.child_seed` for the others.
    repetition_penalty
        Above 1 makes tokens of prompt and answer less likely: divides a positive logit,
        multiplies any other. In [1e-4, 1e4].
    presence_penalty, frequency_penalty
        In [-2, 2]. Subtracted from the logits of tokens that the answer has: once, and once for
        each time.
    logit_bias
        Token id to what is added to its logit, in [-100, 100].
    allowed_token_ids
        Nothing else is drawn; None: everything may be.
    bad_words
        Words that the answer does not contain, each tokenised with and without a space before it:
        the last token is not drawn where the answer ends with those before.
    logprobs, prompt_logprobs
        Report, for each token of the answer or the prompt, its log probability and those of this
        many likeliest tokens, at most 64. They are the model's own: taken before penalties, biases,
        temperature and filters.

    Raises
    ------
    InvalidArgument
        For an unknown name, a value out of range, or values that contradict each other.

    Notes
    -----
    Aliases: ``max_new_tokens``, ``min_new_tokens``, ``num_return_sequences``, ``repeat_penalty``,
    ``stop_strings``, ``stop_words``, ``random_seed``, ``rng_seed``, and ``do_sample`` (False:
    temperature 0; True: temperature 1 where none is given).
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    ignore_eos: bool = False
    min_tokens: int = 0
    speculative: bool = True
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    n: int = 1
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    bad_words: str | Sequence[str] | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        put = functools.partial(object.__setattr__, self)
        for name, low, high, bounds in _NUMBERS:
            put(name, check_number(_OWNER, name, getattr(self, name), low, high, bounds))
        for name, low, most in _INTEGERS:
            put(name, check_integer(_OWNER, name, getattr(self, name), low, most))
        for name, most in (
            ("seed", 2**64 - 1),
            ("logprobs", MAX_LOGPROBS),
            ("prompt_logprobs", MAX_LOGPROBS),
        ):
            if getattr(self, name) is not None:
                put(name, check_integer(_OWNER, name, getattr(self, name), 0, most))
        put("stop", _strings("stop", self.stop))
        put("bad_words", _strings("bad_words", self.bad_words))
        put("stop_token_ids", _token_ids("stop_token_ids", self.stop_token_ids) or ())
        put("allowed_token_ids", _token_ids("allowed_token_ids", self.allowed_token_ids))
        put("logit_bias", _biases(self.logit_bias))
        for name in _FLAGS:
            check_flag(_OWNER, name, getattr(self, name))
        self._check_together()

    def _check_together(self) -> None:
        if self.min_tokens > self.max_tokens:
            raise InvalidArgument(
                f"{_OWNER}: min_tokens ({self.min_tokens}) exceeds max_tokens ({self.max_tokens})"
            )
        if self.n > 1 and self.temperature == 0:
            raise InvalidArgument(
                f"{_OWNER}: n must be 1 at temperature 0, where all answers are the same; "
                f"found {self.n}"
            )
        if self.allowed_token_ids == ():
            raise InvalidArgument(f"{_OWNER}: allowed_token_ids is empty: no token may be drawn")


_NUMBERS = (
    ("temperature", 0, 1e6, "[0, 1e6]"),
    ("top_p", 0, 1, "(0, 1]"),
    ("min_p", 0, 1, "[0, 1]"),
    ("repetition_penalty", 1e-4, 1e4, "[1e-4, 1e4]"),
    ("presence_penalty", -2, 2, "[-2, 2]"),
    ("frequency_penalty", -2, 2, "[-2, 2]"),
)
_INTEGERS = (
    ("max_tokens", 1, 2**31 - 1),
    ("min_tokens", 0, 2**31 - 1),
    ("top_k", 0, 2**31 - 1),
    ("n", 1, MAX_COMPLETIONS),
)
_FLAGS = ("ignore_eos", "speculative", "include_stop_str_in_output", "skip_special_tokens")


def _strings(name: str, value: Any) -> tuple[str, ...]:
    strings = (value,) if isinstance(value, str) else () if value is None else value
    if not isinstance(strings, Sequence) or not all(isinstance(s, str) and s for s in strings):
        raise InvalidArgument(f"{_OWNER}: {name} must hold non-empty strings, found {value!r}")
    return tuple(strings)


def _token_ids(name: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise InvalidArgument(f"{_OWNER}: {name} must be a list of integers, found {value!r}")
    return tuple(check_integer(_OWNER, name, token, 0) for token in value)


def _biases(value: Any) -> dict[int, float] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidArgument(
            f"{_OWNER}: logit_bias must map token ids to numbers, found {value!r}"
        )
    return {
        check_integer(_OWNER, "logit_bias", token, 0): check_number(
            _OWNER, "logit_bias", bias, -100, 100, "[-100, 100]"
        )
        for token, bias in value.items()
    }
