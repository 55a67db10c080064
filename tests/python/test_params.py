"""Parameters: defaults, aliases, and errors that name what is wrong."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest

from medusa_native import InvalidArgument, SamplingParams, SpeculativeConfig


def test_deterministic_by_default() -> None:
    params = SamplingParams()
    assert params.temperature == 0.0
    assert params.max_tokens == 256
    assert params.speculative


@pytest.mark.parametrize(
    ("alias", "name", "value"),
    [
        ("max_new_tokens", "max_tokens", 7),
        ("min_new_tokens", "min_tokens", 3),
        ("num_return_sequences", "n", 1),
        ("repeat_penalty", "repetition_penalty", 1.5),
        ("random_seed", "seed", 5),
        ("rng_seed", "seed", 6),
    ],
)
def test_sampling_aliases(alias: str, name: str, value: int) -> None:
    assert SamplingParams(**{alias: value}) == SamplingParams(**{name: value})


def test_stop_is_one_string_or_several() -> None:
    assert SamplingParams(stop="a") == SamplingParams(stop=["a"])
    assert SamplingParams(stop_strings=["a", "b"]) == SamplingParams(stop=("a", "b"))


def test_do_sample() -> None:
    assert SamplingParams(do_sample=False).temperature == 0.0
    assert SamplingParams(do_sample=True).temperature == 1.0
    assert SamplingParams(do_sample=True, temperature=0.5).temperature == 0.5
    with pytest.raises(InvalidArgument, match="do_sample"):
        SamplingParams(do_sample=False, temperature=0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("max_tokens", None),
        ("min_tokens", -1),
        ("min_tokens", 257),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        pytest.param("temperature", 10**400, id="beyond every float"),
        ("temperature", "hot"),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", 1.5),
        ("seed", -1),
        ("seed", 2**64),
        ("stop", ""),
        ("stop", [1]),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", 3),
        ("ignore_eos", 1),
        ("n", 0),
        ("n", 2),  # at temperature 0
        ("repetition_penalty", 0),
        ("repetition_penalty", float("inf")),
        ("repetition_penalty", "strong"),
        ("presence_penalty", 2.5),
        ("presence_penalty", None),
        ("frequency_penalty", -2.5),
        ("frequency_penalty", True),
        ("logit_bias", {3: 101}),
        ("logit_bias", {3: float("nan")}),
        ("logit_bias", {-3: 1}),
        ("logit_bias", {"3": 1}),
        ("logit_bias", [3]),
        ("allowed_token_ids", []),
        ("allowed_token_ids", [-1]),
        ("allowed_token_ids", [1.5]),
        ("allowed_token_ids", 3),
        ("bad_words", [""]),
        ("bad_words", [3]),
        ("bad_words", 3),
        ("logprobs", -1),
        ("logprobs", 65),
        ("logprobs", True),
        ("prompt_logprobs", 65),
        ("speculative", None),
    ],
)
def test_bad_values_are_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=name):
        SamplingParams(**{name: value})


@pytest.mark.parametrize("name", ["typical_p", "best_of", "bad_words_ids", "temprature"])
def test_unknown_parameters_are_named(name: str) -> None:
    with pytest.raises(InvalidArgument, match=name):
        SamplingParams(**{name: 1})
    with pytest.raises(InvalidArgument, match=name):
        SpeculativeConfig(**{name: 1})


def test_an_alias_and_its_name_exclude_each_other() -> None:
    with pytest.raises(InvalidArgument, match="max_new_tokens"):
        SamplingParams(max_tokens=3, max_new_tokens=3)
    with pytest.raises(InvalidArgument, match="medusa_path"):
        SpeculativeConfig(model="a", medusa_path="b")


def test_params_are_values() -> None:
    params = SamplingParams(temperature=0.5, stop=["a"], stop_token_ids=[1])
    assert pickle.loads(pickle.dumps(params)) == params == copy.copy(params)
    assert replace(params, seed=3).seed == 3
    with pytest.raises(AttributeError):
        params.seed = 3  # type: ignore[misc]


def test_speculative_aliases() -> None:
    config = SpeculativeConfig(
        medusa_path="heads", num_assistant_tokens=2, medusa_speculation_length=64
    )
    assert config == SpeculativeConfig(
        model="heads", num_speculative_tokens=2, max_total_draft_tokens=63
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "eagle"),
        ("model", 3),
        ("num_speculative_tokens", 0),
        ("max_total_draft_tokens", -2),
        ("medusa_choices", []),
        ("medusa_choices", [0]),
        ("medusa_choices", [[-1]]),
        ("medusa_choices", [["0"]]),
        ("acceptance_method", None),
        ("acceptance_method", "fast"),
        ("posterior_threshold", 0.2),
        ("posterior_alpha", 0.2),
    ],
)
def test_bad_speculation_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=name):
        SpeculativeConfig(**{name: value})


def test_speculative_config_of_a_dict() -> None:
    config = SpeculativeConfig.of({"model": "heads", "medusa_choices": [[0], [0, 0]]})
    assert config.medusa_choices == ((0,), (0, 0))
    assert SpeculativeConfig.of(config) is config
    with pytest.raises(InvalidArgument, match="speculative_config"):
        SpeculativeConfig.of("heads")  # type: ignore[arg-type]
