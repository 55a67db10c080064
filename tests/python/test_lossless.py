"""With heads or without: the same tokens, whatever the heads, the tree, or who else is decoded."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_model import perfect_heads, permutation_tensors, save_heads, save_model

from medusa_native import Decoder, SamplingParams, _core

GREEDY = {"max_tokens": 40, "ignore_eos": True}
SAMPLED = {**GREEDY, "temperature": 0.8, "seed": 11}
PROMPTS = [f"{'prompt ' * (i % 4)}number {i}" for i in range(8)]


def tokens(decoder: Decoder, prompts: list[str], **params: object) -> list[list[int]]:
    outputs = decoder.generate(prompts, SamplingParams(**params))  # type: ignore[arg-type]
    return [output.outputs[0].token_ids for output in outputs]


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("grounded", [False, True])
def test_random_heads(
    model: Path, tmp_path: Path, grounded: bool, version: int, dtype: str, params: dict[str, object]
) -> None:
    heads = save_heads(tmp_path, version=version, num_heads=4, grounded=grounded)
    expected = tokens(Decoder(model, dtype=dtype), PROMPTS, **params)
    assert tokens(Decoder(model, heads, dtype=dtype), PROMPTS, **params) == expected


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_cache_of_codes(
    model: Path, heads: Path, plain: Decoder, params: dict[str, object]
) -> None:
    """Long enough to cross pages, which sequences share, in chunks of any size."""
    limits = {"kv_cache_dtype": "int8", "max_num_batched_tokens": 100}
    codes, medusa = Decoder(model, **limits), Decoder(model, heads, **limits)
    prompts = ["together " * 30 + prompt for prompt in PROMPTS]
    expected = [tokens(codes, [prompt], **params)[0] for prompt in prompts]
    assert tokens(medusa, prompts, **params) == expected
    assert codes.info()["limits"]["kv_cache_dtype"] == "int8"
    shares = [
        decoder.info()["memory"]["kv_cache"] / decoder.info()["limits"]["kv_cache_pages"]
        for decoder in (codes, plain)
    ]
    assert shares[0] < 0.7 * shares[1]


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("kind", ["medusa", "grounded"])
def test_company_does_not_matter(
    plain: Decoder, kind: str, params: dict[str, object], request: pytest.FixtureRequest
) -> None:
    """Alone, or eight at once in any order."""
    medusa: Decoder = request.getfixturevalue(kind)
    alone = [tokens(plain, [prompt], **params)[0] for prompt in PROMPTS]
    order = list(range(len(PROMPTS)))
    random.Random(5).shuffle(order)
    together = tokens(medusa, [PROMPTS[i] for i in order], **params)
    assert together == [alone[i] for i in order]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rows", [96, 300])
def test_threads_and_batch_limits_do_not_matter(
    plain: Decoder, model: Path, heads: Path, threads: int, rows: int
) -> None:
    config = {"model": heads, "max_total_draft_tokens": 10}
    decoder = Decoder(
        model, speculative_config=config, num_threads=threads, max_num_batched_tokens=rows
    )
    assert tokens(decoder, PROMPTS, **SAMPLED) == tokens(plain, PROMPTS, **SAMPLED)


@st.composite
def trees(draw: st.DrawFn) -> list[list[int]]:
    """Draw up to 24 paths, at most three deep, each with its prefixes."""
    ranks = st.lists(st.integers(0, 4), min_size=1, max_size=3)
    drawn = draw(st.lists(ranks, min_size=1, max_size=8))
    prefixes = {tuple(path[: i + 1]) for path in drawn for i in range(len(path))}
    return [list(path) for path in draw(st.permutations(sorted(prefixes)))]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=trees(), temperature=st.sampled_from([0.0, 0.8]), grounded=st.booleans())
def test_any_tree(
    plain: Decoder,
    model: Path,
    heads: Path,
    grounded_heads: Path,
    tree: list[list[int]],
    temperature: float,
    grounded: bool,
) -> None:
    config = {"model": grounded_heads if grounded else heads, "medusa_choices": tree}
    params = {**SAMPLED, "temperature": temperature}
    decoder = Decoder(model, speculative_config=config)
    assert tokens(decoder, PROMPTS[:3], **params) == tokens(plain, PROMPTS[:3], **params)


@pytest.mark.parametrize("name", ["chain", "mc_sim_7b_63", "vicuna_7b_stage2"])
def test_heads_that_are_always_right(tmp_path: Path, name: str) -> None:
    """Every step accepts the tree's full depth, and the answer is the permutation's orbit."""
    tensors, permutation = permutation_tensors()
    model = save_model(tmp_path / "model", tensors=tensors)
    right = perfect_heads(tensors, permutation, 4)
    heads = save_heads(tmp_path / "heads", num_heads=4, tensors=right)
    decoder = Decoder(model, speculative_config={"model": heads, "medusa_choices": name})
    depth = decoder.info()["tree"]["depth"]
    steps = 20
    params = SamplingParams(max_tokens=1 + steps * (depth + 1), ignore_eos=True)
    (output,) = decoder.generate("go", params)
    token = output.prompt_token_ids[-1]
    for generated in output.outputs[0].token_ids:
        token = permutation[token]
        assert generated == token
    assert output.metrics.num_steps == steps
    assert output.metrics.accepted_per_position == [steps] * depth
    assert output.metrics.mean_acceptance_length == depth + 1


ISA_SCRIPT = """
import sys
from medusa_native import Decoder, SamplingParams
model, heads = sys.argv[1:]
prompts = ["one", "prompt number two", "three " * 12]
plain, medusa = Decoder(model), Decoder(model, heads)
for params in (
    SamplingParams(max_tokens=32, ignore_eos=True),
    SamplingParams(max_tokens=32, ignore_eos=True, temperature=0.8, seed=1),
):
    expected, found = ([o.outputs[0].token_ids for o in d.generate(prompts, params)]
                       for d in (plain, medusa))
    assert expected == found, (expected, found)
print(plain.info()["device"])
"""


def run_with_isa(isa: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ISA_SCRIPT, *arguments],
        env=os.environ | {"MEDUSA_CPU_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("isa", _core.cpu_isas())
def test_every_instruction_set(model: Path, heads: Path, isa: str) -> None:
    done = run_with_isa(isa, str(model), str(heads))
    assert done.returncode == 0, done.stderr
    assert isa in done.stdout


def test_an_instruction_set_that_is_missing(model: Path, heads: Path) -> None:
    done = run_with_isa("abacus", str(model), str(heads))
    assert done.returncode != 0
    assert "DeviceError" in done.stderr
    assert "abacus" in done.stderr
