"""What a file of Medusa heads is: facts for machines, tables for people."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.table import Table

from medusa_native.cli.terminal import console

if TYPE_CHECKING:
    from medusa_native.loading import HeadsCheckpoint, HostTensor

_LAYOUTS = {
    "medusa": "Medusa",
    "full model": "full model",
    "peft": "PEFT adapter",
    "vllm": "vLLM",
    "tensorrt-llm": "TensorRT-LLM",
    "modelopt": "ModelOpt",
}


def heads_facts(heads: HeadsCheckpoint) -> dict[str, Any]:
    """Return what the files of Medusa heads say, and what is odd about them."""
    parts = [_part(name, tensors) for name, tensors in _groups(heads).items() if tensors]
    tensors = [tensor for group in _groups(heads).values() for tensor in group]
    return {
        "path": str(heads.path),
        "layout": _LAYOUTS[heads.family],
        "version": heads.version,
        "num_heads": heads.num_heads,
        "num_layers": heads.num_layers,
        "grounded": heads.grounded,
        "hidden_size": heads.hidden_size,
        "vocab_size": heads.vocab_size,
        "draft_vocab_size": None if heads.token_map is None else len(heads.token_map),
        "weight_formats": dict(Counter(tensor.dtype for tensor in tensors)),
        "parameters": sum(part["parameters"] for part in parts),
        "stored_bytes": sum(part["bytes"] for part in parts),
        "parts": parts,
        "notes": list(heads.notes),
    }


def show_parts(facts: dict[str, Any]) -> None:
    """Print how large each part is, and the notes."""
    table = Table(title="parts of the heads", title_justify="left", box=None)
    for column, justify in (("part", "left"), ("tensors", "right"), ("shape", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for column in ("type", "parameters", "bytes", "share"):
        table.add_column(column, justify="right")
    for part in facts["parts"]:
        shapes = ", ".join(str(tuple(shape)) for shape in part["shapes"])
        share = f"{100 * part['bytes'] / max(facts['stored_bytes'], 1):.1f} %"
        table.add_row(
            part["part"],
            str(part["tensors"]),
            shapes,
            ", ".join(part["types"]),
            f"{part['parameters']:,}",
            f"{part['bytes']:,}",
            share,
        )
    console.print(table)
    for note in facts["notes"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def _groups(heads: HeadsCheckpoint) -> dict[str, list[HostTensor]]:
    layers = [layer for head in heads.residual for layer in head]
    shared = {id(matrix): matrix for matrix in heads.projection or []}
    return {
        "residual weights": [weight for weight, _ in layers],
        "residual biases": [bias for _, bias in layers if bias is not None],
        "projections": list(shared.values()),
    }


def _part(name: str, tensors: list[HostTensor]) -> dict[str, Any]:
    return {
        "part": name,
        "tensors": len(tensors),
        "shapes": [list(shape) for shape in dict.fromkeys(tensor.shape for tensor in tensors)],
        "types": sorted({tensor.dtype for tensor in tensors}),
        "parameters": sum(math.prod(tensor.shape) for tensor in tensors),
        "bytes": sum(tensor.data.nbytes for tensor in tensors),
    }
