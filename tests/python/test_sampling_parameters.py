"""Each sampling parameter against a NumPy twin, with heads and without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sampling_twin import decode, process
from scipy.special import log_softmax
from tiny_model import EOS, perfect_heads, permutation_tensors, save_heads, save_model

from medusa_native import Decoder, InvalidArgument, SamplingParams, _core
from medusa_native.core_sampling import bad_word_tokens, child_seed, core_sampling

PROMPTS = ["abcabc", "the other prompt, somewhat longer"]
ALONE: list[dict[str, Any]] = [
    {"repetition_penalty": 1.7},
    {"presence_penalty": 2.0},
    {"frequency_penalty": 0.7},
    {"logit_bias": {99: -100.0, 66: 2.5, 166: -1.0}},
    {"allowed_token_ids": list(range(40, 120))},
    {"bad_words": ["c", "r", "ca"]},
    {"min_tokens": 15, "stop_token_ids": list(range(0, 320, 3))},
    {"stop_token_ids": list(range(0, 320, 7))},
    {"repetition_penalty": 0.6, "temperature": 0.8},
    {"presence_penalty": -1.5, "temperature": 0.8},
    {"frequency_penalty": -0.4, "temperature": 0.8},
    {"top_k": 3, "temperature": 1.5},
    {"top_p": 0.7, "temperature": 1.5},
    {"min_p": 0.1, "temperature": 1.5},
]
CASES = [
    params | {"temperature": temperature}
    for params in ALONE
    for temperature in ([params["temperature"]] if "temperature" in params else [0.0, 0.8])
]


@pytest.fixture(scope="module")
def looping(tmp_path_factory: pytest.TempPathFactory) -> tuple[Decoder, Decoder]:
    """A model that likes to go round in cycles of three, plain and with heads that know them.

    Penalties drive it out of a cycle, often in the middle of an accepted block.
    """
    folder = tmp_path_factory.mktemp("looping")
    tensors, permutation = permutation_tensors(cycle_length=3, scale=0.045, noise=2.0)
    model = save_model(folder / "model", tensors=tensors)
    right = perfect_heads(tensors, permutation, 4)
    heads = save_heads(folder / "heads", num_heads=4, tensors=right)
    config = {"model": heads, "medusa_choices": "mc_sim_7b_63"}
    return Decoder(model, num_threads=1), Decoder(model, speculative_config=config, num_threads=1)


@pytest.mark.parametrize("params", CASES, ids=lambda params: "-".join(params))
def test_a_parameter_alone(looping: tuple[Decoder, Decoder], params: dict[str, Any]) -> None:
    """Medusa is plain is the twin; heads are accepted, and the parameter matters."""
    plain, medusa = looping
    base = {"max_tokens": 20, "ignore_eos": True, "seed": 5}
    chosen = SamplingParams(**base, **params)
    outputs = medusa.generate(PROMPTS, chosen)
    assert [o.outputs for o in outputs] == [o.outputs for o in plain.generate(PROMPTS, chosen)]
    for output in outputs:
        core = core_sampling(chosen, 5, frozenset(), plain.tokenizer, 320)
        expected, _ = decode(plain._loaded.model, output.prompt_token_ids, core)
        assert output.outputs[0].token_ids == expected
    without = SamplingParams(**base, temperature=params["temperature"])
    others = plain.generate(PROMPTS, without)
    assert [o.outputs[0].token_ids for o in outputs] != [o.outputs[0].token_ids for o in others]
    assert sum(o.metrics.num_accepted_tokens for o in outputs) > 0


def test_the_end_token_may_come_or_not(looping: tuple[Decoder, Decoder]) -> None:
    bias = {EOS: 12.0}
    for decoder in looping:
        (ended,) = decoder.generate("a", SamplingParams(max_tokens=9, logit_bias=bias))
        assert ended.outputs[0].token_ids[-1] == EOS
        assert ended.outputs[0].finish_reason == "stop"
        late = SamplingParams(max_tokens=9, logit_bias=bias, min_tokens=5)
        (output,) = decoder.generate("a", late)
        assert output.outputs[0].token_ids.index(EOS) == 5
        on = SamplingParams(max_tokens=9, logit_bias=bias, ignore_eos=True)
        (output,) = decoder.generate("a", on)
        assert output.outputs[0].token_ids.count(EOS) > 1
        assert output.outputs[0].finish_reason == "length"


def test_bad_words_never_occur(looping: tuple[Decoder, Decoder]) -> None:
    free = SamplingParams(max_tokens=60, temperature=3.0, allowed_token_ids=range(64, 76), seed=1)
    text = looping[0].generate("x", free)[0].outputs[0].text
    words = [text[5:6], text[10:12], text[20:23]]
    for decoder in looping:
        for seed in range(5):
            chosen = SamplingParams(
                max_tokens=60, temperature=3.0, allowed_token_ids=range(64, 76),
                bad_words=words, seed=seed,
            )  # fmt: skip
            answer = decoder.generate("x", chosen)[0].outputs[0].text
            assert len(answer) == 60
            assert not any(word in answer for word in words)


def test_bad_words_begin_a_text_or_follow_a_space(looping: tuple[Decoder, Decoder]) -> None:
    tokenizer = looping[0].tokenizer
    expected = [tokenizer.encode(text, add_special_tokens=False) for text in ("ab", " ab")]
    assert bad_word_tokens(tokenizer, ["ab", " ab"]) == expected


def processed(params: dict[str, Any], prompt: list[int], answer: list[int]) -> np.ndarray:
    row = np.random.default_rng(3).normal(0, 4, 50).astype(np.float32)
    return process(row, _core.SamplingParams(**params), prompt, answer)


def transformed(processor: Any, tokens: list[int]) -> np.ndarray:
    row = np.random.default_rng(3).normal(0, 4, 50).astype(np.float32)
    scores = processor(torch.tensor([tokens]), torch.from_numpy(row)[None])
    return np.asarray(scores[0].numpy())


@pytest.mark.parametrize("penalty", [0.5, 1.3, 4.0])
def test_the_twin_penalises_as_transformers_does(penalty: float) -> None:
    prompt, answer = [3, 4, 4, 9], [9, 20, 20]
    found = processed({"repetition_penalty": penalty}, prompt, answer)
    reference = transformers.RepetitionPenaltyLogitsProcessor(penalty)
    np.testing.assert_array_equal(found, transformed(reference, prompt + answer))


@pytest.mark.parametrize("answer", [[], [7], [1, 7], [7, 8], [7, 8, 7, 8]])
def test_the_twin_bans_as_transformers_does(answer: list[int]) -> None:
    words = [[5], [7, 8], [7, 8, 9], [1, 7, 2]]
    reference = transformers.NoBadWordsLogitsProcessor(words)
    np.testing.assert_array_equal(
        processed({"bad_words": words}, [40], answer), transformed(reference, [40, *answer])
    )


def test_the_twin_biases_as_transformers_does() -> None:
    reference = transformers.SequenceBiasLogitsProcessor([[[4], 2.5], [[6], -8.0]])
    found = processed({"logit_bias": [(4, 2.5), (6, -8.0)]}, [1], [2])
    np.testing.assert_array_equal(found, transformed(reference, [1, 2]))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("count", [0, 1, 7, 64])
def test_logprobs(looping: tuple[Decoder, Decoder], count: int, temperature: float) -> None:
    """Those of the raw logits, whatever else changes the draw; the same bits with heads."""
    plain, medusa = looping
    chosen = SamplingParams(
        max_tokens=20, ignore_eos=True, temperature=temperature, logprobs=count,
        prompt_logprobs=count, frequency_penalty=0.5, logit_bias={65: 5.0},
    )  # fmt: skip
    (output,) = plain.generate(PROMPTS[1], chosen)
    (other,) = medusa.generate(PROMPTS[1], chosen)
    assert (other.outputs, other.prompt_logprobs) == (output.outputs, output.prompt_logprobs)
    assert other.metrics.num_accepted_tokens > 0
    answer, known = output.outputs[0], output.prompt_logprobs
    assert answer.logprobs is not None
    assert known is not None
    assert (len(known), known[0]) == (len(output.prompt_token_ids), None)
    tokens = output.prompt_token_ids + answer.token_ids
    logits = plain._loaded.model.logits(tokens)
    for row, token, found in zip(logits, tokens[1:], [*known[1:], *answer.logprobs], strict=False):
        assert found is not None
        check_logprobs(plain, row, token, found, count)
    total = sum(
        found[t].logprob for t, found in zip(answer.token_ids, answer.logprobs, strict=True)
    )
    assert answer.cumulative_logprob == total


def check_logprobs(
    decoder: Decoder, row: np.ndarray, token: int, found: dict[int, Any], count: int
) -> None:
    exact = log_softmax(row.astype(np.float64))
    order = np.lexsort((np.arange(row.size), -row))
    assert list(found) == [token, *(int(t) for t in order[:count] if t != token)]
    for candidate, entry in found.items():
        assert entry.rank == list(order).index(candidate) + 1
        assert entry.logprob == pytest.approx(exact[candidate], abs=1e-5)
        assert entry.decoded_token == decoder.tokenizer.decode([candidate], False)


def test_prompt_logprobs_in_chunks(model: Path) -> None:
    """A prompt of many chunks, and more rows than logits are kept at a time."""
    prompt = "of many chunks " * 12
    chosen = SamplingParams(max_tokens=2, prompt_logprobs=2)
    whole = (
        Decoder(model, max_num_seqs=1, num_threads=1).generate(prompt, chosen)[0].prompt_logprobs
    )
    parts = Decoder(model, max_num_seqs=3, max_num_batched_tokens=7, num_threads=1)
    answers = parts.generate([prompt, "other", prompt], chosen)
    assert [answers[i].prompt_logprobs for i in (0, 2)] == [whole, whole]
    assert whole is not None
    assert len(whole) == len(answers[0].prompt_token_ids)


def test_logprobs_end_with_the_tokens(looping: tuple[Decoder, Decoder]) -> None:
    """Also where a stop string ends the answer within an accepted block, and in a stream."""
    for decoder in looping:
        free = SamplingParams(max_tokens=30, ignore_eos=True, logprobs=1)
        whole = decoder.generate("hello", free)[0].outputs[0]
        stop = whole.text[7:9]
        chosen = SamplingParams(max_tokens=30, ignore_eos=True, logprobs=1, stop=stop)
        answer = decoder.generate("hello", chosen)[0].outputs[0]
        assert answer.stop_reason == stop
        assert whole.logprobs is not None
        assert answer.logprobs == whole.logprobs[: len(answer.token_ids)]
        chunks = list(decoder.stream("hello", chosen))
        assert [row for chunk in chunks for row in chunk.logprobs or ()] == answer.logprobs
        assert all(len(chunk.logprobs or ()) == len(chunk.token_ids) for chunk in chunks)


def test_none_are_given_unasked(looping: tuple[Decoder, Decoder]) -> None:
    (output,) = looping[1].generate("a", SamplingParams(max_tokens=3))
    assert output.prompt_logprobs is output.outputs[0].logprobs is None
    assert output.outputs[0].cumulative_logprob is None


def test_n_answers(looping: tuple[Decoder, Decoder]) -> None:
    plain, medusa = looping
    chosen = SamplingParams(max_tokens=20, ignore_eos=True, temperature=1.2, seed=9, n=5)
    outputs = medusa.generate(PROMPTS, chosen)
    assert [o.outputs for o in outputs] == [o.outputs for o in plain.generate(PROMPTS, chosen)]
    for output in outputs:
        answers = output.outputs
        assert [answer.index for answer in answers] == list(range(5))
        assert len({tuple(answer.token_ids) for answer in answers}) == 5
        assert output.metrics.num_generated_tokens == 100
        for index, answer in enumerate(answers):
            alone = SamplingParams(
                max_tokens=20, ignore_eos=True, temperature=1.2, seed=child_seed(9, index)
            )
            (single,) = plain.generate(output.prompt_token_ids, alone)[0].outputs
            assert single.token_ids == answer.token_ids


def test_seeds_of_the_answers() -> None:
    """SplitMix64's published outputs for state 1234567, and no clash with neighbouring prompts."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [child_seed(1234567, index) for index in (1, 2, 3)] == expected
    seeds = {child_seed(seed, index) for seed in range(50) for index in range(50)}
    assert len(seeds) == 2500


def test_every_request_has_its_own(looping: tuple[Decoder, Decoder]) -> None:
    """Eight requests of one batch, each with other parameters, are each as alone."""
    plain, medusa = looping
    chosen = [
        SamplingParams(max_tokens=25, ignore_eos=True, seed=i, **params)  # type: ignore[arg-type]
        for i, params in enumerate(ALONE[:8])
    ]
    together = medusa.generate(["same"] * 8, chosen)
    alone = [plain.generate("same", params)[0] for params in chosen]
    assert [o.outputs for o in together] == [o.outputs for o in alone]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"logit_bias": {320: 1.0}}, "logit_bias"),
        ({"allowed_token_ids": [1, 320]}, "allowed_token_ids"),
        ({"stop_token_ids": [999]}, "stop_token_ids"),
        ({"allowed_token_ids": [97], "bad_words": ["a"]}, "allowed_token_ids, bad_words"),
        ({"allowed_token_ids": [9], "min_tokens": 1, "stop_token_ids": [9]}, "min_tokens"),
    ],
)
def test_what_the_vocabulary_refuses(
    looping: tuple[Decoder, Decoder], params: dict[str, Any], message: str
) -> None:
    if "bad_words" in params:
        params["allowed_token_ids"] = looping[0].tokenizer.encode("a", add_special_tokens=False)
    chosen = SamplingParams(**params)
    with pytest.raises(InvalidArgument, match=message):
        looping[0].generate("x", chosen)
    with pytest.raises(InvalidArgument, match=message):
        looping[0].stream("x", chosen)


def test_a_stream_is_one_answer(looping: tuple[Decoder, Decoder]) -> None:
    with pytest.raises(InvalidArgument, match="n must be 1"):
        looping[0].stream("x", SamplingParams(temperature=1.0, n=2))
