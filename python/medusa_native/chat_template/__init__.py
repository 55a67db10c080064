"""Chat templates, rendered as Transformers renders them, in a sandbox with a budget."""

from medusa_native.chat_template.template import ChatTemplate

__all__ = ["ChatTemplate"]
