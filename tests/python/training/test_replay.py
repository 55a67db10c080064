"""Conversations of several turns: what the model is led through, and what is learned from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_distill import answers, write_lines
from tiny_model import EOS, permutation_tensors, save_model

from medusa_native import Decoder, InvalidArgument, SamplingParams
from medusa_native.loading import load_checkpoint
from medusa_native.training import distill
from medusa_native.training.answering import AnswerSettings
from medusa_native.training.dataset import make_dataset
from medusa_native.training.records import Answer, read_answers

MAX_TOKENS = 40


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


TALKS: list[list[dict[str, str]]] = [
    [user(f"first {i}"), {"role": "assistant", "content": "not mine"}, user("and?"), user("why")]
    for i in range(12)
]


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that draws from many tokens, and after some of them mostly ends."""
    tensors, _ = permutation_tensors()
    tensors["lm_head.weight"][EOS] = tensors["model.embed_tokens.weight"][128:168].sum(axis=0)
    tensors["lm_head.weight"] *= np.float32(0.06)
    return save_model(
        tmp_path_factory.mktemp("talker"), tensors=tensors, max_position_embeddings=2048
    )


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "talks.jsonl", [{"messages": talk} for talk in TALKS])


def replayed(model: Path, prompts: Path, out: Path, **options: Any) -> list[Answer]:
    settings = {"max_tokens": MAX_TOKENS, "temperature": 1.0, "replay": True}
    distill(model, prompts, out, **settings | options)
    return sorted(read_answers(out, 320), key=lambda answer: answer.key)


def test_each_turn_follows_the_models_own_answers(
    talker: Path, prompts: Path, tmp_path: Path
) -> None:
    """Every turn again by hand: its context, its answer, and the template between two answers."""
    found = replayed(talker, prompts, tmp_path / "out.jsonl")
    tokenizer = load_checkpoint(talker).tokenizer
    assert [len(answer.spans) for answer in found].count(3) >= 3
    for talk, answer in zip(TALKS, found, strict=True):
        first = tokenizer.apply_chat_template(talk[:1])
        assert answer.prompt_token_ids == first
        users = [message["content"] for message in talk if message["role"] == "user"]
        tokens = list(answer.token_ids)
        for number, (begin, end) in enumerate(answer.spans):
            assert end - begin <= MAX_TOKENS
            assert EOS not in tokens[begin : end - 1]
            if number > 0:
                asked = f"<s>user: {users[number]}</s><s>assistant: "
                between = tokens[answer.spans[number - 1][1] : begin]
                assert between == tokenizer.encode(asked, add_special_tokens=False)
                assert tokens[answer.spans[number - 1][1] - 1] == EOS
        assert end == len(tokens)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_turns_are_what_the_decoder_answers(
    talker: Path, prompts: Path, tmp_path: Path, temperature: float
) -> None:
    found = replayed(talker, prompts, tmp_path / "out.jsonl", temperature=temperature, seed=5)
    decoder = Decoder(talker, dtype="bfloat16")
    for index, answer in enumerate(found):
        turn = answer.turns()[0]
        params = SamplingParams(max_tokens=MAX_TOKENS, temperature=temperature, seed=5 + index)
        (output,) = decoder.generate([turn.prompt_token_ids], params)
        assert list(output.outputs[0].token_ids) == list(turn.token_ids)
        if temperature == 0:
            for later in answer.turns()[1:]:
                (output,) = decoder.generate([later.prompt_token_ids], params)
                assert list(output.outputs[0].token_ids) == list(later.token_ids)


def test_width_and_restarts_leave_no_trace(talker: Path, prompts: Path, tmp_path: Path) -> None:
    whole = replayed(talker, prompts, tmp_path / "a.jsonl", max_num_seqs=1)
    replayed(talker, prompts, tmp_path / "b.jsonl", max_num_seqs=16, limit=5)
    assert replayed(talker, prompts, tmp_path / "b.jsonl", max_num_seqs=3) == whole


def test_turns_can_be_limited(talker: Path, prompts: Path, tmp_path: Path) -> None:
    whole = replayed(talker, prompts, tmp_path / "a.jsonl")
    one = replayed(talker, prompts, tmp_path / "b.jsonl", max_turns=1, max_model_len=2000)
    for full, short in zip(whole, one, strict=True):
        assert short.token_ids == full.token_ids[: full.spans[0][1]]
        assert len(short.spans) == 1


def test_conversations_are_cut_and_counted(talker: Path, prompts: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"temperature": 1.0, "replay": True}
    short = distill(talker, prompts, tmp_path / "a.jsonl", max_tokens=3, **options)
    found = read_answers(tmp_path / "a.jsonl", 320)
    cut = [answer for answer in found if len(answer.spans) < 3]
    assert short.num_cut == len(cut) > 0
    assert any(answer.finish_reason == "length" for answer in cut)
    for answer in cut:  # without an end, or with nothing but an end
        assert answer.finish_reason == "length" or answer.turns()[-1].token_ids == [EOS]
    narrow = distill(
        talker, prompts, tmp_path / "b.jsonl", max_tokens=MAX_TOKENS, max_model_len=90, **options
    )
    assert narrow.num_cut > 0
    assert all(
        len(answer.prompt_token_ids) + len(answer.token_ids) <= 90
        for answer in read_answers(tmp_path / "b.jsonl", 320)
    )


def test_settings_of_older_files_still_fit(model: Path, prompts: Path, tmp_path: Path) -> None:
    """A file begun before there was a replay goes on without one, and refuses one."""
    out = tmp_path / "out.jsonl"
    distill(model, prompts, out, max_tokens=2, limit=3)
    beside = json.loads((tmp_path / "out.jsonl.settings.json").read_text())
    assert set(beside) == {"max_tokens", "temperature", "top_p", "seed", "model", "dtype"}
    assert all("responses" not in line for line in answers(out).values())
    assert distill(model, prompts, out, max_tokens=2, limit=5).num_new_answers == 2
    with pytest.raises(InvalidArgument, match="other settings"):
        distill(model, prompts, out, max_tokens=2, replay=True)


def test_what_cannot_be_replayed(model: Path, tmp_path: Path) -> None:
    tool = [{"messages": [user("a"), {"role": "tool", "content": "b"}]}]
    nobody = [{"messages": [{"role": "assistant", "content": "b"}]}]
    for lines, message in ((tool, "must have the role system, user"), (nobody, "a user's message")):
        path = write_lines(tmp_path / "p.jsonl", lines)
        with pytest.raises(InvalidArgument, match=f"prompt 0: .*{message}"):
            distill(model, path, tmp_path / "out.jsonl", max_tokens=2, replay=True)
    with pytest.raises(InvalidArgument, match="max_turns needs replay"):
        distill(model, path, tmp_path / "out.jsonl", max_turns=2)
    with pytest.raises(InvalidArgument, match="max_turns must be positive, found -1"):
        distill(model, path, tmp_path / "out.jsonl", replay=True, max_turns=-1)


# Learning from them

TALK = Answer("t", [1, 2], [10, 11, 12, 50, 51, 20, 21, 60, 30], "stop", [(0, 3), (5, 7), (8, 9)])


def test_the_mask_marks_what_the_model_said() -> None:
    tokens, said = TALK.sequence()
    assert tokens.tolist() == [1, 2, 10, 11, 12, 50, 51, 20, 21, 60, 30]
    assert tokens[said].tolist() == [10, 11, 12, 20, 21, 30]
    assert not said[[0, 1, 5, 6, 9]].any()
    tokens, said = Answer(0, [1, 2], [3, 4], "stop").sequence()
    assert (tokens.tolist(), said.tolist()) == ([1, 2, 3, 4], [False, False, True, True])


def test_turns_are_answers_to_all_that_came_before() -> None:
    turns = TALK.turns()
    assert [turn.token_ids for turn in turns] == [[10, 11, 12], [20, 21], [30]]
    assert turns[1].prompt_token_ids == [1, 2, 10, 11, 12, 50, 51]
    assert turns[2].prompt_token_ids == [1, 2, 10, 11, 12, 50, 51, 20, 21, 60]
    single = Answer(0, [1], [2, 3], "stop")
    assert single.turns() == [single]


def test_rows_of_turns() -> None:
    data = make_dataset([TALK, Answer(1, [9], [30, 31], "stop")], 100)
    assert data.roots().tolist() == [10, 11, 20, 30]
    assert data.targets(2).tolist() == [[11, 12], [12, -1], [21, -1], [31, -1]]
    assert data.inputs(1) == [1, 2, 10, 11, 12, 50, 51]
    assert data.token_counts(np.array([0, 1]), 64).nonzero()[0].tolist() == [10, 11, 12, 20, 21]


def test_a_split_keeps_conversations_whole() -> None:
    talks = [
        Answer(i, [1], [2, 3, 4, 5, 6, 7], "stop", [(0, 2), (2, 4), (4, 6)]) for i in range(50)
    ]
    data = make_dataset(talks, 100)
    learn, keep = data.split(0.2, 3)
    assert sorted([*learn, *keep]) == list(range(150))
    assert len(keep) == 30
    assert data.conversation is not None
    numbers = np.asarray(data.conversation)
    assert not {*numbers[learn]} & {*numbers[keep]}


@pytest.mark.parametrize(
    "spans",
    [[], [[0, 0]], [[0, 2], [1, 3]], [[2, 3], [0, 1]], [[0, 4]], [[0]], [[0, 1.0]], {"a": 1}, "ab",
     [[-1, 2]], [[0, True]]],
)  # fmt: skip
def test_malformed_responses(tmp_path: Path, spans: Any) -> None:
    line = {"id": 1, "prompt_token_ids": [1], "token_ids": [1, 2, 3], "responses": spans}
    with pytest.raises(InvalidArgument, match="line 1: 'responses' must be ascending pairs"):
        read_answers(write_lines(tmp_path / "a.jsonl", [line]), 10)


def test_a_record_reads_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(TALK.to_json() + "\n")
    assert read_answers(path, 100) == [TALK]


def test_settings_say_what_is_replayed() -> None:
    assert AnswerSettings(4).replay is False
