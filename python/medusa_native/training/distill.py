"""Self-distillation: the model's own answers to a list of prompts."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from medusa_native.engine import load_model
from medusa_native.errors import InvalidArgument
from medusa_native.heads import fingerprint
from medusa_native.json_text import parse_json
from medusa_native.loading import load_checkpoint
from medusa_native.loading.writing import replace_file
from medusa_native.training.answering import Answering, AnswerSettings
from medusa_native.training.progress import Meter
from medusa_native.training.records import (
    Prompt,
    open_for_append,
    read_answers,
    read_prompts,
    writing,
)

_SYNC_SECONDS = 5.0


@dataclass(frozen=True)
class DistillReport:
    """What `distill` did.

    Attributes
    ----------
    num_answers
        Answers in the file, those of earlier runs included.
    num_new_answers, num_new_tokens, seconds
        Of this run.
    num_skipped
        Prompts too long for the model.
    num_cut
        Conversations of this run that ended before their last user turn: too long, an answer
        without an end, or a template that does not go on where it stopped.
    """

    num_answers: int
    num_new_answers: int
    num_new_tokens: int
    num_skipped: int
    seconds: float
    num_cut: int = 0


@dataclass(frozen=True)
class _Settings(AnswerSettings):
    """What must be equal for two runs to write one file."""

    model: str = ""
    dtype: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the settings; those that older files do not have only where they are in use."""
        values = asdict(self)
        if not self.replay:
            del values["replay"], values["max_turns"]
        return values


def distill(
    model: str | Path,
    prompts: str | Path,
    output: str | Path,
    *,
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    replay: bool = False,
    max_turns: int | None = None,
    limit: int | None = None,
    max_num_seqs: int = 64,
    max_model_len: int | None = None,
    dtype: str = "bfloat16",
    num_threads: int | None = None,
    progress: bool | None = None,
) -> DistillReport:
    """Let a model answer prompts, many at a time, and write the answers.

    An interrupted run goes on where it stopped: answers already in `output` are kept, a torn last
    line is cut off. Every answer depends on its own prompt alone, so the order and the number of
    runs leave no trace but the order of lines.

    Parameters
    ----------
    model
        A GGUF file, a Hugging Face folder or a hub id.
    prompts
        JSON Lines with ``prompt`` or ``messages``, and perhaps ``id``. The model's chat template
        is applied.
    output
        JSON Lines: ``id``, ``prompt_token_ids``, ``token_ids``, ``finish_reason``, and
        ``responses`` with `replay`. Settings are kept beside it in ``<output>.settings.json``.
    max_tokens
        Longest answer.
    temperature, top_p, seed
        How answers are drawn; temperature 0 is greedy. The seed of prompt i is ``seed + i``; later
        turns have seeds made from it.
    replay
        Put all user turns of a conversation, one after the other, each answered by the model
        itself; answers that the file has are left out. Otherwise the model answers once, after the
        last message.
    max_turns
        Replay so many user turns at most.
    limit
        Only the first so many prompts.
    max_num_seqs
        Answers in flight.
    max_model_len
        Longest prompt and answer together; longer ones are left out, and conversations end there.
        Default: 1024 tokens more than `max_tokens` (with `replay` than `max_turns` times that, or
        4 times), or what the model allows.
    dtype, num_threads
        As of `Decoder`.
    progress
        Show it on standard error; None: when that is a terminal.

    Raises
    ------
    InvalidArgument
        A file cannot be read or written, `output` was begun with other settings, or a parameter is
        out of range. Nothing is written then.
    """
    _check(max_tokens=max_tokens, max_num_seqs=max_num_seqs, max_turns=max_turns or 1)
    if max_turns is not None and not replay:
        raise InvalidArgument("max_turns needs replay")
    listed = read_prompts(Path(prompts))[:limit]
    checkpoint = load_checkpoint(model)
    settings = _Settings(
        max_tokens, temperature, top_p, seed, replay, max_turns, fingerprint(checkpoint), dtype
    )
    path = Path(output)
    with _answers_file(path, settings) as file:
        done = _keys_done(path, checkpoint.config["vocab_size"])
        todo = [(i, prompt) for i, prompt in enumerate(listed) if prompt.key not in done]
        length = max_model_len or max_tokens * (max_turns or (4 if replay else 1)) + 1024
        packed = load_model(checkpoint, dtype, num_threads or 0)
        answering = Answering(
            packed, checkpoint.tokenizer, settings, length=length, width=max_num_seqs
        )
        with Meter("distill", len(listed), len(listed) - len(todo), shown=progress) as meter:
            return _write_answers(answering, todo, file, meter, len(done))


def _check(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise InvalidArgument(f"{name} must be positive, found {value}")


@contextmanager
def _answers_file(path: Path, settings: _Settings) -> Iterator[TextIO]:
    """Open `path` for this run; refuse a file begun with other settings."""
    beside = path.with_name(path.name + ".settings.json")
    wanted = settings.to_json()
    if path.is_file() and path.stat().st_size > 0:
        try:
            found = parse_json(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"{path}: exists, but not its settings: {error}") from error
        if found != wanted:
            raise InvalidArgument(
                f"{path}: was begun with other settings: expected {wanted}, found {found}"
            )
    with writing(path), open_for_append(path) as file:
        text = json.dumps(wanted, indent=2) + "\n"
        replace_file(beside, lambda out: out.write(text.encode()))
        try:
            yield file
        finally:
            file.flush()
            os.fsync(file.fileno())


def _keys_done(path: Path, vocab_size: int) -> set[int | str]:
    if path.stat().st_size == 0:
        return set()
    return {answer.key for answer in read_answers(path, vocab_size)}


def _write_answers(
    answering: Answering, todo: list[tuple[int, Prompt]], file: TextIO, meter: Meter, earlier: int
) -> DistillReport:
    """Answer `todo`; every finished answer is written at once."""
    start = synced = time.monotonic()
    answers, first = 0, meter.done
    for finished in answering.steps(todo):
        file.writelines(answer.to_json() + "\n" for answer in finished)
        answers += len(finished)
        speed = answering.num_tokens / max(time.monotonic() - start, 1e-9)
        meter.update(first + answers + answering.num_skipped, f"{speed:.0f} tokens/s")
        if time.monotonic() - synced > _SYNC_SECONDS:
            synced = time.monotonic()
            file.flush()
            os.fsync(file.fileno())
    seconds = time.monotonic() - start
    return DistillReport(
        num_answers=earlier + answers,
        num_new_answers=answers,
        num_new_tokens=answering.num_tokens,
        num_skipped=answering.num_skipped,
        seconds=seconds,
        num_cut=answering.num_cut,
    )
