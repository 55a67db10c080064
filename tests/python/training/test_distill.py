"""The model's own answers, whatever interrupts their making."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from killing import kill_when, run_on_a_full_disk, size, start

from medusa_native import Decoder, InvalidArgument, SamplingParams
from medusa_native.training import distill

MAX_TOKENS = 12
QUESTIONS = [f"Question {i}: {'why ' * (i % 7)}?" for i in range(40)]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "prompts.jsonl", [{"prompt": text} for text in QUESTIONS])


def write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def answers(path: Path) -> dict[Any, dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["id"] for line in lines}) == len(lines)
    return {line["id"]: line for line in lines}


def test_answers_are_those_of_the_decoder(model: Path, prompts: Path, tmp_path: Path) -> None:
    report = distill(model, prompts, tmp_path / "out.jsonl", max_tokens=MAX_TOKENS, max_num_seqs=8)
    found = answers(tmp_path / "out.jsonl")
    assert report.num_answers == report.num_new_answers == len(found) == len(QUESTIONS)
    assert report.num_new_tokens == sum(len(line["token_ids"]) for line in found.values())
    conversations = [[{"role": "user", "content": text}] for text in QUESTIONS]
    outputs = Decoder(model).chat(conversations, SamplingParams(max_tokens=MAX_TOKENS))
    for key, output in enumerate(outputs):
        assert found[key]["prompt_token_ids"] == output.prompt_token_ids
        assert found[key]["token_ids"] == list(output.outputs[0].token_ids)
        assert found[key]["finish_reason"] == output.outputs[0].finish_reason


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_width_and_restarts_leave_no_trace(
    model: Path, prompts: Path, tmp_path: Path, temperature: float
) -> None:
    options: dict[str, Any] = {"max_tokens": MAX_TOKENS, "temperature": temperature, "seed": 3}
    distill(model, prompts, tmp_path / "a.jsonl", max_num_seqs=1, **options)
    distill(model, prompts, tmp_path / "b.jsonl", max_num_seqs=16, limit=10, **options)
    report = distill(model, prompts, tmp_path / "b.jsonl", max_num_seqs=16, **options)
    assert report.num_new_answers == len(QUESTIONS) - 10
    assert answers(tmp_path / "a.jsonl") == answers(tmp_path / "b.jsonl")


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on(
    model: Path, prompts: Path, tmp_path: Path, sign: signal.Signals
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    distill(model, prompts, whole, max_tokens=MAX_TOKENS)
    rng = random.Random(1)
    for _ in range(3):
        process = start(
            "distill", str(model), str(prompts), str(out), max_tokens=MAX_TOKENS, max_num_seqs=2
        )
        bar = rng.randrange(1, size(whole))
        kill_when(process, lambda bar=bar: size(out) >= bar, sign)
    distill(model, prompts, out, max_tokens=MAX_TOKENS)
    assert answers(out) == answers(whole)


def test_a_full_disk(model: Path, prompts: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    distill(model, prompts, whole, max_tokens=MAX_TOKENS)
    arguments = (str(model), str(prompts), str(out))
    text = run_on_a_full_disk(size(whole) // 2, "distill", *arguments, max_tokens=MAX_TOKENS)
    assert f"InvalidArgument: {out}: cannot be written: [Errno 27] File too large" in text
    distill(model, prompts, out, max_tokens=MAX_TOKENS)
    assert answers(out) == answers(whole)


def test_a_torn_last_line_is_made_again(model: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    distill(model, prompts, out, max_tokens=MAX_TOKENS)
    whole = answers(out)
    for cut in (1, 7, 200):
        data = out.read_bytes()
        out.write_bytes(data[:-cut])
        distill(model, prompts, out, max_tokens=MAX_TOKENS)
        assert answers(out) == whole


def test_conversations_and_named_prompts(model: Path, tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    talk += [{"role": "user", "content": "c"}]
    lines = [{"id": "x", "messages": talk}, {"id": 7, "prompt": "hello"}]
    prompts = write_lines(tmp_path / "p.jsonl", lines)
    distill(model, prompts, tmp_path / "out.jsonl", max_tokens=2)
    assert set(answers(tmp_path / "out.jsonl")) == {"x", 7}


def test_prompts_that_leave_no_room_are_left_out(model: Path, tmp_path: Path) -> None:
    lines = [{"prompt": "x" * 600}, {"prompt": "short"}]
    report = distill(model, write_lines(tmp_path / "p", lines), tmp_path / "out", max_tokens=4)
    assert (report.num_answers, report.num_skipped) == (1, 1)


def test_other_settings_are_refused(model: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    distill(model, prompts, out, max_tokens=2, limit=2)
    before = out.read_bytes()
    with pytest.raises(InvalidArgument, match="other settings"):
        distill(model, prompts, out, max_tokens=3)
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no prompts"),
        ("{\n", "line 1: not valid JSON"),
        ('{"prompt": "a"}\n[]\n', "line 2: must be an object"),
        ('{"text": "a"}\n', "line 1: must have a 'prompt'"),
        ('{"prompt": ""}\n', "line 1: must have a 'prompt'"),
        ('{"prompt": "a", "id": 1.5}\n', "'id' must be"),
        ('{"prompt": "a", "id": 1}\n{"prompt": "b", "id": 1}\n', "id 1 occurs twice"),
    ],
)
def test_malformed_prompts(model: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(InvalidArgument, match=message):
        distill(model, tmp_path / "p.jsonl", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_what_cannot_be_read_or_written(model: Path, prompts: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read"):
        distill(model, tmp_path / "missing", tmp_path / "out.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="cannot be written"):
        distill(model, prompts, tmp_path / "file" / "out.jsonl")
    with pytest.raises(InvalidArgument, match="cannot be written"):
        distill(model, prompts, tmp_path)
    with pytest.raises(InvalidArgument, match="max_tokens must be positive"):
        distill(model, prompts, tmp_path / "out.jsonl", max_tokens=0)
