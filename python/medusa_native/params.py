"""What a caller may choose: how to sample, and how to speculate.

Names and meanings are vLLM's where it has the parameter, Medusa's own for the rest. The names of
Transformers and of the Medusa reference are accepted as aliases (:data:`SAMPLING_ALIASES`,
:data:`SPECULATIVE_ALIASES`). Whatever is not known, not supported or without effect is an
:class:`InvalidArgument` that names the parameter: nothing is ignored.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
    "stop_strings": "stop",
    "stop_words": "stop",
    "random_seed": "seed",
    "rng_seed": "seed",
}
SPECULATIVE_ALIASES = {
    "medusa_path": "model",
    "draft_model": "model",
    "medusa_num_heads": "num_speculative_tokens",
    "num_assistant_tokens": "num_speculative_tokens",
    "num_draft_tokens": "num_speculative_tokens",
}


def _translate_sampling(kwargs: Kwargs) -> Kwargs:
    translated = rename("SamplingParams", kwargs, SAMPLING_ALIASES)
    if "do_sample" in translated:
        sample = check_flag("SamplingParams", "do_sample", translated.pop("do_sample"))
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
        Neither stop tokens nor stop strings end the answer before.
    speculative
        False decodes this request plainly, on the same decoder.
    include_stop_str_in_output
        Leave the stop string, or the text of the stop token, in the text.
    skip_special_tokens
        Leave special tokens such as ``<|im_end|>`` out of the text.

    Raises
    ------
    InvalidArgument
        For an unknown name or a value out of range.

    Notes
    -----
    Aliases: ``max_new_tokens``, ``min_new_tokens``, ``stop_strings``, ``stop_words``,
    ``random_seed``, ``rng_seed``, and ``do_sample`` (False: temperature 0; True: temperature 1
    where none is given).
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

    def __post_init__(self) -> None:
        owner = "SamplingParams"
        put = functools.partial(object.__setattr__, self)
        put("max_tokens", check_integer(owner, "max_tokens", self.max_tokens, 1))
        put("min_tokens", check_integer(owner, "min_tokens", self.min_tokens, 0))
        if self.min_tokens > self.max_tokens:
            raise InvalidArgument(
                f"{owner}: min_tokens ({self.min_tokens}) exceeds max_tokens ({self.max_tokens})"
            )
        put("temperature", check_number(owner, "temperature", self.temperature, 0, 1e6, "[0, 1e6]"))
        put("top_p", check_number(owner, "top_p", self.top_p, 0, 1, "(0, 1]"))
        put("top_k", check_integer(owner, "top_k", self.top_k, 0))
        put("min_p", check_number(owner, "min_p", self.min_p, 0, 1, "[0, 1]"))
        if self.seed is not None:
            put("seed", check_integer(owner, "seed", self.seed, 0, 2**64 - 1))
        put("stop", _stop_strings(self.stop))
        put("stop_token_ids", _stop_tokens(self.stop_token_ids))
        flags = ("ignore_eos", "speculative", "include_stop_str_in_output", "skip_special_tokens")
        for name in flags:
            check_flag(owner, name, getattr(self, name))


def _stop_strings(value: Any) -> tuple[str, ...]:
    strings = (value,) if isinstance(value, str) else () if value is None else value
    if not isinstance(strings, Sequence) or not all(isinstance(s, str) and s for s in strings):
        raise InvalidArgument(f"SamplingParams: stop must hold non-empty strings, found {value!r}")
    return tuple(strings)


def _stop_tokens(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise InvalidArgument(
            f"SamplingParams: stop_token_ids must be a list of integers, found {value!r}"
        )
    return tuple(check_integer("SamplingParams", "stop_token_ids", token, 0) for token in value)


def _translate_speculative(kwargs: Kwargs) -> Kwargs:
    translated = rename("SpeculativeConfig", kwargs, SPECULATIVE_ALIASES)
    if "medusa_speculation_length" in translated:  # counts the root, max_total_draft_tokens not
        length = translated.pop("medusa_speculation_length")
        if "max_total_draft_tokens" in translated:
            raise InvalidArgument(
                "SpeculativeConfig: medusa_speculation_length and max_total_draft_tokens are the "
                "same parameter; give one"
            )
        nodes = check_integer("SpeculativeConfig", "medusa_speculation_length", length, 2)
        translated["max_total_draft_tokens"] = nodes - 1
    return translated


@checked_init(_translate_speculative)
@dataclass(frozen=True)
class SpeculativeConfig:
    """How heads speculate.

    Parameters
    ----------
    method
        ``"medusa"``.
    model
        The heads: a folder, a file, a hub id, or ``"auto"`` for those shipped for the model.
    num_speculative_tokens
        Depth of the tree at most, that is, how many heads are used.
    medusa_choices
        The tree: ``"auto"`` (as `medusa-native tune` found it for this device; else the one stored
        with the heads, else ``"mc_sim_7b_63"``, cut to their number and to the nodes that usually
        pay here), ``"chain"``, the name of a stock tree, a JSON file, or a list of paths, each a
        list of ranks (``[0, 1]``: the best guess of head 1, then the second best of head 2).
    max_total_draft_tokens
        Nodes of the tree at most, the root not counted.
    acceptance_method
        ``"exact"``: what plain decoding would have produced, greedy or seeded.
    posterior_threshold, posterior_alpha
        Of ``"typical"`` acceptance, which this version does not have.

    Notes
    -----
    Aliases: ``medusa_path``, ``draft_model`` (model); ``medusa_num_heads``,
    ``num_assistant_tokens``, ``num_draft_tokens`` (num_speculative_tokens);
    ``medusa_speculation_length`` (max_total_draft_tokens, root counted).
    """

    method: str = "medusa"
    model: str | Path | None = None
    num_speculative_tokens: int | None = None
    medusa_choices: str | Path | Sequence[Sequence[int]] = "auto"
    max_total_draft_tokens: int | None = None
    acceptance_method: str = "exact"
    posterior_threshold: float = 0.09
    posterior_alpha: float = 0.3

    def __post_init__(self) -> None:
        owner = "SpeculativeConfig"
        if self.method != "medusa":
            raise InvalidArgument(f'{owner}: method must be "medusa", found {self.method!r}')
        if self.model is not None and not isinstance(self.model, (str, Path)):
            raise InvalidArgument(f"{owner}: model must be a path or an id, found {self.model!r}")
        for name in ("num_speculative_tokens", "max_total_draft_tokens"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_integer(owner, name, getattr(self, name), 1))
        self._check_acceptance(owner)
        if not isinstance(self.medusa_choices, (str, Path)):
            object.__setattr__(self, "medusa_choices", check_paths(self.medusa_choices))

    def _check_acceptance(self, owner: str) -> None:
        if self.acceptance_method == "typical":
            raise InvalidArgument(
                f'{owner}: acceptance_method "typical" is not available in this version; "exact" is'
            )
        if self.acceptance_method != "exact":
            raise InvalidArgument(
                f'{owner}: acceptance_method must be "exact", found {self.acceptance_method!r}'
            )
        for name, default in (("posterior_threshold", 0.09), ("posterior_alpha", 0.3)):
            if getattr(self, name) != default:
                raise InvalidArgument(
                    f'{owner}: {name} has no effect with acceptance_method="exact"'
                )

    @classmethod
    def of(cls, value: SpeculativeConfig | Mapping[str, Any]) -> SpeculativeConfig:
        """Return `value`, a configuration or a mapping of its parameters, as a configuration."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise InvalidArgument(
                f"speculative_config must be a SpeculativeConfig or a dict, found {value!r}"
            )
        return cls(**value)


def check_paths(value: Any) -> tuple[tuple[int, ...], ...]:
    """Return tree paths as tuples; raise InvalidArgument for anything but lists of integers."""
    owner, name = "SpeculativeConfig", "medusa_choices"
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or not value:
        raise InvalidArgument(f"{owner}: {name} must be a name or a list of paths, found {value!r}")
    for path in value:
        if not isinstance(path, Sequence) or isinstance(path, (str, bytes)):
            raise InvalidArgument(f"{owner}: {name}: a path is a list of ranks, found {path!r}")
    return tuple(tuple(check_integer(owner, name, rank, 0) for rank in path) for path in value)
