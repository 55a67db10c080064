"""Many requests at once: whatever is shared, preempted or cancelled, the tokens are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_lossless import GREEDY, PROMPTS, SAMPLED, tokens

from medusa_native import Decoder, InvalidArgument, SamplingParams, SpeculativeConfig, _core
from medusa_native.engine import LoadedEngine, TreeTuning, load_engine

PAGE = 64  # positions
LENGTHS = [20, 60, 63, 64, 65, 90]


def prompts(vocab_size: int) -> list[list[int]]:
    """Token ids, of which the first half of each are common."""
    common = [(7 * i + 3) % vocab_size for i in range(100)]
    return [
        common[: n // 2] + [(n * i + 1) % vocab_size for i in range(n - n // 2)] for n in LENGTHS
    ]


def answers(decoder: Decoder, **params: object) -> list[list[int]]:
    return tokens(decoder, prompts(decoder.info()["config"]["vocab_size"]), **params)  # type: ignore[arg-type]


def page_bytes(decoder: Decoder) -> int:
    info = decoder.info()
    return info["memory"]["kv_cache"] // info["limits"]["kv_cache_pages"]


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("caching", [True, False], ids=["cached", "uncached"])
def test_preemption_does_not_change_tokens(
    plain: Decoder, model: Path, heads: Path, params: dict[str, object], caching: bool
) -> None:
    long = {**params, "max_tokens": 100}
    tight = Decoder(
        model,
        heads,
        max_model_len=4 * PAGE,
        kv_cache_memory=5 * page_bytes(plain),
        enable_prefix_caching=caching,
    )
    assert answers(tight, **long) == answers(plain, **long)
    ids = prompts(plain.info()["config"]["vocab_size"])
    outputs = tight.generate(ids, SamplingParams(**long))  # type: ignore[arg-type]
    assert sum(output.metrics.num_preemptions for output in outputs) > 0


def test_prefix_caching_does_not_change_tokens(plain: Decoder, model: Path, heads: Path) -> None:
    cached, uncached = Decoder(model, heads), Decoder(model, heads, enable_prefix_caching=False)
    assert cached.info()["limits"]["enable_prefix_caching"] is True
    prompt = list(range(1, 200)) if plain.info()["config"]["vocab_size"] > 200 else [5] * 199
    params = SamplingParams(max_tokens=20, ignore_eos=True, temperature=0.8, seed=3)
    for decoder, found in ((cached, 3 * PAGE), (uncached, 0)):
        first, again = (decoder.generate([prompt], params)[0] for _ in range(2))
        assert first.metrics.num_cached_tokens == 0
        assert again.metrics.num_cached_tokens == found
        expected = plain.generate([prompt], params)[0].outputs[0].token_ids
        assert first.outputs[0].token_ids == again.outputs[0].token_ids == expected


def test_few_rows_at_a_time_do_not_change_tokens(plain: Decoder, model: Path) -> None:
    few = Decoder(model, max_num_seqs=3, max_num_batched_tokens=5)
    assert few.info()["limits"]["max_num_batched_tokens"] == 5
    assert tokens(few, PROMPTS, **SAMPLED) == tokens(plain, PROMPTS, **SAMPLED)


def test_a_dropped_stream_frees_its_pages(model: Path, heads: Path) -> None:
    decoder = Decoder(model, heads)
    engine = decoder._loaded.engine
    stream = decoder.stream("drop me", SamplingParams(max_tokens=100, ignore_eos=True))
    next(stream)
    assert engine.num_free_pages < engine.num_pages
    stream.close()
    assert engine.num_free_pages == engine.num_pages


def test_limits_are_checked(model: Path) -> None:
    with pytest.raises(InvalidArgument, match="max_num_batched_tokens"):
        Decoder(model, max_num_seqs=8, max_num_batched_tokens=4)
    with pytest.raises(InvalidArgument, match="enable_prefix_caching"):
        Decoder(model, enable_prefix_caching="yes")  # type: ignore[arg-type]


STEP_SECONDS = [1.0, 1.05, 1.1, 1.2, 1.4, 1.8, 2.6]


def run_core(engine: _core.Engine, prompts: list[list[int]], temperature: float) -> list[list[int]]:
    params = _core.SamplingParams(max_tokens=40, temperature=temperature, seed=4)
    found: dict[int, list[int]] = {engine.submit(ids, params): [] for ids in prompts}
    while engine.has_unfinished():
        for output in engine.step():
            found[output.request_id] += output.tokens
    return list(found.values())


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_an_adaptive_tree_does_not_change_tokens(
    plain: Decoder, model: Path, heads: Path, temperature: float
) -> None:
    def load(**options: Any) -> LoadedEngine:
        speculation = SpeculativeConfig(model=heads)
        return load_engine(model, speculation, None, dtype="bfloat16", num_threads=2, **options)

    adaptive = load(tuning=TreeTuning(STEP_SECONDS), max_num_seqs=3)
    assert adaptive.describe()["tree"]["adaptive"] is True
    assert adaptive.engine.options.step_seconds == pytest.approx(STEP_SECONDS)
    pinned = load(max_num_seqs=3)
    assert pinned.describe()["tree"]["adaptive"] is False
    ids = prompts(plain.info()["config"]["vocab_size"])
    assert run_core(adaptive.engine, ids, temperature) == run_core(pinned.engine, ids, temperature)


def test_adaptive_options_are_checked(model: Path, heads: Path) -> None:
    loaded = load_engine(
        model, SpeculativeConfig(model=heads), None, dtype="bfloat16", num_threads=2
    )
    core_model, tree = loaded.model, loaded.tree
    for name, options in {
        "adaptive": {"adaptive": True},
        "step_seconds": {"adaptive": True, "step_seconds": [1.0, 0.0]},
        "path_probability": {"step_seconds": [1.0], "path_probability": [1.0, 0.5]},
    }.items():
        with pytest.raises(InvalidArgument, match=name):
            _core.Engine(core_model, loaded.heads, tree, **options)  # type: ignore[arg-type]
