"""A conversation that a model is led through: user turns as given, answers its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from medusa_native.errors import InvalidArgument
from medusa_native.training.records import Answer, Key, Prompt

if TYPE_CHECKING:
    from medusa_native.tokenizer import Tokenizer

_ROLES = ("system", "user", "assistant")


@dataclass
class Talk:
    """What was said so far, as tokens and as messages.

    Attributes
    ----------
    key, index
        Of the prompt.
    prompt_token_ids
        Everything before the first answer.
    messages
        As the template renders them now.
    waiting
        User turns that are still to come.
    token_ids, responses
        As of `Answer`.
    """

    key: Key
    index: int
    prompt_token_ids: list[int]
    messages: list[Mapping[str, Any]]
    waiting: list[Mapping[str, Any]]
    text: str
    token_ids: list[int] = field(default_factory=list)
    responses: list[tuple[int, int]] = field(default_factory=list)
    num_turns: int = 0

    @property
    def context(self) -> list[int]:
        """Tokens that the next answer follows."""
        return self.prompt_token_ids + self.token_ids

    def take(self, tokens: Sequence[int]) -> None:
        """Add an answer, its end token included."""
        begin = len(self.token_ids)
        self.token_ids += tokens
        if tokens:
            self.responses.append((begin, len(self.token_ids)))

    def finish(self, reason: str, *, replay: bool) -> Answer:
        """Return the record."""
        spans = self.responses if replay else None
        return Answer(self.key, self.prompt_token_ids, self._said(replay), reason, spans)

    def _said(self, replay: bool) -> list[int]:
        """Nothing follows the last answer, whatever was prepared to."""
        return self.token_ids[: self.responses[-1][1]] if replay else self.token_ids


def start(
    tokenizer: Tokenizer, index: int, prompt: Prompt, *, replay: bool, max_turns: int | None
) -> Talk:
    """Render a conversation up to where the model speaks first."""
    messages: list[Mapping[str, Any]] = list(prompt.messages)
    waiting: list[Mapping[str, Any]] = []
    if replay:
        messages, waiting = _user_turns(prompt, max_turns)
    text = tokenizer.render_chat(messages)
    ids = tokenizer.encode(text, add_special_tokens=False)
    return Talk(prompt.key, index, ids, messages, waiting, text)


def _user_turns(
    prompt: Prompt, max_turns: int | None
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Return what comes before the first answer, and the user turns after it."""
    for message in cast("Sequence[Any]", prompt.messages):
        if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
            raise InvalidArgument(
                f"prompt {prompt.key!r}: messages to replay must have the role "
                f"{', '.join(_ROLES[:2])} or {_ROLES[2]}, found {str(message)[:80]}"
            )
    users = [message for message in prompt.messages if message["role"] == "user"][:max_turns]
    if not users:
        raise InvalidArgument(f"prompt {prompt.key!r}: a user's message to replay expected")
    system = [message for message in prompt.messages if message["role"] == "system"][:1]
    return [*system, users[0]], users[1:]


def go_on(tokenizer: Tokenizer, talk: Talk) -> bool:
    """Append the next user turn; False where the template does not continue what was said.

    The answer's own tokens stay. What the template puts between it and the next answer is found
    by rendering the conversation with the answer's text in it.
    """
    begin, end = talk.responses[-1]
    answer = talk.token_ids[begin:end]
    content = tokenizer.decode(answer).strip()
    messages = [*talk.messages, {"role": "assistant", "content": content}, talk.waiting[0]]
    text = tokenizer.render_chat(messages)
    at = text.find(content, len(talk.text.rstrip()))
    if not content or at < 0 or text[:at].rstrip() != talk.text.rstrip():
        return False
    between = text[at + len(content) :]
    last = tokenizer.decode(answer[-1:], skip_special_tokens=False)
    if between.lstrip(" ").startswith(last):  # the answer brought its end token
        between = between.lstrip(" ").removeprefix(last)
    talk.token_ids += tokenizer.encode(between, add_special_tokens=False)
    talk.messages, talk.waiting, talk.text = messages, talk.waiting[1:], text
    talk.num_turns += 1
    return True
