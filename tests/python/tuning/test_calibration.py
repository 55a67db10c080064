"""Answers of calibration, and decoding some of them again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medusa_native import SpeculativeConfig, _core
from medusa_native.engine import LoadedEngine, load_engine
from medusa_native.training import distill
from medusa_native.training.answering import AnswerSettings
from medusa_native.training.records import Answer, read_answers, read_prompts
from medusa_native.tuning.calibration import answer_prompts, spread
from medusa_native.tuning.verify import Decoded, beginning, decode_in_turns


@pytest.fixture(scope="module")
def loaded(model: Path, heads: Path) -> LoadedEngine:
    return load_engine(model, SpeculativeConfig(model=heads), None, dtype="bfloat16", num_threads=1)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    texts = ["word " * (1 + 7 * i % 5) for i in range(9)] + ["long " * 600]
    path.write_text(
        "".join(json.dumps({"id": 9 - i, "prompt": t}) + "\n" for i, t in enumerate(texts))
    )
    return path


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_answers_are_those_of_distill_in_the_order_of_prompts(
    model: Path, loaded: LoadedEngine, prompts: Path, tmp_path: Path, temperature: float
) -> None:
    options = {"max_tokens": 12, "temperature": temperature, "seed": 3}
    distill(model, prompts, tmp_path / "out.jsonl", num_threads=1, **options)  # type: ignore[arg-type]
    expected = {a.key: a.token_ids for a in read_answers(tmp_path / "out.jsonl", 320)}
    settings = AnswerSettings(12, temperature, seed=3)
    found = answer_prompts(loaded.model, loaded.tokenizer, read_prompts(prompts), settings)
    kept = [key for key in range(9, 0, -1) if len(expected[key]) > 1]
    assert [answer.key for answer in found.answers] == kept  # the long one is left out
    assert all(answer.token_ids == expected[answer.key] for answer in found.answers)


def test_answers_are_decoded_token_for_token(loaded: LoadedEngine) -> None:
    tokens = list(range(5, 25))
    answers = [Answer("a", [1, 2, 3], tokens, "length"), Answer("b", [4], tokens[:9], "length")]
    trees = [_core.Tree.root_only(), _core.Tree.chain(2)]
    assert loaded.heads is not None
    plain, _ = found = decode_in_turns(loaded.model, loaded.heads, trees, answers)
    assert plain.steps == (19, 8)  # the first token comes with the prompt
    for decoded in found:
        assert min(*decoded.seconds, *decoded.step_seconds) > 0


def test_a_busy_moment_does_not_count() -> None:
    busy = Decoded((10, 5), (100.0, 2.0), (0.25, 0.5))
    assert busy.usual_seconds == 10 * 0.25 + 5 * 0.5


def test_beginnings_and_samples() -> None:
    answer = Answer("a", [1], [2, 3, 4], "length")
    assert beginning(answer, 2) == Answer("a", [1], [2, 3], "length")
    assert beginning(answer, 9) == answer
    assert spread(range(10), 3) == [0, 4, 9]
    assert np.array_equal(spread(range(4), 9), range(4))
