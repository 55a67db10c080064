"""What decoding counts, of one request and of all."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from tiny_model import random_heads, save_heads

from medusa_native import Decoder, SamplingParams

SHORT = SamplingParams(max_tokens=8, ignore_eos=True)


def test_metrics(medusa: Decoder) -> None:
    (output,) = medusa.generate("metrics", SamplingParams(max_tokens=32, ignore_eos=True))
    metrics = output.metrics
    assert metrics.num_prompt_tokens == len(output.prompt_token_ids)
    assert metrics.num_generated_tokens == 32
    assert metrics.num_drafts <= metrics.num_steps
    assert metrics.num_accepted_tokens == sum(metrics.accepted_per_position)
    expected = 1 + metrics.num_accepted_tokens / metrics.num_steps
    assert metrics.mean_acceptance_length == pytest.approx(expected)
    assert metrics.time_to_first_token > 0
    assert metrics.tokens_per_second == pytest.approx(31 / metrics.decode_time)
    ranks = [sum(counts) for counts in metrics.rank_histogram]
    assert ranks == metrics.accepted_per_position
    assert metrics.num_forward_passes == metrics.num_steps + 1
    times = metrics.step_times
    assert min(times.draft, times.forward, times.accept, times.commit, times.heads) > 0
    shown = json.loads(json.dumps(output.to_dict()))["metrics"]
    assert shown["step_times"]["heads"] == times.heads
    assert shown["rank_histogram"] == metrics.rank_histogram


def test_answers_to_one_prompt_are_counted_together(medusa: Decoder) -> None:
    params = SamplingParams(max_tokens=8, ignore_eos=True, temperature=1.0, n=3)
    metrics = medusa.generate("three", params)[0].metrics
    assert [sum(counts) for counts in metrics.rank_histogram] == metrics.accepted_per_position
    assert metrics.num_forward_passes == metrics.num_steps + 3
    assert metrics.step_times.forward > 0


def test_total_metrics(model: Path, heads: Path) -> None:
    decoder = Decoder(model, heads, max_num_seqs=3)
    assert decoder.metrics().num_requests == 0
    assert decoder.metrics().mean_acceptance_length == 1.0
    outputs = decoder.generate([f"prompt {i}" for i in range(5)], SHORT)
    total = decoder.metrics()
    assert total.num_requests == 5
    for name in ("num_generated_tokens", "num_steps", "num_drafts", "num_accepted_tokens"):
        assert getattr(total, name) == sum(getattr(o.metrics, name) for o in outputs)
    assert total.num_forward_passes < sum(o.metrics.num_forward_passes for o in outputs)
    assert json.loads(json.dumps(total.to_dict()))["num_requests"] == 5


def test_heads_that_are_never_right_are_named_once(model: Path, tmp_path: Path) -> None:
    wrong = random_heads(3, version=1, seed=1)
    wrong["0.1.weight"][:] = 0  # every guess is token 0
    folder = save_heads(tmp_path / "wrong", tensors=wrong)
    config = {"model": folder, "medusa_choices": "chain"}
    decoder = Decoder(model, speculative_config=config)
    params = SamplingParams(max_tokens=50, ignore_eos=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoder.generate("fifty steps are too few to tell", params)
    with pytest.warns(UserWarning, match="wrong.*almost never right"):
        decoder.generate("a hundred are enough", params)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoder.generate("once is enough", params)
