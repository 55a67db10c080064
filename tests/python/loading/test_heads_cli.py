"""`convert` and `inspect` on heads, from the command line to the decoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from heads_layouts import truth, write_layout
from tiny_model import perfect_heads, permutation_tensors, save_heads, save_model
from typer.testing import CliRunner, Result

from medusa_native import Decoder, SamplingParams
from medusa_native.cli import app
from medusa_native.loading import load_heads


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def convert(*arguments: object) -> dict[str, Any]:
    result = run("convert", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return dict(json.loads(result.stdout))


def answers(path: Path, *token_ids: list[int]) -> Path:
    lines = [
        {"id": i, "prompt_token_ids": [1], "token_ids": ids, "finish_reason": "stop"}
        for i, ids in enumerate(token_ids)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def decode(model: Path, heads: Path) -> tuple[Any, ...]:
    """What heads do in the core: which guesses were right, at every depth."""
    params = SamplingParams(max_tokens=60, ignore_eos=True)
    decoder = Decoder(model, heads, dtype="float32")
    output = decoder.generate(["hello", "a"], params)
    metrics = [o.metrics for o in output]
    return (
        [o.outputs[0].token_ids for o in output],
        [(m.num_steps, m.accepted_per_position) for m in metrics],
    )


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and heads of which the second is right only about even tokens."""
    folder = tmp_path_factory.mktemp("right")
    tensors, permutation = permutation_tensors()
    heads = perfect_heads(tensors, permutation, 3)
    heads["1.1.weight"][1::2] = 0
    save_model(folder / "model", tensors=tensors)
    return folder / "model", save_heads(folder / "heads", tensors=heads)


@pytest.mark.parametrize("layout", ["medusa", "vllm"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_converted_heads_guess_the_same(
    right: tuple[Path, Path], tmp_path: Path, layout: str, dtype: str
) -> None:
    model, heads = right
    target = tmp_path / "new"
    convert("--heads", heads, "-o", target, "--layout", layout, "--dtype", dtype)
    expected = decode(model, heads)
    assert decode(model, target) == expected
    accepted = expected[1][0][1]
    assert accepted[0] > accepted[1] > 0


def test_trimmed_heads_guess_what_they_can_name(right: tuple[Path, Path], tmp_path: Path) -> None:
    """The permutation runs through all tokens: half of them, and half the guesses are left."""
    model, heads = right
    data = answers(tmp_path / "a.jsonl", *[[token, token] for token in range(0, 320, 2)], [1, 3])
    facts = convert("--heads", heads, "-o", tmp_path / "new", "--draft-vocab", 160, "--data", data)
    assert facts["draft_vocab_size"] == 160
    trimmed = load_heads(tmp_path / "new")
    assert trimmed.token_map is not None
    assert trimmed.token_map.tolist() == list(range(0, 320, 2))
    whole, half = decode(model, heads), decode(model, tmp_path / "new")
    assert half[0] == whole[0]
    assert 0 < half[1][0][1][0] < whole[1][0][1][0]


def test_v2_heads_become_vllms(model: Path, tmp_path: Path) -> None:
    """vLLM has one lm_head for all heads: the model's."""
    heads = save_heads(tmp_path / "v2", version=2)
    facts = convert("--heads", heads, "-m", model, "-o", tmp_path / "new", "--layout", "vllm")
    assert facts["version"] == 1
    assert facts["parts"][2]["tensors"] == 1
    assert decode(model, tmp_path / "new") == decode(model, heads)
    back = convert("--heads", tmp_path / "new", "-m", model, "-o", tmp_path / "b", "--version", 2)
    assert back["version"] == 2
    assert decode(model, tmp_path / "b") == decode(model, heads)


def test_a_token_list(heads: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.json").write_text("[9, 4, 7]")
    facts = convert("--heads", heads, "-o", tmp_path / "new", "--token-list", tmp_path / "ids.json")
    assert facts["draft_vocab_size"] == 3
    assert run("inspect", "--heads", tmp_path / "new").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layout", "gguf"], "layout must be one of medusa, vllm, found 'gguf'"),
        (["--dtype", "int4"], "dtype must be one of"),
        (["--version", "2"], "V1 heads become V2 only with the model"),
        (["--draft-vocab", "5"], "give --draft-vocab with --data"),
        (["--draft-vocab", "500", "--data", "ANSWERS"], "[1, 320]"),
        (["--token-list", "ANSWERS"], "list of token ids expected"),
        (["--token-list", "nowhere"], "nowhere: cannot be read"),
        (["--heads", "nowhere"], "nowhere: no such file"),
        (["-o", "HEADS"], "a new folder expected"),
    ],
)
def test_refusals(heads: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    data = answers(tmp_path / "a.jsonl", [1, 2])
    given = {"ANSWERS": data, "HEADS": heads}
    named = [given.get(argument, argument) for argument in arguments]
    result = run("convert", "--heads", heads, "-o", tmp_path / "new", *named)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not (tmp_path / "new").exists()


def test_force_replaces(heads: Path, tmp_path: Path) -> None:
    convert("--heads", heads, "-o", tmp_path / "new")
    facts = convert("--heads", heads, "-o", tmp_path / "new", "--force", "--dtype", "float16")
    assert facts["weight_formats"] == {"F16": 9}


def test_convert_says_what_it_wrote(heads: Path, tmp_path: Path) -> None:
    result = run("convert", "--heads", heads, "-o", tmp_path / "new")
    assert "3 V1 heads, Medusa layout" in result.stdout


def test_inspect_heads_alone(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "x", "ModelOpt FP8", truth())
    facts = json.loads(run("inspect", "--heads", folder, "--json").stdout)["heads"]
    assert (facts["layout"], facts["version"], facts["num_heads"]) == ("ModelOpt", 1, 3)
    assert (facts["hidden_size"], facts["vocab_size"]) == (64, 100)
    assert [(p["part"], p["tensors"], p["bytes"]) for p in facts["parts"]] == [
        ("residual weights", 3, 3 * 64 * 64 * 4),
        ("residual biases", 3, 3 * 64 * 2),
        ("projections", 3, 3 * 100 * 64 * 4),
    ]
    assert facts["stored_bytes"] == sum(part["bytes"] for part in facts["parts"])
    assert any("6 FP8 weights" in note for note in facts["notes"])
    assert any("input scales" in note for note in facts["notes"])
    shown = run("inspect", "--heads", folder).stdout
    assert "residual weights" in shown
    assert "note: 6 FP8 weights" in shown


def test_inspect_says_what_is_odd(model: Path, tmp_path: Path) -> None:
    """What is a warning elsewhere is a note here, with the model and without."""
    folder = save_heads(tmp_path / "odd", medusa_num_heads=5, base_model_fingerprint="0" * 16)
    facts = json.loads(run("inspect", "--heads", folder, "--json").stdout)
    assert facts["heads"]["notes"] == [
        "config.json says medusa_num_heads 5; the tensors hold 3, which is what counts"
    ]
    result = run("inspect", "-m", model, "--heads", folder, "--json")
    notes = json.loads(result.stdout)["heads"]["notes"]
    assert len(notes) == 2
    assert "trained for other weights" in notes[1]


@pytest.mark.parametrize("arguments", [[], ["--heads", "auto"]])
def test_inspect_needs_something(arguments: list[str]) -> None:
    assert run("inspect", *arguments).exit_code == 2


def test_pickles_without_code(tmp_path: Path) -> None:
    """A pickle that would run code is refused."""
    torch.save({"0.0.linear.weight": np.dtype, "x": print}, tmp_path / "medusa_lm_head.pt")
    result = run("inspect", "--heads", tmp_path)
    assert result.exit_code == 2
    assert "medusa_lm_head.pt" in result.stderr.replace("\n", "")
