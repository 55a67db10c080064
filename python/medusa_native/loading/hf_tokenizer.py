"""Tokenizers of Hugging Face folders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from medusa_native.errors import ModelFormatError
from medusa_native.loading.fields import Fields, read_json, reading
from medusa_native.loading.gguf_tokenizer import set_post_processor
from medusa_native.loading.sentencepiece import Piece, add_special_pieces, sentencepiece_backend
from medusa_native.loading.sentencepiece_model import read_sentencepiece
from medusa_native.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path

_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


def hf_tokenizer(folder: Path) -> Tokenizer:
    """Build the tokenizer of a folder from tokenizer.json and what stands beside it.

    Raises
    ------
    ModelFormatError
        A file is missing or damaged.
    """
    settings = _optional(folder / "tokenizer_config.json")
    path = folder / "tokenizer.json"
    with reading(path, "a tokenizer"):
        backend = _from_json(path) if path.is_file() else _from_sentencepiece(folder, settings)
        roles = _roles(settings, backend)
        _post_process(settings, backend, roles)
    ends = _end_ids(folder, backend, roles)
    try:
        return Tokenizer(backend, roles, ends, _chat_template(folder, settings))
    except ModelFormatError as error:
        raise ModelFormatError(f"{folder}: {error}") from error


def _from_json(path: Path) -> Backend:
    return Backend.from_file(str(path))


def _from_sentencepiece(folder: Path, settings: Fields) -> Backend:
    """Build the pipeline of a tokenizer.model; such models expect BOS unless told otherwise."""
    path = folder / "tokenizer.model"
    if not path.is_file():
        raise ModelFormatError(f"{folder}: tokenizer.json or tokenizer.model expected, found none")
    model = read_sentencepiece(path)
    backend = sentencepiece_backend(model.pieces, model.add_dummy_prefix)
    add_special_pieces(backend, model.pieces)
    settings.values = {"add_bos_token": True} | _usual_roles(model.pieces) | dict(settings.values)
    return backend


def _usual_roles(pieces: list[Piece]) -> dict[str, str]:
    usual = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    texts = {piece.text for piece in pieces}
    return {role: text for role, text in usual.items() if text in texts}


def _optional(path: Path) -> Fields:
    return read_json(path) if path.is_file() else Fields(path, {})


def _roles(settings: Fields, backend: Backend) -> dict[str, str]:
    roles = {}
    for role in _ROLES:
        value = settings.values.get(role)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str) and backend.token_to_id(text) is not None:
            roles[role] = text
    backend.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in roles.values()]
    )
    return roles


def _post_process(settings: Fields, backend: Backend, roles: dict[str, str]) -> None:
    """Follow an explicit add_bos_token or add_eos_token; else tokenizer.json decides."""
    if "add_bos_token" in settings or "add_eos_token" in settings:
        bos = roles.get("bos_token") if settings.get_bool("add_bos_token", False) else None
        eos = roles.get("eos_token") if settings.get_bool("add_eos_token", False) else None
        set_post_processor(backend, bos, eos)


def _end_ids(folder: Path, backend: Backend, roles: dict[str, str]) -> list[int]:
    for name in ("generation_config.json", "config.json"):
        fields = _optional(folder / name)
        if "eos_token_id" in fields:
            value = fields.values["eos_token_id"]
            ids = value if isinstance(value, list) else [value]
            if not all(isinstance(i, int) and 0 <= i < 2**31 for i in ids):
                raise fields.fail("eos_token_id", "a token id or a list of them")
            return ids
    eos = backend.token_to_id(roles["eos_token"]) if "eos_token" in roles else None
    return [] if eos is None else [eos]


def _chat_template(folder: Path, settings: Fields) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        with reading(path, "a chat template"):
            return path.read_text(encoding="utf-8")
    value: Any = settings.values.get("chat_template")
    if isinstance(value, list):
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default")
    if value is not None and not isinstance(value, str):
        raise settings.fail("chat_template", "a text")
    return value
