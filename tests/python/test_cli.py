"""The command line: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_adapter import save_adapter
from tiny_model import save_model
from typer.testing import CliRunner, Result

from medusa_native import Decoder, SamplingParams
from medusa_native.cli import app

COMMANDS = [
    *("generate", "chat", "distill", "train", "tune", "bench", "inspect", "convert", "demo"),
    *("merge", "recipes"),
]


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)


def process(*arguments: object) -> list[str]:
    """Ctrl-C reaches it even where the tests were started in the background, which ignores it."""
    main = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from medusa_native.cli import main; main()"
    )
    return [sys.executable, "-c", main, *map(str, arguments)]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Example: medusa-native {command}" in " ".join(result.stdout.split())


def test_generate_streams_one_prompt(model: Path, heads: Path, plain: Decoder) -> None:
    result = run("generate", "-m", model, "--heads", heads, "-p", "hello", "-n", 12, "--ignore-eos")
    assert result.exit_code == 0, result.stderr
    params = SamplingParams(max_tokens=12, ignore_eos=True)
    expected = plain.generate("hello", params)[0].outputs[0].text
    assert result.stdout == expected + "\n"
    assert "12 tokens" in result.stderr
    assert "tokens a step" in result.stderr


def test_generate_with_an_adapter(model: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", model)
    result = run("generate", "-m", model, "--adapter", adapter, "-p", "hello", "-n", 8)
    assert result.exit_code == 0
    params = SamplingParams(max_tokens=8)
    expected = Decoder(model, adapter=adapter).generate("hello", params)[0].outputs[0].text
    assert result.stdout == expected + "\n"
    missing = run("generate", "-m", model, "--adapter", tmp_path / "none", "-p", "hello")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "none: no such file or folder" in " ".join(missing.stderr.split())


def test_generate_json(model: Path) -> None:
    result = run(
        "generate", "-m", model, "-p", "a", "-p", "b", "-n", 4, "--temperature", 0.8, "--seed", 3,
        "--top-k", 5, "--top-p", 0.9, "--min-p", 0.01, "--json",
    )  # fmt: skip
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert [o["prompt"] for o in objects] == ["a", "b"]
    assert all(len(o["outputs"][0]["token_ids"]) <= 4 for o in objects)
    assert all(o["metrics"]["num_generated_tokens"] >= 1 for o in objects)


def test_generate_takes_every_kind_of_parameter(model: Path, heads: Path, plain: Decoder) -> None:
    result = run(
        "generate", "-m", model, "--heads", heads, "-p", "a", "-n", 8, "--temperature", 0.8,
        "--repetition-penalty", 1.3, "--presence-penalty", 0.5, "--frequency-penalty", 0.2,
        "--min-tokens", 8, "--bad-word", "b", "--bad-word", "cd", "--logprobs", 2, "--n", 3,
        "--json",
    )  # fmt: skip
    params = SamplingParams(
        max_tokens=8, temperature=0.8, repetition_penalty=1.3, presence_penalty=0.5,
        frequency_penalty=0.2, min_tokens=8, bad_words=["b", "cd"], logprobs=2, n=3,
    )  # fmt: skip
    found = json.loads(result.stdout)
    expected = json.loads(json.dumps(plain.generate("a", params)[0].to_dict()))
    assert found["outputs"] == expected["outputs"]


def test_generate_shows_all_answers(model: Path) -> None:
    result = run("generate", "-m", model, "-p", "a", "-n", 3, "--temperature", 1, "--n", 2)
    assert result.exit_code == 0, result.stderr
    refused = run("generate", "-m", model, "-p", "a", "--logprobs", 1)
    assert refused.exit_code != 0
    assert "--json" in refused.stderr


def test_generate_reads_stdin_and_chats(model: Path) -> None:
    result = run("generate", "-m", model, "--chat", "-n", 3, "--json", stdin="hi")
    assert json.loads(result.stdout)["prompt"] == "<s>user: hi</s><s>assistant: "


def test_generate_many_prompts_for_people(model: Path) -> None:
    result = run("generate", "-m", model, "-p", "first", "-p", "second", "-n", 3)
    assert result.exit_code == 0
    assert result.stdout.index("first") < result.stdout.index("second")


def test_chat_remembers(model: Path, heads: Path) -> None:
    lines = "one\n\n/help\ntwo\n/reset\nthree\n/exit\nnever\n"
    result = run("chat", "-m", model, "--heads", heads, "--system", "Be.", "-n", 4, "--json",
                 stdin=lines)  # fmt: skip
    assert result.exit_code == 0
    prompts = [json.loads(line)["prompt"] for line in result.stdout.splitlines()]
    assert len(prompts) == 3
    assert "system: Be." in prompts[0]
    assert "user: one" in prompts[1]
    assert "user: two" in prompts[1]
    assert "user: two" not in prompts[2]


def test_chat_survives_a_turn_that_does_not_fit(model: Path) -> None:
    lines = f"{'long ' * 60}\nshort\n"
    result = run("chat", "-m", model, "--max-model-len", 64, "-n", 3, stdin=lines)
    assert result.exit_code == 0
    assert "max_model_len" in result.stderr
    assert "3 tokens" in result.stderr


def test_inspect(model: Path, heads: Path) -> None:
    arguments = ("inspect", "-m", model, "--heads", heads, "--medusa-choices", "chain")
    facts = json.loads(run(*arguments, "--json").stdout)
    assert facts["model"]["num_hidden_layers"] == 2
    assert facts["model"]["chat_template"] is True
    assert facts["heads"]["num_heads"] == 3
    assert facts["tree"] == {"nodes": 4, "depth": 3, "paths": [[0], [0, 0], [0, 0, 0]]}
    assert facts["cpu"]["instruction_sets"]
    for_people = run(*arguments).stdout
    assert "fingerprint" in for_people
    assert "root" in for_people


def test_from_prompts_to_heads(model: Path, plain: Decoder, tmp_path: Path) -> None:
    """Distil, train, decode: three commands, and the answer is plain decoding's."""
    prompts, answers, heads = (tmp_path / name for name in ("p.jsonl", "a.jsonl", "heads"))
    prompts.write_text("".join(json.dumps({"prompt": f"Say {i}."}) + "\n" for i in range(20)))
    common = ("-m", model, "--json", "--threads", 2)
    distilled = run("distill", *common, "--prompts", prompts, "-o", answers, "-n", 16)
    assert distilled.exit_code == 0, distilled.stderr
    assert json.loads(distilled.stdout)["num_answers"] == 20
    trained = run(
        "train", *common, "--data", answers, "-o", heads, "--epochs", 1, "--draft-vocab", 0,
        "--batch-size", 64, "--num-heads", 2,
    )  # fmt: skip
    assert trained.exit_code == 0, trained.stderr
    assert json.loads(trained.stdout)["validation"]["tokens_per_step"] >= 1
    result = run("generate", "-m", model, "--heads", heads, "-p", "Say 1.", "-n", 12)
    expected = plain.generate("Say 1.", SamplingParams(max_tokens=12))[0].outputs[0].text
    assert result.stdout == expected + "\n"


@pytest.mark.parametrize("command", ["distill", "train"])
def test_training_commands_fail_in_one_line(command: str, model: Path, tmp_path: Path) -> None:
    data = {"distill": "--prompts", "train": "--data"}[command]
    result = run(command, "-m", model, data, tmp_path / "missing", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "missing" in result.stderr
    assert "Traceback" not in result.stderr


def test_demo_compares(model: Path, heads: Path) -> None:
    arguments = ("demo", "-m", model, "--heads", heads, "-n", 10, "--prompts", 2)
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["identical"] is True
    assert summary["prompts"] == 2
    assert summary["mean_acceptance_length"] >= 1
    assert "every token id agrees" in run(*arguments).stdout


def test_demo_fails_when_tokens_differ(
    model: Path, heads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medusa_native.cli import demo

    decode = sys.modules["medusa_native.cli.demo"]._decode  # type: ignore[attr-defined]

    def wrong(decoder: Decoder, prompt: str, count: int, *, speculative: bool) -> Any:
        found = decode(decoder, prompt, count, speculative=speculative)
        return (
            type(found)(found.pieces, found.token_ids[:-1], found.metrics) if speculative else found
        )

    monkeypatch.setattr(sys.modules[demo.__module__], "_decode", wrong)
    result = run("demo", "-m", model, "--heads", heads, "-n", 10, "--prompts", 1)
    assert result.exit_code == 1
    assert "NO" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "x", "--heads", "nowhere"], "nowhere"),
        (["-p", "x", "--device", "cuda:99"], "cuda:99"),
        (["-p", "x", "--dtype", "float16"], "CUDA only"),
        (["-p", "x", "--temperature", "-1"], "temperature"),
        (["-p", "x", "--heads", "auto"], "no heads ship"),
        (["-p", "x" * 600], "max_model_len"),
    ],
)
def test_an_error_is_one_line(model: Path, arguments: list[str], message: str) -> None:
    result = run("generate", "-m", model, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("medusa-native: ")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "x", "--frobnicate"],
        [],
        ["-m", "x", "-n", "many"],
        ["-m", "x", "-p", "y", "--medusa-choices", "chain"],
    ],
)
def test_usage_errors(arguments: list[str]) -> None:
    assert run("generate", *arguments).exit_code == 2


def test_a_model_that_is_none(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        result = run("inspect", "-m", path)
        assert result.exit_code == 2
        assert str(path) in result.stderr.replace("\n", "")


def test_a_reader_that_leaves(model: Path) -> None:
    """`medusa-native generate ... | head -c 1` ends quietly."""
    command = process("generate", "-m", model, "-p", "x", "-n", 300, "--ignore-eos")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(1)
        child.stdout.close()
        errors = child.stderr.read().decode()
        assert child.wait() == 0, errors
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors


def test_ctrl_c(tmp_path: Path) -> None:
    """More is to be written than a pipe holds, so that it cannot end before the signal comes."""
    model = save_model(tmp_path, max_position_embeddings=200_000)
    command = process("generate", "-m", model, "-p", "x", "-n", 190_000, "--ignore-eos")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(1)
        time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        child.stdout.read()
        errors = child.stderr.read().decode()
        assert child.wait() == 130
    assert "Traceback" not in errors
