"""Chat templates: from a conversation to the text a model was trained on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import jinja2

from medusa_native.chat_template.budget import Budget
from medusa_native.chat_template.sandbox import SandboxedEnvironment
from medusa_native.errors import InvalidArgument, ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MAX_CHARS = 1024 * 1024
_COMPILE_ERRORS = (jinja2.TemplateError, RecursionError, SyntaxError, MemoryError, ValueError)


class ChatTemplate:
    """A compiled chat template, rendered as Transformers renders it. Safe to share by threads.

    Parameters
    ----------
    source
        The template's text.
    variables
        Names every rendering sees, such as `bos_token`.

    Raises
    ------
    ModelFormatError
        The text is not a template, or asks for what the sandbox does not offer.
    """

    def __init__(self, source: str, variables: Mapping[str, Any]) -> None:
        self.source = source
        self._variables = dict(variables)
        self._environment = SandboxedEnvironment()
        self._lock = threading.Lock()
        self._template = self._compile()

    def _compile(self) -> jinja2.Template:
        if len(self.source) > _MAX_CHARS:
            raise ModelFormatError(
                f"chat template: at most {_MAX_CHARS} characters expected, found {len(self.source)}"
            )
        try:
            return self._environment.guarded_template(self.source)
        except _COMPILE_ERRORS as error:
            raise ModelFormatError(f"chat template: {_describe(error)}") from error

    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> str:
        """Return the prompt text of a conversation.

        Raises
        ------
        InvalidArgument
            The template refuses the conversation, or spends more than its budget.
        """
        values = self._variables | {
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": add_generation_prompt,
            "tools": None,
            "documents": None,
        }
        with self._lock:
            self._environment.budget = Budget()
            try:
                return self._template.render(values)
            except Exception as error:  # whatever a stranger's code may raise
                raise InvalidArgument(f"chat template: {_describe(error)}") from error


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
