"""Any combination of sampling parameters: with heads and without, alone and among others, the
same answers, texts, log probabilities and reasons to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_model import perfect_heads, permutation_tensors, save_heads, save_model

from medusa_native import Decoder, RequestOutput, SamplingParams

# Of the engine that speculates: none of them may change an answer.
ENGINE_OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "three at a time": {"max_num_seqs": 3},
    "small steps": {"max_num_seqs": 2, "max_num_batched_tokens": 70},
    "no prefix cache": {"enable_prefix_caching": False},
    "few pages": {"max_model_len": 192, "kv_cache_pages": 4},
}
TREES: dict[str, Any] = {
    "wide": [[0], [1], [2], [3], [0, 0], [0, 1], [1, 0], [1, 1], [0, 0, 0], [0, 0, 1], [0, 1, 0]],
    "chain": "chain",
    "large": "mc_sim_7b_63",
}
COMMON = "The quick brown fox jumps over the lazy dog, and then it sleeps for a day."
PROMPTS = [f"{COMMON[: 20 * (i % 4)]}{i} prompt" for i in range(8)]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 "


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """A random model with heads that know nothing, and one that loops with heads that know how."""
    folder = tmp_path_factory.mktemp("matrix")
    tensors, permutation = permutation_tensors(cycle_length=3, scale=0.045, noise=2.0)
    right = perfect_heads(tensors, permutation, 4)
    return {
        "random": (
            save_model(folder / "random"),
            save_heads(folder / "random_heads", num_heads=4),
        ),
        "right": (
            save_model(folder / "right", tensors=tensors),
            save_heads(folder / "right_heads", num_heads=4, tensors=right),
        ),
    }


@pytest.fixture(scope="module")
def plain(folders: dict[str, tuple[Path, Path]]) -> dict[str, Decoder]:
    return {kind: Decoder(model, num_threads=1) for kind, (model, _) in folders.items()}


def ids(size: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, 319), max_size=size)


@st.composite
def sampling(draw: st.DrawFn) -> SamplingParams:
    """Draw any parameters that do not contradict each other."""
    temperature = draw(st.sampled_from([0.0, 0.0, 0.7, 1.4]))
    max_tokens = draw(st.integers(1, 24))
    first = draw(st.integers(0, 200))
    bias = st.floats(-8, 8, width=32)
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=draw(st.sampled_from([1.0, 0.8])),
        top_k=draw(st.sampled_from([0, 0, 5, 100])),
        min_p=draw(st.sampled_from([0.0, 0.05])),
        seed=draw(st.one_of(st.none(), st.integers(0, 2**64 - 1))),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 0.7, 1.3, 2.5])),
        presence_penalty=draw(st.sampled_from([0.0, 0.0, 1.5, -1.0])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.0, 0.4, 2.0, -0.3])),
        logit_bias=draw(
            st.one_of(st.none(), st.dictionaries(st.integers(0, 319), bias, max_size=5))
        ),
        allowed_token_ids=draw(
            st.sampled_from([None, None, range(first, first + 110), range(20, 320, 3)])
        ),
        bad_words=draw(st.lists(st.text(LETTERS, min_size=1, max_size=3), max_size=4)),
        min_tokens=draw(st.integers(0, max_tokens)),
        stop=draw(st.lists(st.text(LETTERS, min_size=1, max_size=2), max_size=3)),
        stop_token_ids=draw(ids(6)),
        ignore_eos=draw(st.booleans()),
        include_stop_str_in_output=draw(st.booleans()),
        logprobs=draw(st.sampled_from([None, None, 0, 3])),
        prompt_logprobs=draw(st.sampled_from([None, None, 2])),
        n=1 if temperature == 0 else draw(st.sampled_from([1, 1, 1, 3])),
    )


def page_bytes(decoder: Decoder) -> int:
    info = decoder.info()
    return int(info["memory"]["kv_cache"]) // int(info["limits"]["kv_cache_pages"])


def answers(outputs: list[RequestOutput]) -> list[Any]:
    return [(output.outputs, output.prompt_logprobs) for output in outputs]


@pytest.mark.parametrize(
    ("tree", "options"),
    [
        *((tree, "default") for tree in TREES),
        *(("wide", name) for name in ENGINE_OPTIONS if name != "default"),
    ],
)
@pytest.mark.parametrize("kind", ["random", "right"])
def test_any_combination(
    folders: dict[str, tuple[Path, Path]],
    plain: dict[str, Decoder],
    kind: str,
    tree: str,
    options: str,
) -> None:
    model, heads = folders[kind]
    config = {"model": heads, "medusa_choices": TREES[tree]}
    limits = dict(ENGINE_OPTIONS[options])
    if pages := limits.pop("kv_cache_pages", 0):
        limits["kv_cache_memory"] = pages * page_bytes(plain[kind])
    medusa = Decoder(model, speculative_config=config, num_threads=1, **limits)
    accepted, preempted = [0], [0]

    @settings(max_examples=40, deadline=None)
    @example([SamplingParams(max_tokens=60, ignore_eos=True)] * 8, 8)
    @given(st.lists(sampling(), min_size=8, max_size=8), st.sampled_from([1, 8]))
    def check(chosen: list[SamplingParams], count: int) -> None:
        prompts, params = PROMPTS[:count], chosen[:count]
        outputs = medusa.generate(prompts, params)
        assert answers(outputs) == answers(plain[kind].generate(prompts, params))
        accepted[0] += sum(output.metrics.num_accepted_tokens for output in outputs)
        preempted[0] += sum(output.metrics.num_preemptions for output in outputs)

    check()
    assert kind == "random" or accepted[0] > 0
    assert options != "few pages" or preempted[0] > 0


@settings(max_examples=25, deadline=None)
@given(
    stops=st.lists(st.text("abcdefghij", min_size=1, max_size=3), min_size=1, max_size=4),
    min_tokens=st.integers(0, 12),
    include=st.booleans(),
    seed=st.integers(0, 100),
)
def test_stop_strings_cut_at_the_right_place(
    folders: dict[str, tuple[Path, Path]],
    plain: dict[str, Decoder],
    stops: list[str],
    min_tokens: int,
    include: bool,
    seed: int,
) -> None:
    """The answer without stop strings, cut at the first token that completes one."""
    base = SamplingParams(
        max_tokens=24, temperature=3.0, seed=seed, ignore_eos=True,
        allowed_token_ids=plain["right"].tokenizer.encode("abcdefghij", add_special_tokens=False),
    )  # fmt: skip
    text = plain["right"].generate("x", base)[0].outputs[0].text
    assert len(text) == 24
    ends = [
        (at, stop)
        for stop in stops
        for at in range(max(0, min_tokens - len(stop) + 1), 24 - len(stop) + 1)
        if text.startswith(stop, at)
    ]
    chosen = SamplingParams(
        max_tokens=24, temperature=3.0, seed=seed, ignore_eos=True, stop=stops,
        allowed_token_ids=base.allowed_token_ids, min_tokens=min_tokens,
        include_stop_str_in_output=include,
    )  # fmt: skip
    model, heads = folders["right"]
    for decoder in (plain["right"], medusa_of(model, heads)):
        answer = decoder.generate("x", chosen)[0].outputs[0]
        if not ends:
            assert (answer.text, answer.finish_reason) == (text, "length")
            continue
        done = min(at + len(stop) for at, stop in ends)
        at, stop = min((at, stop) for at, stop in ends if at + len(stop) == done)
        assert answer.stop_reason == stop
        assert answer.text == (text[:done] if include else text[:at])
        assert answer.token_ids == plain["right"].tokenizer.encode(text[:done], False)


_OPEN: dict[Path, Decoder] = {}


def medusa_of(model: Path, heads: Path) -> Decoder:
    """A decoder that hypothesis need not open for each example."""
    if model not in _OPEN:
        _OPEN[model] = Decoder(model, heads, num_threads=1)
    return _OPEN[model]
