"""JSON Lines in and out: prompts to answer, and answers to learn from.

A prompt is an object with ``prompt`` (text) or ``messages`` (a conversation), and perhaps ``id``.
An answer is an object with ``id``, ``prompt_token_ids``, ``token_ids`` and ``finish_reason``, and, of
several turns, ``responses``: where in ``token_ids`` the model speaks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from medusa_native.errors import InvalidArgument
from medusa_native.json_text import parse_json

if TYPE_CHECKING:
    import numpy.typing as npt

Key = int | str


@dataclass(frozen=True)
class Prompt:
    """What a model is asked.

    Attributes
    ----------
    key
        The line's ``id``, or its number counted from 0.
    messages
        The conversation so far; the model answers next.
    """

    key: Key
    messages: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Answer:
    """A prompt with chat template, and the model's answer up to and including its end token.

    Attributes
    ----------
    token_ids
        What follows the prompt. Of a conversation of several turns: answers, and between them what
        the template and the user say.
    finish_reason
        Of the last answer.
    responses
        First token and the one after the last of each answer, into `token_ids`; None: all of it.
    """

    key: Key
    prompt_token_ids: Sequence[int]
    token_ids: Sequence[int]
    finish_reason: str
    responses: Sequence[tuple[int, int]] | None = None

    @property
    def spans(self) -> Sequence[tuple[int, int]]:
        """First token and the one after the last of each answer."""
        return [(0, len(self.token_ids))] if self.responses is None else self.responses

    def turns(self) -> list[Answer]:
        """Return each turn as an answer of its own, everything before it as its prompt."""
        if self.responses is None:
            return [self]
        prompt, tokens = list(self.prompt_token_ids), list(self.token_ids)
        reasons = ["stop"] * (len(self.responses) - 1) + [self.finish_reason]
        return [
            Answer(self.key, prompt + tokens[:begin], tokens[begin:end], reason)
            for (begin, end), reason in zip(self.responses, reasons, strict=True)
        ]

    def sequence(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Return prompt and answers as one sequence, and which of its tokens the model said.

        Returns
        -------
        tokens, said
            int32 and bool, (tokens,). A token that was said is what the state before it should
            predict; the others are context.
        """
        tokens = np.array([*self.prompt_token_ids, *self.token_ids], dtype=np.int32)
        said = np.zeros(len(tokens), dtype=np.bool_)
        for begin, end in self.spans:
            said[len(self.prompt_token_ids) :][begin:end] = True
        return tokens, said

    def to_json(self) -> str:
        """Return the answer's line, without a line break."""
        fields: dict[str, Any] = {
            "id": self.key,
            "prompt_token_ids": list(self.prompt_token_ids),
            "token_ids": list(self.token_ids),
            "finish_reason": self.finish_reason,
        }
        if self.responses is not None:
            fields["responses"] = [list(span) for span in self.responses]
        return json.dumps(fields, separators=(",", ":"))


def read_prompts(path: Path) -> list[Prompt]:
    """Read prompts.

    Raises
    ------
    InvalidArgument
        The file cannot be read, is empty, a line is malformed, or an id occurs twice. The message
        names file and line.
    """
    prompts = [_prompt(where, index, record) for index, (where, record) in enumerate(_lines(path))]
    if not prompts:
        raise InvalidArgument(f"{path}: holds no prompts")
    _require_distinct(path, [prompt.key for prompt in prompts])
    return prompts


def read_answers(path: Path, vocab_size: int) -> list[Answer]:
    """Read answers; a torn last line, as a kill leaves it, is dropped.

    Raises
    ------
    InvalidArgument
        The file cannot be read, is empty, a line is malformed, a token id is out of range, or an
        id occurs twice. The message names file and line.
    """
    answers = [_answer(where, record, vocab_size) for where, record in _lines(path, torn=True)]
    if not answers:
        raise InvalidArgument(f"{path}: holds no answers")
    _require_distinct(path, [answer.key for answer in answers])
    return answers


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a file system refuses, a full disk for one, into an InvalidArgument."""
    try:
        yield
    except OSError as error:
        raise InvalidArgument(f"{path}: cannot be written: {error}") from error


def open_for_append(path: Path) -> TextIO:
    """Open an answers file at the end of its last whole line, cutting off a torn one.

    Raises
    ------
    InvalidArgument
        The file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        file = os.fdopen(descriptor, "r+", encoding="utf-8")
        os.ftruncate(descriptor, _end_of_last_line(path))
        file.seek(0, os.SEEK_END)
    return file


def _end_of_last_line(path: Path) -> int:
    """Bytes up to and including the last line break."""
    block = 1 << 16
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - block)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


def _lines(path: Path, torn: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield each line's place and content; `torn` allows a last line without its line break."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if torn and not line.endswith("\n"):
                    return
                if line.strip():
                    yield f"{path}, line {number}", parse_json(line)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path}: cannot be read: {error}") from error
    except ValueError as error:
        raise InvalidArgument(f"{path}, line {number}: not valid JSON: {error}") from error


def _prompt(where: str, index: int, record: Any) -> Prompt:
    if not isinstance(record, dict):
        raise InvalidArgument(f"{where}: must be an object, found {record!r:.60}")
    text, messages = record.get("prompt"), record.get("messages")
    if messages is None and isinstance(text, str) and text:
        messages = [{"role": "user", "content": text}]
    if not isinstance(messages, list) or not messages:
        raise InvalidArgument(f"{where}: must have a 'prompt' (text) or 'messages' (a list)")
    return Prompt(_key(where, record.get("id", index)), messages)


def _answer(where: str, record: Any, vocab_size: int) -> Answer:
    if not isinstance(record, dict):
        raise InvalidArgument(f"{where}: must be an object, found {record!r:.60}")
    prompt = _tokens(where, record, "prompt_token_ids", vocab_size)
    tokens = _tokens(where, record, "token_ids", vocab_size)
    if not prompt:
        raise InvalidArgument(f"{where}: 'prompt_token_ids' is empty")
    reason, spans = str(record.get("finish_reason")), _responses(where, record, len(tokens))
    return Answer(_key(where, record.get("id")), prompt, tokens, reason, spans)


def _responses(where: str, record: dict[str, Any], length: int) -> list[tuple[int, int]] | None:
    """Return ranges in order, none of which is empty or overlaps another."""
    spans = record.get("responses")
    if spans is None:
        return None
    if not isinstance(spans, list) or not spans or not _ascending(spans, length):
        raise InvalidArgument(
            f"{where}: 'responses' must be ascending pairs [begin, end) within the {length} "
            f"tokens of 'token_ids', found {str(spans)[:80]}"
        )
    return [(begin, end) for begin, end in spans]


def _ascending(spans: list[Any], length: int) -> bool:
    last = 0
    for span in spans:
        pair = isinstance(span, list) and len(span) == 2 and all(type(i) is int for i in span)
        if not pair or not last <= span[0] < span[1] <= length:
            return False
        last = span[1]
    return True


def _tokens(where: str, record: dict[str, Any], name: str, vocab_size: int) -> list[int]:
    tokens = record.get(name)
    if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
        raise InvalidArgument(f"{where}: {name!r} must be a list of token ids")
    wrong = [token for token in tokens if not 0 <= token < vocab_size]
    if wrong:
        raise InvalidArgument(
            f"{where}: {name!r} holds token {wrong[0]}; the model has ids 0 to {vocab_size - 1}"
        )
    return tokens


def _key(where: str, key: Any) -> Key:
    if isinstance(key, bool) or not isinstance(key, (int, str)):
        raise InvalidArgument(f"{where}: 'id' must be a number or a text, found {key!r:.60}")
    return key


def _require_distinct(path: Path, keys: Sequence[Key]) -> None:
    seen: set[Key] = set()
    for key in keys:
        if key in seen:
            raise InvalidArgument(f"{path}: id {key!r} occurs twice")
        seen.add(key)
