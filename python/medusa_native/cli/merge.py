"""``medusa-native merge``."""

from __future__ import annotations

from typing import Annotated

import typer

from medusa_native.cli import options as opt
from medusa_native.cli.terminal import console, reports_errors, write_json


@reports_errors
def merge(
    model: opt.Model,
    adapter: Annotated[str, typer.Option(help="LoRA adapter in PEFT's format: folder or hub id.")],
    output: Annotated[str, typer.Option("--output", "-o", help="New folder, or new GGUF file.")],
    format: Annotated[  # noqa: A002
        str, typer.Option("--format", help='"hf": a Hugging Face folder; "gguf": one file.')
    ] = "hf",
    dtype: Annotated[
        str, typer.Option(help='"bfloat16", "float16", "float32"; "q8_0" in a GGUF file.')
    ] = "bfloat16",
    json: opt.Json = False,
) -> None:
    """Write a model with a LoRA adapter merged into its weights, for this and other programs.

    Example: medusa-native merge -m model/ --adapter adapter/ -o merged.gguf --format gguf
    """
    from medusa_native.heads import locate_adapter
    from medusa_native.loading import merge_adapter

    source, found = opt.resolve_model(model), locate_adapter(adapter)
    path = merge_adapter(source, found, output, format=format, dtype=dtype)
    files = [path] if path.is_file() else sorted(path.iterdir())
    size = sum(file.stat().st_size for file in files)
    if json:
        write_json({"path": str(path), "format": format, "dtype": dtype, "bytes": size})
    else:
        console.print(f"{path}: {format}, {dtype}, {size:,} bytes", soft_wrap=True)
