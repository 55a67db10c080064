"""Benchmarks: the work they do and the figures they make of it; never how long it takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli import run
from tiny_model import perfect_heads, permutation_tensors, save_heads, save_model

from medusa_native import Decoder, InvalidArgument, SamplingParams, SpeculativeConfig, _core
from medusa_native.bench import run as bench
from medusa_native.bench.report import spread, step_times, summarize, warnings_of
from medusa_native.bench.runner import PARTS, Passes, Run, Timeline, run_requests
from medusa_native.bench.workload import random_workload, read_workload, repeat
from medusa_native.engine import LoadedEngine, load_engine

SMALL = ("--output-len", 12, "--num-prompts", 2, "--num-iters", 1, "--threads", 1)


@pytest.fixture(scope="module")
def loaded(model: Path, heads: Path) -> LoadedEngine:
    return load_engine(model, SpeculativeConfig(model=heads), None, dtype="bfloat16", num_threads=1)


def test_figures_by_hand() -> None:
    first = Timeline(10.0, [11.0, 12.0, 14.0], [1, 2, 3, 4, 5])
    second = Timeline(10.0, [13.0], [1])
    result = summarize([Run([first, second], [], 4.0)])
    assert result["tokens_per_second"] == 6 / 4
    assert result["requests_per_second"] == 2 / 4
    assert result["time_to_first_token_ms"]["p50"] == 2000
    assert result["time_per_output_token_ms"]["mean"] == 1e3 * (3 / 4 + 0) / 2
    assert result["inter_token_latency_ms"]["mean"] == 1500
    assert result["latency_ms"]["p50"] == 3500
    assert result["mean_acceptance_length"] == 1
    assert result["rank_histogram"] == []
    assert spread([]) == {"mean": 0, "p50": 0, "p95": 0}


def test_parts_of_a_pass_by_hand() -> None:
    """Of both runs together, so that the longer one counts more."""
    few, many = Passes(1, (1.0, 2.0, 0.0, 0.0, 0.0)), Passes(3, (0.0, 6.0, 0.0, 0.0, 4.0))
    result = step_times([Run([], [], 1.0, few), Run([], [], 1.0, many)])
    assert result["num_forward_passes"] == 4
    assert result["step_ms"] == {
        "draft": 250, "forward": 2000, "accept": 0, "commit": 0, "heads": 1000,
    }  # fmt: skip
    assert many.since(few) == Passes(2, (-1.0, 4.0, 0.0, 0.0, 4.0))


def test_a_pass_that_requests_share_counts_once(loaded: LoadedEngine) -> None:
    run_requests(loaded.engine, [[1]], 2, speculative=True)  # what came before does not count
    alone = run_requests(loaded.engine, [[5, 6, 7]], 12, speculative=False)
    shared = run_requests(loaded.engine, [[5, 6, 7], [8, 9]], 12, speculative=False)
    assert alone.passes.count == 12  # the prompt's, and one for each further token
    assert shared.passes.count < sum(m.num_forward_passes for m in shared.counters)
    assert all(0 < sum(run.passes.seconds) <= run.seconds for run in (alone, shared))


def test_which_rank_won(tmp_path: Path) -> None:
    """The heads' best guess is the model's own token: no other rank ever wins."""
    tensors, permutation = permutation_tensors()
    model = save_model(tmp_path / "model", tensors=tensors)
    heads = save_heads(tmp_path / "heads", tensors=perfect_heads(tensors, permutation, 3))
    config = SpeculativeConfig(model=heads, medusa_choices=[[0], [1], [0, 0]])
    engine = load_engine(model, config, None, dtype="bfloat16", num_threads=1).engine
    runs = [run_requests(engine, [[5, 6]], 10, speculative=True) for _ in range(2)]
    figures = summarize(runs)
    accepted, drafts = figures["rank_histogram"], figures["num_drafts"]
    assert [row[0] for row in accepted] == [drafts, drafts - 2 * (drafts % 2)]
    assert [sum(row[1:]) for row in accepted] == [0, 0]
    assert sum(map(sum, accepted)) == figures["num_accepted_tokens"]


def test_a_run_decodes_what_a_decoder_does(loaded: LoadedEngine, plain: Decoder) -> None:
    prompts = [[5, 6, 7], [8, 9]]
    params = SamplingParams(max_tokens=12, ignore_eos=True)
    expected = [output.outputs[0].token_ids for output in plain.generate(prompts, params)]
    for speculative in (False, True):
        found = run_requests(loaded.engine, prompts, 12, speculative=speculative)
        assert [request.tokens for request in found.requests] == expected
        assert found.num_tokens == 24
        assert (sum(m.num_drafts for m in found.counters) > 0) is speculative
        for request in found.requests:
            assert 0 < request.time_to_first_token <= request.latency <= found.seconds
            assert len(request.inter_token_latencies) == len(request.times) - 1


def test_latency_is_one_request_at_a_time(loaded: LoadedEngine) -> None:
    prompts = random_workload(3, 5, 320, 0)
    sides = ["plain", "medusa"]
    alone = bench.measure_latency(loaded.engine, prompts, 6, 2, sides=sides)
    assert {side: [len(r.requests) for r in found] for side, found in alone.items()} == {
        "plain": [1] * 6, "medusa": [1] * 6,
    }  # fmt: skip
    together = bench.measure_throughput(loaded.engine, prompts, 6, 2, sides=sides)
    assert [len(r.requests) for r in together["medusa"]] == [3, 3]
    assert bench.report(loaded, together)["identical"] is True


def test_workloads(loaded: LoadedEngine, tmp_path: Path) -> None:
    assert len(read_workload(None, loaded.tokenizer)) == 8
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "hi"}\n')
    (prompt,) = read_workload(path, loaded.tokenizer)
    assert prompt == loaded.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])
    assert random_workload(2, 3, 10, 1) == random_workload(2, 3, 10, 1)
    assert repeat([[1], [2]], 3) == [[1], [2], [1]]
    with pytest.raises(InvalidArgument, match="no prompts"):
        repeat([], 3)


def test_synthetic_acceptance_needs_no_heads(model: Path) -> None:
    engine = bench.open_engine(
        str(model), SpeculativeConfig(medusa_choices="chain"), synthetic_acceptance_length=2.5,
        num_heads=3, draft_vocab=64, dtype="bfloat16", num_threads=1,
    )  # fmt: skip
    assert engine.heads is not None
    assert engine.heads.draft_vocab_size == 64
    assert engine.engine.options.synthetic_acceptance_length == 2.5
    runs = bench.measure_throughput(
        engine.engine, random_workload(4, 4, 320, 0), 200, 1, sides=["plain", "medusa"]
    )
    result = bench.report(engine, runs)
    assert result["synthetic_acceptance_length"] == 2.5
    assert result["identical"] is None
    assert result["sides"]["medusa"]["mean_acceptance_length"] == pytest.approx(2.5, abs=0.25)
    assert result["sides"]["plain"]["mean_acceptance_length"] == 1


def test_no_request_can_switch_it_on(model: Path, heads: Path) -> None:
    """Only a benchmark's engine accepts what is wrong."""
    with pytest.raises(InvalidArgument, match="synthetic_acceptance_length is unknown"):
        SpeculativeConfig(model=heads, synthetic_acceptance_length=2)  # type: ignore[call-arg]
    with pytest.raises(InvalidArgument, match="synthetic_acceptance_length is unknown"):
        SamplingParams(synthetic_acceptance_length=2)  # type: ignore[call-arg]
    decoder = Decoder(model, heads, num_threads=1)
    assert decoder._loaded.engine.options.synthetic_acceptance_length == 0


@pytest.mark.parametrize("length", [0.5, 4.5, float("nan")])
def test_lengths_that_cannot_be(model: Path, length: float) -> None:
    with pytest.raises(InvalidArgument, match="synthetic_acceptance_length"):
        bench.open_engine(
            str(model), SpeculativeConfig(medusa_choices="chain"), num_heads=3, draft_vocab=64,
            synthetic_acceptance_length=length, dtype="bfloat16", num_threads=1,
        )  # fmt: skip


def test_near_zero_acceptance_is_told() -> None:
    figures = {"mean_acceptance_length": 1.01, "num_drafts": 100}
    assert "hardly any guess was right" in warnings_of(figures)[0]
    assert warnings_of(figures | {"mean_acceptance_length": 1.5}) == []
    assert warnings_of(figures | {"num_drafts": 0}) == []


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_the_command(model: Path, heads: Path, mode: str) -> None:
    result = run("bench", mode, "-m", model, "--heads", heads, *SMALL, "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["mode"] == mode
    assert facts["identical"] is True
    assert facts["sides"]["plain"]["tokens"] == facts["sides"]["medusa"]["tokens"] == 24
    assert facts["warnings"]  # these heads know nothing
    assert facts["speedup"] > 0


def test_the_command_for_people(tmp_path: Path) -> None:
    tensors, permutation = permutation_tensors()
    model = save_model(tmp_path / "model", tensors=tensors)
    heads = save_heads(tmp_path / "heads", tensors=perfect_heads(tensors, permutation, 3))
    arguments = ("bench", "-m", model, "--heads", heads, "--medusa-choices", "chain", *SMALL)
    result = run(*arguments, "--input-len", 4)
    assert result.exit_code == 0, result.stderr
    assert "every token agrees" in result.stdout
    assert "time to first token ms (p50 / p95)" in result.stdout
    parts, ranks = result.stdout.split("A forward pass, ms")[1].split("Guess that won")
    assert [line.split()[0] for line in parts.splitlines()[2:7]] == list(PARTS)
    assert [line.split()[:2] for line in ranks.splitlines()[3:6]] == [
        ["head", "1"], ["head", "2"], ["head", "3"],
    ]  # fmt: skip
    assert "warning" not in result.stderr


def test_the_command_marks_synthetic_text(model: Path) -> None:
    result = run("bench", "-m", model, *SMALL, "--synthetic-acceptance-length", 2)
    assert result.exit_code == 0, result.stderr
    assert "the text means nothing" in result.stderr.replace("\n", " ")
    assert "agrees" not in result.stdout


def test_plain_alone(model: Path) -> None:
    facts = json.loads(run("bench", "-m", model, *SMALL, "--json").stdout)
    assert list(facts["sides"]) == ["plain"]
    assert "speedup" not in facts


def test_a_difference_fails(model: Path, heads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_identical", lambda *_: False)
    result = run("bench", "-m", model, "--heads", heads, *SMALL)
    assert result.exit_code == 1
    assert "TOKENS DIFFER" in result.stdout


def test_what_does_not_fit(model: Path, tmp_path: Path) -> None:
    long = run("bench", "-m", model, "--input-len", 500, "--output-len", 100, "--num-prompts", 1)
    assert long.exit_code == 2
    assert "max_model_len" in long.stderr
    both = run("bench", "-m", model, "--input-len", 5, "--prompts", tmp_path / "p")
    assert both.exit_code == 2


def test_the_core_refuses_a_length_without_a_tree(loaded: LoadedEngine) -> None:
    root = _core.Tree.root_only()
    with pytest.raises(InvalidArgument, match="synthetic_acceptance_length"):
        _core.Engine(loaded.model, None, root, synthetic_acceptance_length=2.0)
