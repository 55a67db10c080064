"""Self-distillation: the model's own answers to a list of prompts."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from medusa_native import _core
from medusa_native.engine import load_model
from medusa_native.errors import InvalidArgument
from medusa_native.heads import fingerprint
from medusa_native.json_text import parse_json
from medusa_native.loading import Checkpoint, load_checkpoint
from medusa_native.loading.heads_writer import replace_file
from medusa_native.training.progress import Meter
from medusa_native.training.records import (
    Answer,
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
    """

    num_answers: int
    num_new_answers: int
    num_new_tokens: int
    num_skipped: int
    seconds: float


@dataclass(frozen=True)
class _Settings:
    """What must be equal for two runs to write one file."""

    model: str
    dtype: str
    max_tokens: int
    temperature: float
    top_p: float
    seed: int


def distill(
    model: str | Path,
    prompts: str | Path,
    output: str | Path,
    *,
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
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
        JSON Lines: ``id``, ``prompt_token_ids``, ``token_ids``, ``finish_reason``. Settings are
        kept beside it in ``<output>.settings.json``.
    max_tokens
        Longest answer.
    temperature, top_p, seed
        How answers are drawn; temperature 0 is greedy. The seed of prompt i is ``seed + i``.
    limit
        Only the first so many prompts.
    max_num_seqs
        Answers in flight.
    max_model_len
        Longest prompt and answer together; longer ones are left out. Default: 1024 tokens more
        than `max_tokens`, or what the model allows.
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
    _check(max_tokens=max_tokens, max_num_seqs=max_num_seqs)
    listed = read_prompts(Path(prompts))[:limit]
    checkpoint = load_checkpoint(model)
    settings = _Settings(fingerprint(checkpoint), dtype, max_tokens, temperature, top_p, seed)
    path = Path(output)
    with _answers_file(path, settings) as file:
        done = _keys_done(path, checkpoint.config["vocab_size"])
        todo = [(i, prompt) for i, prompt in enumerate(listed) if prompt.key not in done]
        length = max_model_len or max_tokens + 1024
        length = min(length, checkpoint.config["max_position_embeddings"])
        run = _Run(checkpoint, settings, length, max_num_seqs, num_threads or 0)
        with Meter("distill", len(listed), len(listed) - len(todo), shown=progress) as meter:
            return run.answer(todo, file, meter, len(done))


def _check(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise InvalidArgument(f"{name} must be positive, found {value}")


@contextmanager
def _answers_file(path: Path, settings: _Settings) -> Iterator[TextIO]:
    """Open `path` for this run; refuse a file begun with other settings."""
    beside = path.with_name(path.name + ".settings.json")
    wanted = asdict(settings)
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


class _Run:
    """One engine that works through a list of prompts."""

    def __init__(
        self, checkpoint: Checkpoint, settings: _Settings, length: int, width: int, threads: int
    ) -> None:
        self._tokenizer = checkpoint.tokenizer
        self._settings = settings
        self._length, self._width = length, width
        model = load_model(checkpoint, settings.dtype, threads)
        self._engine = _core.Engine(
            model, None, _core.Tree.root_only(), max_num_seqs=width, max_model_len=length
        )
        self._open: dict[int, Answer] = {}
        self._skipped = 0

    def answer(
        self, todo: list[tuple[int, Prompt]], file: TextIO, meter: Meter, earlier: int
    ) -> DistillReport:
        """Answer `todo`; every finished answer is written at once."""
        waiting = deque(todo)
        start = synced = time.monotonic()
        answers = tokens = 0
        first = meter.done
        while waiting or self._open:
            self._submit(waiting)
            for output in self._engine.step() if self._open else ():
                tokens += len(output.tokens)
                answers += self._take(output, file)
            seconds = time.monotonic() - start
            meter.update(
                first + answers + self._skipped, f"{tokens / max(seconds, 1e-9):.0f} tokens/s"
            )
            if time.monotonic() - synced > _SYNC_SECONDS:
                synced = time.monotonic()
                file.flush()
                os.fsync(file.fileno())
        return DistillReport(
            earlier + answers, answers, tokens, self._skipped, time.monotonic() - start
        )

    def _submit(self, waiting: deque[tuple[int, Prompt]]) -> None:
        """Keep every slot of the engine busy."""
        while waiting and len(self._open) < 2 * self._width:
            index, prompt = waiting.popleft()
            ids = self._tokenizer.apply_chat_template(prompt.messages)
            if len(ids) + self._settings.max_tokens > self._length:
                self._skipped += 1
                continue
            request = self._engine.submit(ids, self._sampling(index))
            self._open[request] = Answer(prompt.key, ids, [], "")

    def _sampling(self, index: int) -> _core.SamplingParams:
        s = self._settings
        return _core.SamplingParams(
            max_tokens=s.max_tokens,
            temperature=s.temperature,
            top_p=s.top_p,
            seed=(s.seed + index) % 2**64,
            stop_token_ids=list(self._tokenizer.eos_token_ids),
        )

    def _take(self, output: _core.StepOutput, file: TextIO) -> int:
        """Add a step's tokens to their answer; write it when it is complete."""
        answer = self._open[output.request_id]
        tokens = [*answer.token_ids, *output.tokens]
        answer = Answer(answer.key, answer.prompt_token_ids, tokens, output.finish_reason)
        self._open[output.request_id] = answer
        if output.finish_reason == "none":
            return 0
        file.write(answer.to_json() + "\n")
        del self._open[output.request_id]
        self._engine.forget(output.request_id)
        return 1
