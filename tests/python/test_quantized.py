"""GGUF files in blocks: kept as they are, close to what they widen to, and as lossless as any."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

sys.path.append(str(Path(__file__).parent / "loading"))
from tiny_files import TOKENS, GgufRecipe, write_gguf

from medusa_native import Decoder, SamplingParams
from medusa_native.engine import load_model
from medusa_native.loading import load_checkpoint

HIDDEN = 256
# A K-quant file keeps rows that are no multiple of 256 in another format.
RECIPES = {
    **{name: {} for name in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")},
    **{name: {"attn_output": "Q8_0"} for name in ("Q4_K", "Q5_K", "Q6_K")},
}
MIXED = {"attn_output": "Q5_0", "attn_v": "Q6_K", "output.": "Q8_0", "ffn_down": "F16"}
GREEDY = {"max_tokens": 30, "ignore_eos": True}
SAMPLED = {**GREEDY, "temperature": 0.9, "seed": 3}
PROMPTS = ["hello", "hello world", "what is it", "h"]


def model(folder: Path, dtype: str, dtypes: dict[str, str]) -> Path:
    own_lm_head = {"output.weight": (len(TOKENS), HIDDEN)}
    recipe = GgufRecipe(hidden=HIDDEN, inner=512, dtype=dtype, dtypes=dtypes, extra=own_lm_head)
    return write_gguf(folder / "tiny.gguf", recipe)


def save_heads(folder: Path, *, draft_vocab: int | None = None) -> Path:
    """Three heads that know nothing, over all tokens or a few."""
    rng = np.random.default_rng(1)
    tensors = {
        f"{head}.0.linear.weight": rng.standard_normal((HIDDEN, HIDDEN), np.float32) / 16
        for head in range(3)
    }
    settings = {"medusa_num_heads": 3, "medusa_num_layers": 1}
    if draft_vocab is not None:
        kept = rng.permutation(len(TOKENS))[:draft_vocab]
        tensors["token_map"] = np.sort(kept).astype(np.int32)
    folder.mkdir()
    save_file(tensors, folder / "medusa_lm_head.safetensors")
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def tokens(decoder: Decoder, prompts: list[str], **params: object) -> list[list[int]]:
    outputs = decoder.generate(prompts, SamplingParams(**params))  # type: ignore[arg-type]
    return [output.outputs[0].token_ids for output in outputs]


def assert_heads_change_nothing(path: Path, heads: Path) -> None:
    """Greedy and seeded, all prompts at once: what each gives alone without heads."""
    plain, medusa = Decoder(path), Decoder(path, heads)
    assert medusa.info()["tree"]["nodes"] > 1
    for params in (GREEDY, SAMPLED):
        expected = [tokens(plain, [prompt], **params)[0] for prompt in PROMPTS]
        assert len({token for answer in expected for token in answer}) > 4
        assert tokens(medusa, PROMPTS, **params) == expected


@pytest.mark.parametrize("draft_vocab", [None, 70])
@pytest.mark.parametrize("dtype", [*RECIPES, "mixed"])
def test_heads_do_not_change_the_answer(
    tmp_path: Path, dtype: str, draft_vocab: int | None
) -> None:
    mixed = dtype == "mixed"
    path = model(tmp_path, "Q4_K" if mixed else dtype, MIXED if mixed else RECIPES[dtype])
    heads = save_heads(tmp_path / "heads", draft_vocab=draft_vocab)
    assert_heads_change_nothing(path, heads)


@pytest.mark.parametrize("dtype", RECIPES)
def test_weights_stay_in_their_blocks(tmp_path: Path, dtype: str) -> None:
    path = model(tmp_path, dtype, RECIPES[dtype])
    kept, widened = Decoder(path).info(), Decoder(path, dtype="bfloat16").info()
    assert max(kept["weight_formats"], key=kept["weight_formats"].get) == dtype
    assert set(widened["weight_formats"]) == {"BF16"}
    assert kept["memory"]["weights"] < 0.6 * widened["memory"]["weights"]


def test_a_mixed_file_keeps_each_format(tmp_path: Path) -> None:
    info = Decoder(model(tmp_path, "Q4_K", MIXED)).info()
    assert set(info["weight_formats"]) == {"Q4_K", "Q5_0", "Q6_K", "Q8_0", "BF16"}


@pytest.mark.parametrize("dtype", RECIPES)
def test_logits_are_near_those_of_the_widened_weights(tmp_path: Path, dtype: str) -> None:
    checkpoint = load_checkpoint(model(tmp_path, dtype, RECIPES[dtype]))
    ids = list(range(3, 60))
    exact, rounded, chunked = (
        load_model(checkpoint, name, 2).logits(ids, chunks)
        for name, chunks in (("float32", []), ("auto", []), ("auto", [1, 7, 49]))
    )
    assert (rounded == chunked).all()
    error = np.linalg.norm(rounded - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert np.median(error) < 0.05
    assert error.min() > 1e-5, "blocks were not used"
