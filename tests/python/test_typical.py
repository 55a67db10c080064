"""Typical acceptance: the rule against its float64 twin, and decoding by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import perfect_heads, permutation_tensors, save_heads, save_model

from medusa_native import Decoder, InvalidArgument, SamplingParams, SpeculativeConfig, _core
from medusa_native.engine import load_model
from medusa_native.loading import load_checkpoint
from reference.typical import Verdict, accept, entropy, log_softmax

MARGIN = 1e-4  # far above what float32 loses, far below what decides
TREES = ["chain", "wide", "deep", "mc_sim_7b_63"]


def tree_of(name: str) -> _core.Tree:
    if name == "chain":
        return _core.Tree.chain(4)
    if name == "wide":
        return _core.Tree([[i] for i in range(9)])
    if name == "deep":
        return _core.Tree([[0], [1], [2], [0, 0], [0, 1], [1, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0]])
    return _core.Tree.stock(name)


def test_rule_agrees_with_its_twin_on_ten_thousand_cases() -> None:
    """Numbers on a grid are exact in either arithmetic: thresholds are met and paths are equal."""
    random = np.random.default_rng(1)
    lengths, at_threshold, equal = [], 0, 0
    for _ in range(10_000):
        tree = tree_of(str(random.choice(TREES)))
        log_probs = random.choice(np.arange(-32, 0) / 8, tree.size)
        entropies = random.choice(np.arange(0, 33) / 8, tree.size)
        thresholds = -random.integers(4, 24) / 8, -random.integers(1, 16) / 8
        expected = accept(tree.parents, log_probs, entropies, *thresholds)
        end = _core.typical_path_end(tree, log_probs, entropies, *thresholds)
        assert end == expected.nodes[-1]
        lengths.append(len(expected.nodes))
        bounds = np.minimum(thresholds[0], thresholds[1] - entropies[tree.parents[1:]])
        at_threshold += bool((log_probs[1:] == bounds).any())
        equal += expected.margin == 0
    assert set(lengths) == {1, 2, 3, 4, 5}
    assert at_threshold > 2000
    assert equal > 500


def draw_case(random: np.random.Generator) -> dict[str, Any]:
    """One tree with tokens and logits; logits of a coarse grid make equal siblings common."""
    tree = tree_of(str(random.choice(TREES)))
    vocab = int(random.choice([10, 31, 200]))
    logits = random.normal(0, random.choice([0.3, 2, 6]), (tree.size, vocab)).astype(np.float32)
    if random.random() < 0.5:
        logits = np.round(logits)
    tokens = random.integers(0, vocab, tree.size)
    best = np.argsort(-logits, kind="stable")
    for node in range(1, tree.size):  # often among the best
        if random.random() < 0.7:
            tokens[node] = best[tree.parents[node], tree.ranks[node]]
    return {
        "logits": logits,
        "tokens": tokens.tolist(),
        "tree": tree,
        "temperature": float(np.float32(random.choice([0, 0.25, 0.7, 1.0, 1.5]))),
        "posterior_threshold": float(np.float32(random.uniform(0.01, 0.6))),
        "posterior_alpha": float(np.float32(random.uniform(0.05, 0.95))),
    }


def judge(case: dict[str, Any]) -> tuple[Verdict, int]:
    """Return the twin's verdict and the next root."""
    log_probs = log_softmax(case["logits"].astype(np.float64), case["temperature"])
    parents = case["tree"].parents
    verdict = accept(
        parents,
        log_probs[np.maximum(parents, 0), case["tokens"]],
        entropy(log_probs),
        np.log(case["posterior_threshold"]),
        np.log(case["posterior_alpha"]),
    )
    return verdict, int(np.argmax(case["logits"][verdict.nodes[-1]]))


@pytest.mark.slow
def test_logits_to_paths_agree_with_the_twin_on_ten_thousand_cases() -> None:
    random = np.random.default_rng(1)
    lengths, close = [], 0
    while len(lengths) < 10_000:
        case = draw_case(random)
        verdict, next_root = judge(case)
        if verdict.margin < MARGIN:
            close += 1
            continue
        assert _core.accept_typical(**case) == (verdict.nodes, next_root)
        lengths.append(len(verdict.nodes))
    assert close < 1500
    assert set(lengths) == {1, 2, 3, 4, 5}


def test_token_zero_is_no_padding() -> None:
    """The reference pads short rows with id 0 and accepts the pad where id 0 is likely (B1)."""
    tree = _core.Tree([[0], [1], [0, 0]])
    logits = np.zeros((tree.size, 8), np.float32)
    logits[:, 0] = 9
    tokens = [5, 6, 0, 6]  # the shorter path [1] alone is right, and would grow by a pad
    assert _core.accept_typical(logits, tokens, tree) == ([0, 2], 0)


def test_wrong_shapes() -> None:
    logits = np.zeros((3, 4), np.float32)
    with pytest.raises(InvalidArgument, match="logits"):
        _core.accept_typical(logits, [0, 0], _core.Tree.chain(1))
    with pytest.raises(InvalidArgument, match="tokens"):
        _core.accept_typical(logits, [0, 0], _core.Tree.chain(2))


def typical(heads: Path, **rest: Any) -> SpeculativeConfig:
    return SpeculativeConfig(model=heads, acceptance_method="typical", **rest)


PROMPTS = [f"{'prompt ' * (i % 4)}number {i}" for i in range(8)]


@pytest.mark.parametrize("temperature", [0.0, 1e-5])
def test_without_temperature_it_is_greedy(
    plain: Decoder, model: Path, heads: Path, temperature: float
) -> None:
    decoder = Decoder(model, speculative_config=typical(heads))
    params = SamplingParams(max_tokens=40, ignore_eos=True, temperature=temperature)
    expected = plain.generate(PROMPTS, SamplingParams(max_tokens=40, ignore_eos=True))
    assert [o.outputs for o in decoder.generate(PROMPTS, params)] == [o.outputs for o in expected]


def test_penalties_and_bans_count_along_each_path(plain: Decoder, model: Path, heads: Path) -> None:
    decoder = Decoder(model, speculative_config=typical(heads))
    params = SamplingParams(
        max_tokens=40, ignore_eos=True, repetition_penalty=1.2, frequency_penalty=0.5,
        logit_bias={7: 2.0}, bad_words=["e"], logprobs=2,
    )  # fmt: skip
    for found, expected in zip(
        decoder.generate(PROMPTS, params), plain.generate(PROMPTS, params), strict=True
    ):
        assert found.outputs == expected.outputs


def test_company_does_not_matter(model: Path, heads: Path) -> None:
    decoder = Decoder(model, speculative_config=typical(heads))
    params = SamplingParams(max_tokens=40, ignore_eos=True, temperature=1.0)
    together = decoder.generate(PROMPTS, params)
    for prompt, output in zip(PROMPTS, together, strict=True):
        assert decoder.generate(prompt, params)[0].outputs == output.outputs


def test_each_step_keeps_likely_guesses_and_adds_the_likeliest_token(
    model: Path, heads: Path
) -> None:
    config = typical(heads, posterior_threshold=0.004, posterior_alpha=0.5)
    decoder = Decoder(model, speculative_config=config, dtype="float32")
    core = load_model(load_checkpoint(model), "float32", 1)
    params = SamplingParams(max_tokens=60, ignore_eos=True, temperature=1.3)
    guessed = 0
    for prompt in PROMPTS[:3]:
        history = decoder.tokenizer.encode(prompt)
        for chunk in decoder.stream(prompt, params):
            before = len(history)
            history += chunk.token_ids
            logits = core.logits(history).astype(np.float64)[before - 1 : -1]
            for token, row in zip(chunk.token_ids[:-1], log_softmax(logits, 1.3), strict=False):
                bound = min(np.log(0.004), np.log(0.5) - entropy(row))
                assert row[token] > bound - MARGIN
                guessed += token != np.argmax(row)
            assert chunk.token_ids[-1] == np.argmax(logits[-1])
    assert guessed > 10  # what greedy decoding would not have produced


def test_heads_that_are_right_are_accepted_to_full_depth(tmp_path: Path) -> None:
    tensors, permutation = permutation_tensors()
    right = perfect_heads(tensors, permutation, 4)
    model = save_model(tmp_path / "model", tensors=tensors)
    heads = save_heads(tmp_path / "heads", num_heads=4, tensors=right)
    decoder = Decoder(model, speculative_config=typical(heads, medusa_choices="mc_sim_7b_63"))
    params = SamplingParams(max_tokens=1 + 20 * 5, ignore_eos=True, temperature=0.5)
    (output,) = decoder.generate("go", params)
    token = output.prompt_token_ids[-1]
    for generated in output.outputs[0].token_ids:
        token = permutation[token]
        assert generated == token
    assert output.metrics.num_steps == 20
    assert output.metrics.accepted_per_position == [20] * 4


def test_tokens_after_the_end_are_dropped(model: Path, heads: Path) -> None:
    """The reference keeps them (B5)."""
    config = typical(heads, posterior_threshold=1e-4)
    decoder = Decoder(model, speculative_config=config)
    params = SamplingParams(max_tokens=60, ignore_eos=True, temperature=3.0)
    (free,) = decoder.generate("stop", params)
    tokens = free.outputs[0].token_ids
    for stop in sorted(set(tokens)):
        chosen = SamplingParams(
            max_tokens=60, ignore_eos=True, temperature=3.0, stop_token_ids=[stop]
        )
        (output,) = decoder.generate("stop", chosen)
        assert output.outputs[0].token_ids == tokens[: tokens.index(stop) + 1]


@pytest.mark.parametrize(
    ("name", "value"), [("seed", 1), ("n", 2), ("top_p", 0.9), ("top_k", 5), ("min_p", 0.1)]
)
def test_what_only_sampling_knows_is_refused(
    model: Path, heads: Path, name: str, value: Any
) -> None:
    decoder = Decoder(model, speculative_config=typical(heads))
    params = {"max_tokens": 8, "temperature": 1.0, name: value}
    with pytest.raises(InvalidArgument, match=name):
        decoder.generate("x", SamplingParams(**params))
    plain = Decoder(model)
    expected = plain.generate("x", SamplingParams(**params))
    found = decoder.generate("x", SamplingParams(**params, speculative=False))
    assert found[0].outputs == expected[0].outputs


@pytest.mark.parametrize("name", ["posterior_threshold", "posterior_alpha"])
@pytest.mark.parametrize("value", [0, 1, -0.1, float("nan"), "x", True])
def test_thresholds_out_of_range(name: str, value: Any) -> None:
    arguments = {"acceptance_method": "typical", name: value}
    with pytest.raises(InvalidArgument, match=name):
        SpeculativeConfig(**arguments)
