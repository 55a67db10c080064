"""Tuning from prompts to a stored tree, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_cli import run
from tiny_model import perfect_heads, permutation_tensors, save_heads, save_model

from medusa_native import Decoder, InvalidArgument, SamplingParams, _core
from medusa_native.trees import NODES_THAT_PAY
from medusa_native.tuning import run as tuning
from medusa_native.tuning.run import TuneReport, tune

OPTIONS: dict[str, Any] = {
    "limit": 6,
    "max_tokens": 20,
    "max_nodes": 8,
    "contexts": (64,),
    "batches": (2,),
    "repeats": 1,
    "num_threads": 1,
}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Say {i}."}) + "\n" for i in range(12)))
    return path


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDUSA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def own_heads(tmp_path: Path) -> Path:
    return save_heads(tmp_path / "own-heads")


def check(report: TuneReport) -> None:
    """What was replayed over the answers is what the engine does, step for step."""
    table = report.tuning.table
    assert len(table.tokens_per_step) == len(table.paths) + 1
    assert table.tokens_per_step[0] == 1
    assert list(table.probabilities) == sorted(table.probabilities, reverse=True)
    assert {(cost.context, cost.batch) for cost in report.device.costs} == {(64, 1), (64, 2)}
    assert [speed.nodes for speed in report.speeds] == [1, 2, 4, 8][: len(report.speeds)]
    for speed in report.speeds:
        expected = table.tokens_per_step[speed.nodes - 1]
        assert speed.tokens_per_step == pytest.approx(expected, rel=1e-5)


def test_random_heads(model: Path, own_heads: Path, prompts: Path) -> None:
    report = tune(model, own_heads, prompts, **OPTIONS)
    assert report.path == own_heads / "tuning.json"
    check(report)


def test_heads_that_are_always_right(prompts: Path, tmp_path: Path) -> None:
    tensors, permutation = permutation_tensors()
    model = save_model(tmp_path / "model", tensors=tensors)
    heads = save_heads(tmp_path / "heads", tensors=perfect_heads(tensors, permutation, 3))
    report = tune(model, heads, prompts, **OPTIONS)
    assert report.tuning.table.paths[:3] == ((0,), (0, 0), (0, 0, 0))
    assert report.tuning.table.probabilities[:3] == (1.0, 1.0, 1.0)
    assert report.tuning.table.tokens_per_step[3] > 3.5
    check(report)


def test_auto_is_what_was_stored(model: Path, own_heads: Path, prompts: Path) -> None:
    report = tune(model, own_heads, prompts, **OPTIONS)
    stored = json.loads(report.path.read_text())
    params = SamplingParams(max_tokens=30, ignore_eos=True)
    expected = Decoder(model, num_threads=1).generate("hello", params)[0].outputs[0].token_ids
    for nodes in (1, 3, 6):
        stored["devices"][0]["nodes"] = nodes
        report.path.write_text(json.dumps(stored))
        decoder = Decoder(model, own_heads, num_threads=1)
        assert decoder.info()["tree"]["nodes"] == nodes
        assert decoder.info()["tree"]["adaptive"] is (nodes > 1)
        assert decoder.generate("hello", params)[0].outputs[0].token_ids == expected
    two = Decoder(model, own_heads, num_threads=2)  # another device: as many nodes as pay there
    most, _ = NODES_THAT_PAY[_core.cpu_isas()[0]]
    assert two.info()["tree"]["nodes"] == min(len(stored["table"]["paths"]) + 1, most)


@pytest.mark.parametrize("field", ["device", "processor", "dtype", "weight_format"])
def test_a_tuning_of_another_device_or_format_is_not_used(
    model: Path, own_heads: Path, prompts: Path, field: str
) -> None:
    """Its paths are: they do not depend on the device. Its size and its seconds are not."""
    report = tune(model, own_heads, prompts, **OPTIONS)
    stored = json.loads(report.path.read_text())
    stored["devices"][0]["nodes"] = 3
    report.path.write_text(json.dumps(stored))
    assert Decoder(model, own_heads, num_threads=1).info()["tree"]["nodes"] == 3
    stored["devices"][0]["key"][field] = "another"
    report.path.write_text(json.dumps(stored))
    tree = Decoder(model, own_heads, num_threads=1).info()["tree"]
    most, _ = NODES_THAT_PAY[_core.cpu_isas()[0]]
    assert tree["nodes"] == min(len(stored["table"]["paths"]) + 1, most) != 3
    assert tree["adaptive"] is False


def test_answers_instead_of_prompts(model: Path, own_heads: Path, prompts: Path) -> None:
    answers = prompts.with_name("answers.jsonl")
    distilled = run("distill", "-m", model, "--prompts", prompts, "-o", answers, "-n", 20)
    assert distilled.exit_code == 0
    check(tune(model, own_heads, answers=answers, **OPTIONS | {"limit": 8}))


def test_an_interrupt_stores_nothing(
    model: Path, own_heads: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "measure_speeds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(model, own_heads, prompts, **OPTIONS)
    assert not (own_heads / "tuning.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_nodes": 1}, "max_nodes"),
        ({"limit": 1}, "limit"),
        ({"repeats": 0}, "repeats"),
        ({"contexts": ()}, "contexts is empty"),
        ({"contexts": (4096,)}, "512 positions"),
        ({"batches": (0,)}, "batches"),
    ],
)
def test_parameters_out_of_range(
    model: Path, own_heads: Path, prompts: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        tune(model, own_heads, prompts, **OPTIONS | changes)
    assert not (own_heads / "tuning.json").exists()


def test_prompts_or_answers(model: Path, own_heads: Path, prompts: Path) -> None:
    for sources in ({}, {"prompts": prompts, "answers": prompts}):
        with pytest.raises(InvalidArgument, match="one of the two"):
            tune(model, own_heads, **sources, **OPTIONS)


def test_the_command(model: Path, own_heads: Path, prompts: Path, tmp_path: Path) -> None:
    drawings = tmp_path / "drawings"
    arguments = (
        "tune", "-m", model, "--heads", own_heads, "--prompts", prompts, "--limit", 4, "-n", 12,
        "--max-nodes", 6, "--context", 64, "--batch", 1, "--repeats", 1, "--threads", 1,
    )  # fmt: skip
    result = run(*arguments, "-o", drawings, "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert 1 <= facts["nodes"] == len(facts["medusa_choices"]) + 1 <= 6
    assert [speed["nodes"] for speed in facts["speeds"]] == [1, 2, 4]
    assert {Path(path).name for path in facts["drawings"]} == {"tree.svg", "speed.svg"}
    shown = run(*arguments)
    assert "What pays" in shown.stdout
    assert "tokens a step" in shown.stdout
    assert "tuning.json" in shown.stderr.replace("\n", "")


def test_inspect_tells_what_was_tuned(model: Path, own_heads: Path, prompts: Path) -> None:
    report = tune(model, own_heads, prompts, **OPTIONS)
    arguments = ("inspect", "-m", model, "--heads", own_heads)
    facts = json.loads(run(*arguments, "--json").stdout)
    assert facts["tuning"]["rows"] == report.tuning.table.num_rows
    (device,) = facts["tuning"]["devices"]
    assert device.endswith(f": {report.device.nodes} nodes")
    assert {tuple(path) for path in facts["tree"]["paths"]} <= set(report.tuning.table.paths)
    assert "bfloat16, BF16" in run(*arguments).stdout.replace("\n", " ")


def test_the_command_refuses(model: Path, own_heads: Path, tmp_path: Path) -> None:
    result = run("tune", "-m", model, "--heads", own_heads, "--prompts", tmp_path / "missing")
    assert result.exit_code == 2
    assert "missing" in result.stderr.replace("\n", "")
    assert "Traceback" not in result.stderr
