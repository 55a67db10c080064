"""Seeded sampling through a tree draws from the softmax: chi-square over many seeds.

The seeds are fixed, so the result is the same on every run."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sampling_twin import probabilities, process
from scipy.stats import chi2
from tiny_model import CONFIG, random_tensors

from medusa_native import _core

VOCAB, LENGTH, SEEDS = 6, 3, 12000
PROMPT = [1, 4, 2]
# Four children of each node, so that draws often find theirs.
TREE = [[i] for i in range(4)] + [[i, j] for i in range(4) for j in range(4)]
SHAPE = {
    "vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip
CASES: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 4, "min_p": 0.05},
    {"temperature": 1.0, "repetition_penalty": 1.4, "frequency_penalty": 0.8},
    {"temperature": 1.2, "bad_words": [[3], [2, 5]], "logit_bias": [(0, 0.5)]},
]


def as_core(array: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint8], str, tuple[int, ...]]:
    flat = np.ascontiguousarray(array, np.float32).view(np.uint8).reshape(-1)
    return flat, "F32", array.shape


@pytest.fixture(scope="module")
def parts() -> tuple[_core.Model, _core.Heads]:
    """A model of six tokens that none of them dominates, and two heads of random weights."""
    tensors = random_tensors(CONFIG | SHAPE, seed=4)
    tensors["lm_head.weight"] *= 0.4
    model = _core.Model.load(
        _core.ModelConfig(**SHAPE), {name: as_core(t) for name, t in tensors.items()}, num_threads=1
    )
    rng = np.random.default_rng(8)
    residual = [
        [(as_core(rng.standard_normal((64, 64)) / 8), as_core(rng.standard_normal(64)))]
        for _ in range(2)
    ]
    return model, _core.Heads.load(model, residual, [], [])


def expected(model: _core.Model, params: _core.SamplingParams) -> dict[tuple[int, ...], float]:
    """Return the probability of every answer, from the softmax of plain logits."""
    chances: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(LENGTH):
        longer = {}
        for answer, chance in chances.items():
            row = process(model.logits([*PROMPT, *answer])[-1], params, PROMPT, answer)
            for token, p in enumerate(probabilities(row, params)):
                longer[(*answer, token)] = chance * float(p)
        chances = longer
    return chances


def drawn(
    parts: tuple[_core.Model, _core.Heads], params: dict[str, Any]
) -> tuple[Counter[tuple[int, ...]], int]:
    """Return how often each answer came, and how many drafted tokens were accepted."""
    engine = _core.Engine(*parts, _core.Tree(TREE), max_num_seqs=32)
    answers: dict[int, list[int]] = {}
    for seed in range(SEEDS):
        sampling = _core.SamplingParams(max_tokens=LENGTH, seed=seed, **params)
        answers[engine.submit(PROMPT, sampling)] = []
    while engine.has_unfinished():
        for output in engine.step():
            answers[output.request_id] += output.tokens
    accepted = sum(engine.metrics(request).num_accepted_tokens for request in answers)
    return Counter(tuple(answer) for answer in answers.values()), accepted


def p_value(counts: Counter[tuple[int, ...]], chances: dict[tuple[int, ...], float]) -> float:
    """Return that of Pearson's test; cells that expect fewer than five are one."""
    assert all(chances[answer] > 0 for answer in counts)
    statistic, cells, rest, rest_mean = 0.0, 0, 0, 0.0
    for answer in itertools.product(range(VOCAB), repeat=LENGTH):
        mean = SEEDS * chances[answer]
        if mean < 5:
            rest, rest_mean = rest + counts[answer], rest_mean + mean
            continue
        statistic += (counts[answer] - mean) ** 2 / mean
        cells += 1
    if rest_mean >= 5:
        statistic += (rest - rest_mean) ** 2 / rest_mean
        cells += 1
    assert cells > 10
    return float(chi2.sf(statistic, cells - 1))


@pytest.mark.parametrize("params", CASES, ids=lambda params: "-".join(params))
def test_answers_follow_the_softmax(
    parts: tuple[_core.Model, _core.Heads], params: dict[str, Any]
) -> None:
    counts, accepted = drawn(parts, params)
    assert accepted > SEEDS / 2
    assert p_value(counts, expected(parts[0], _core.SamplingParams(**params))) > 1e-3
    hotter = params | {"temperature": 1.3 * params["temperature"], "min_p": 0.0, "top_p": 1.0}
    assert p_value(counts, expected(parts[0], _core.SamplingParams(**hotter))) < 1e-6
