"""On a GPU: with heads or without, the same tokens."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / "python"), str(TESTS / "python/loading")]
from float8_folders import LAYOUTS, folders
from test_quantized import model as save_blocks
from test_quantized import save_heads as save_block_heads
from tiny_model import perfect_heads, permutation_tensors, save_heads, save_model

from medusa_native import Decoder, SamplingParams
from medusa_native.demo_model import FILE, cache_folder

GREEDY = {"max_tokens": 24, "ignore_eos": True}
SAMPLED = {**GREEDY, "temperature": 0.8, "seed": 11}
FILTERED = {**SAMPLED, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.1}
PROMPTS = [f"{'prompt ' * (i % 4)}number {i}" for i in range(4)]
DEMO_PROMPTS = ["Why is the sky blue?", "Write a haiku about the sea."]


def tokens(decoder: Decoder, prompts: list[str], **params: object) -> list[list[int]]:
    outputs = decoder.generate(prompts, SamplingParams(**params))  # type: ignore[arg-type]
    return [output.outputs[0].token_ids for output in outputs]


def assert_equal(plain: Decoder, medusa: Decoder, prompts: list[str], **params: object) -> None:
    """Alone and all at once, what plain decoding gives alone."""
    assert "cuda" in medusa.info()["device"]
    expected = [tokens(plain, [prompt], **params)[0] for prompt in prompts]
    assert len({token for answer in expected for token in answer}) > 4
    assert [tokens(medusa, [prompt], **params)[0] for prompt in prompts] == expected
    assert tokens(medusa, prompts, **params) == expected


@pytest.mark.parametrize(
    "params", [GREEDY, SAMPLED, FILTERED], ids=["greedy", "seeded", "filtered"]
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("grounded", [False, True])
def test_medusa_equals_plain(
    tmp_path: Path, grounded: bool, version: int, dtype: str, params: dict[str, object]
) -> None:
    model = save_model(tmp_path / "model")
    heads = save_heads(tmp_path / "heads", version=version, num_heads=4, grounded=grounded)
    plain = Decoder(model, dtype=dtype, device="cuda")
    assert_equal(plain, Decoder(model, heads, dtype=dtype, device="cuda"), PROMPTS, **params)


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "seeded"])
@pytest.mark.parametrize("dtype", ["Q8_0", "Q4_0", "Q4_1"])
def test_weights_in_blocks(tmp_path: Path, dtype: str, params: dict[str, object]) -> None:
    model, heads = save_blocks(tmp_path, dtype, {}), save_block_heads(tmp_path / "heads")
    plain, medusa = Decoder(model, device="cuda"), Decoder(model, heads, device="cuda")
    kept = plain.info()["weight_formats"]
    assert max(kept, key=kept.get) == dtype
    assert_equal(plain, medusa, ["hello", "hello world", "what is it", "h"], **params)


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "seeded"])
@pytest.mark.parametrize("layout", ["tensor", "channel", "fine-grained"])
def test_weights_in_float8(
    tmp_path: Path, layout: str, params: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With portable kernels, which alone read codes, the answer is that of the widened model."""
    model, wide = folders(tmp_path, LAYOUTS[layout])
    heads = save_block_heads(tmp_path / "heads")
    plain, medusa = Decoder(model, device="cuda"), Decoder(model, heads, device="cuda")
    assert plain.info()["weight_formats"]["F8_E4M3"] > 0
    assert_equal(plain, medusa, PROMPTS, **params)
    monkeypatch.setenv("MEDUSA_CUDA_KERNELS", "portable")
    plain, widened = Decoder(model, device="cuda"), Decoder(wide, device="cuda")
    assert tokens(plain, PROMPTS, **params) == tokens(widened, PROMPTS, **params)


def test_heads_that_are_always_right(tmp_path: Path) -> None:
    """Every step accepts the tree's full depth, and the answer is the permutation's orbit."""
    tensors, permutation = permutation_tensors()
    model = save_model(tmp_path / "model", tensors=tensors)
    right = perfect_heads(tensors, permutation, 4)
    heads = save_heads(tmp_path / "heads", num_heads=4, tensors=right)
    config = {"model": heads, "medusa_choices": "chain"}
    decoder = Decoder(model, speculative_config=config, device="cuda")
    (output,) = decoder.generate("go", SamplingParams(max_tokens=1 + 10 * 5, ignore_eos=True))
    token = output.prompt_token_ids[-1]
    for generated in output.outputs[0].token_ids:
        token = permutation[token]
        assert generated == token
    assert output.metrics.num_steps == 10


@pytest.mark.skipif(not (cache_folder() / FILE).exists(), reason="the demo model is not cached")
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_the_demo_model(dtype: str) -> None:
    path = str(cache_folder() / FILE)
    plain = Decoder(path, dtype=dtype, device="cuda")
    medusa = Decoder(path, heads="auto", dtype=dtype, device="cuda")
    for params in (GREEDY, SAMPLED):
        assert_equal(plain, medusa, DEMO_PROMPTS, **params)
