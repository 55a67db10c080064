"""``medusa-native convert``."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medusa_native.cli import options as opt
from medusa_native.cli.heads_report import heads_facts
from medusa_native.cli.terminal import console, reports_errors, write_json
from medusa_native.errors import InvalidArgument
from medusa_native.loading import (
    HeadsCheckpoint,
    convert_heads,
    load_checkpoint,
    load_heads,
    write_heads,
)
from medusa_native.loading.heads_folder import require_replaceable

if TYPE_CHECKING:
    from medusa_native.loading import Checkpoint


@reports_errors
def convert(
    heads: Annotated[str, typer.Option(help="What to convert: folder, file or hub id.")],
    output: Annotated[str, typer.Option("--output", "-o", help="New folder for the result.")],
    layout: Annotated[
        str, typer.Option(help='"medusa": for this and most other programs; "vllm".')
    ] = "medusa",
    version: Annotated[
        int | None,
        typer.Option(help="1: a projection for each head; 2: the model's lm_head for all."),
    ] = None,
    model: opt.OptionalModel = None,
    draft_vocab: Annotated[
        int | None, typer.Option(help="Guess only the most frequent tokens of --data.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Answers, as `distill` writes them.")
    ] = None,
    token_list: Annotated[
        str | None, typer.Option(help="Guess only these: a JSON file, a list of ids.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help='"float32", "float16" or "bfloat16"; default: as stored.')
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a folder of heads.")] = False,
    json: opt.Json = False,
) -> None:
    """Write Medusa heads in another layout, version, vocabulary or type.

    Example: medusa-native convert --heads vllm-heads -o heads --dtype bfloat16
    """
    require_replaceable(Path(output), force=force)
    backbone = None if model is None else load_checkpoint(opt.resolve_model(model))
    source = _load(heads, backbone)
    if layout == "vllm" and source.version == 2 and version is None and backbone is not None:
        version = 1  # as one lm_head for all heads
    converted = convert_heads(
        source,
        version=version,
        token_ids=_token_ids(source, draft_vocab, data, token_list),
        dtype=dtype,
        backbone=backbone,
    )
    folder = write_heads(output, converted, layout=layout, force=force)
    _report(folder, json)


def _load(heads: str, backbone: Checkpoint | None) -> HeadsCheckpoint:
    if backbone is None:
        return load_heads(heads)
    return load_heads(heads, backbone.config["hidden_size"], backbone.config["vocab_size"])


def _token_ids(
    heads: HeadsCheckpoint, draft_vocab: int | None, data: str | None, token_list: str | None
) -> Any:
    """Return the tokens to keep, or None for all."""
    if (draft_vocab is None) != (data is None) or (data is not None and token_list is not None):
        raise typer.BadParameter("give --draft-vocab with --data, or --token-list alone")
    if token_list is not None:
        return _read_list(Path(token_list))
    if draft_vocab is None or data is None:
        return None
    from medusa_native.training.vocabulary import most_frequent_in

    return most_frequent_in(Path(data), draft_vocab, heads.vocab_size, heads.token_map)


def _read_list(path: Path) -> list[int]:
    try:
        ids = json_format.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        raise InvalidArgument(f"{path}: a list of token ids expected, found {ids!r:.60}")
    return ids


def _report(folder: Path, json: bool) -> None:
    facts = heads_facts(load_heads(folder))
    if json:
        write_json(facts)
    else:
        console.print(
            f"{folder}: {facts['num_heads']} V{facts['version']} heads, {facts['layout']} layout, "
            f"{facts['stored_bytes']:,} bytes",
            soft_wrap=True,
        )
