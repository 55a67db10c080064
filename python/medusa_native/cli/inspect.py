"""``medusa-native inspect``."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.tree import Tree as Drawing

from medusa_native import _core
from medusa_native.cli import options as opt
from medusa_native.cli.heads_report import heads_facts, show_parts
from medusa_native.cli.terminal import console, reports_errors, write_json
from medusa_native.devices import cuda_devices
from medusa_native.errors import DeviceError
from medusa_native.heads import fingerprint, open_heads
from medusa_native.loading import Checkpoint, HeadsCheckpoint, load_checkpoint, load_heads
from medusa_native.trees import choose_tree, usual_nodes
from medusa_native.tuning.record import Tuning
from medusa_native.tuning.store import find_tuning

_SHOWN_APART = ("paths", "parts", "notes")


@reports_errors
def inspect(
    model: opt.OptionalModel = None,
    heads: opt.Heads = None,
    medusa_choices: opt.Choices = "auto",
    max_total_draft_tokens: opt.DraftTokens = None,
    json: opt.Json = False,
) -> None:
    """Show what a model, its heads and their tree are, without loading the weights.

    Heads may come without a model, in any layout; what is odd about their files is said.

    Example: medusa-native inspect -m demo --heads auto
    """
    config = opt.speculative_config(heads, medusa_choices, max_total_draft_tokens, "exact")
    checkpoint = None if model is None else load_checkpoint(opt.resolve_model(model))
    if checkpoint is None and (heads is None or heads == "auto"):
        raise typer.BadParameter("give --model, --heads with a path or hub id, or both")
    facts: dict[str, Any] = {} if checkpoint is None else {"model": model_facts(checkpoint)}
    tree, isas = None, _core.cpu_isas()
    if config is not None and config.model is not None:
        opened = _open(config.model, checkpoint)
        facts["heads"] = heads_facts(opened)
        tuning, stored = find_tuning(opened), opened.config.get("medusa_choices")
        if tuning is not None:
            facts["tuning"], stored = tuning_facts(tuning), tuning.table.paths
        usual = usual_nodes(isas[0], _matrix_formats(checkpoint))
        tree = choose_tree(config, opened.num_heads, stored, usual)
        facts["tree"] = {"nodes": tree.size, "depth": tree.depth, "paths": tree.paths}
    facts["cpu"] = {"instruction_sets": isas}
    facts["gpu"] = gpu_facts()
    if json:
        write_json(facts)
    else:
        _show(facts, tree)


def gpu_facts() -> dict[str, Any]:
    """Return whether a GPU can be used, and what cuda-python says of those there are."""
    facts: dict[str, Any] = {"usable": _core.why_no_cuda() or "yes"}
    try:
        found = cuda_devices()
    except DeviceError as error:
        return facts | {"devices": str(error)}
    return facts | {
        gpu.device: f"{gpu.name}, compute capability {gpu.compute_capability[0]}."
        f"{gpu.compute_capability[1]}, {gpu.memory / 2**30:.0f} GiB, "
        f"{gpu.multiprocessors} multiprocessors"
        for gpu in found
    }


def _matrix_formats(checkpoint: Checkpoint | None) -> Counter[str]:
    """Return how many weights are stored in each type; a model that is not given has BF16."""
    if checkpoint is None:
        return Counter({"BF16": 1})
    formats: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        formats[tensor.dtype] += math.prod(tensor.shape)
    return formats


def _open(heads: str | Path, checkpoint: Checkpoint | None) -> HeadsCheckpoint:
    """Map heads; what would be a warning elsewhere is a note here."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened = load_heads(heads) if checkpoint is None else open_heads(heads, checkpoint)
    said = [str(warning.message) for warning in caught]
    further = [text for text in said if not any(note in text for note in opened.notes)]
    return replace(opened, notes=(*opened.notes, *further))


def tuning_facts(tuning: Tuning) -> dict[str, Any]:
    """Return what these heads were tuned on."""
    return {
        "rows": tuning.table.num_rows,
        "devices": [
            f"{d.key.device} on {d.key.processor}, {d.key.dtype}, {d.key.weight_format}: "
            f"{d.nodes} nodes"
            for d in tuning.devices
        ],
    }


def model_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what the files of a backbone say."""
    tensors = checkpoint.tensors.values()
    settings = {key: value for key, value in checkpoint.config.items() if value not in (None, [])}
    return {
        "path": str(checkpoint.path),
        **settings,
        "parameters": sum(math.prod(tensor.shape) for tensor in tensors),
        "stored_bytes": sum(tensor.data.nbytes for tensor in tensors),
        "weight_formats": dict(Counter(tensor.dtype for tensor in tensors)),
        "tokenizer_size": checkpoint.tokenizer.vocab_size,
        "end_tokens": list(checkpoint.tokenizer.eos_token_ids),
        "chat_template": checkpoint.tokenizer.chat_template is not None,
        "fingerprint": fingerprint(checkpoint),
    }


def _show(facts: dict[str, Any], tree: _core.Tree | None) -> None:
    for title, group in facts.items():
        table = Table(title=title, title_justify="left", show_header=False, box=None)
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for key, value in group.items():
            if key not in _SHOWN_APART:
                table.add_row(key, _readable(value))
        console.print(table)
        if title == "heads":
            show_parts(group)
        if title == "tree" and tree is not None:
            console.print(draw(tree))


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} x {name}" for name, count in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int) and not isinstance(value, bool) and value >= 100_000:
        return f"{value:,}"
    return str(value)


def draw(tree: _core.Tree) -> Drawing:
    """Draw a tree: each node is the rank of its guess, one level a head."""
    drawing = Drawing("root")
    branches: dict[tuple[int, ...], Drawing] = {(): drawing}
    for path in tree.paths:
        branches[tuple(path)] = branches[tuple(path[:-1])].add(str(path[-1]))
    return drawing
