"""Text to token ids and back, and conversations to prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medusa_native.chat_template import ChatTemplate
from medusa_native.errors import InvalidArgument

if TYPE_CHECKING:
    import tokenizers

__all__ = ["DetokenizeStream", "Tokenizer"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_MAX_HELD = 8  # a character spans at most 4 byte tokens; a longer wait means broken bytes


class Tokenizer:
    """A model's tokenizer, built on the `tokenizers` library.

    Parameters
    ----------
    backend
        The pipeline, with its special tokens registered and its post-processor set.
    special_tokens
        Role (`bos_token`, `eos_token`, `unk_token`, `pad_token`) to text; templates see them.
    eos_token_ids
        Ids that end an answer.
    chat_template
        Jinja text, or None.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special_tokens: Mapping[str, str],
        eos_token_ids: Iterable[int] = (),
        chat_template: str | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.special_tokens = dict(special_tokens)
        self.eos_token_ids = tuple(sorted(set(eos_token_ids)))
        self._template = (
            None if chat_template is None else ChatTemplate(chat_template, special_tokens)
        )
        added = backend.get_added_tokens_decoder()
        self._special_ids = frozenset(i for i, token in added.items() if token.special)
        self._vocab_size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def vocab_size(self) -> int:
        """One more than the largest id this tokenizer makes."""
        return self._vocab_size

    @property
    def bos_token_id(self) -> int | None:
        """Id of the token that begins a text, or None."""
        return self._role_id("bos_token")

    @property
    def chat_template(self) -> str | None:
        """Source of the chat template, or None."""
        return None if self._template is None else self._template.source

    @property
    def special_token_ids(self) -> frozenset[int]:
        """Ids that `decode` leaves out by default."""
        return self._special_ids

    def _role_id(self, role: str) -> int | None:
        text = self.special_tokens.get(role)
        return None if text is None else self.backend.token_to_id(text)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text.

        Parameters
        ----------
        text
            Special tokens spelled out in it are recognised.
        add_special_tokens
            Whether to add what the model expects around a text, such as BOS.

        Raises
        ------
        InvalidArgument
            The text is not a valid Unicode string.
        """
        try:
            encoding = self.backend.encode(text, add_special_tokens=add_special_tokens)
        except (TypeError, UnicodeEncodeError) as error:
            raise InvalidArgument(f"text must be a str of valid Unicode: {error}") from error
        return list(encoding.ids)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids; ids without a token, such as padding rows, give nothing.

        Raises
        ------
        InvalidArgument
            An id is negative or beyond 32 bits.
        """
        try:
            return str(self.backend.decode(ids, skip_special_tokens=skip_special_tokens))
        except (OverflowError, TypeError) as error:
            raise InvalidArgument(
                f"token ids must be whole numbers in [0, 2**32): {error}"
            ) from error

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> list[int]:
        """Token ids of a conversation in the model's own format.

        Parameters
        ----------
        messages
            Mappings with `role` and `content`.
        add_generation_prompt
            Whether to end where the model's answer begins.

        Raises
        ------
        InvalidArgument
            There is no template, a message is malformed, or the template refuses.
        """
        text = self.render_chat(messages, add_generation_prompt)
        return self.encode(text, add_special_tokens=False)

    def render_chat(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> str:
        """Return the prompt text that `apply_chat_template` encodes."""
        if self._template is None:
            raise InvalidArgument("this model has no chat template: use generate() with a prompt")
        for index, message in enumerate(messages):
            _require_message(index, message)
        return self._template.render(messages, add_generation_prompt)


def _require_message(index: int, message: object) -> None:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InvalidArgument(
            f"messages[{index}] must be a mapping with 'role' and 'content', "
            f"found {repr(message)[:80]}"
        )


class DetokenizeStream:
    """Text of a growing sequence of ids, in pieces that never hold half a character.

    Each push decodes a short window: the piece emitted last, which fixes how the next one joins,
    and the ids since. The pieces joined are `Tokenizer.decode` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._window: list[int] = []
        self._num_emitted = 0  # leading ids of the window whose text is out already

    def push(self, ids: Sequence[int]) -> str:
        """Take more ids; return the text that is certain now, perhaps empty."""
        return "".join(self._push_one(i) for i in ids)

    def _push_one(self, token_id: int) -> str:
        if self._skip and token_id in self._tokenizer.special_token_ids:
            return ""
        self._window.append(token_id)
        return self._emit(final=False)

    def finish(self) -> str:
        """Return what was held back. The stream can go on afterwards."""
        return self._emit(final=True)

    def _emit(self, final: bool) -> str:
        held = len(self._window) - self._num_emitted
        if held == 0:
            return ""
        text = self._tokenizer.decode(self._window, self._skip)
        if text.endswith(_REPLACEMENT) and not final and held < _MAX_HELD:
            return ""
        old = self._tokenizer.decode(self._window[: self._num_emitted], self._skip)
        if len(text) <= len(old) and not final and held < _MAX_HELD:
            return ""
        self._window = self._window[self._num_emitted :]
        self._num_emitted = len(self._window)
        return text[len(old) :]
