"""``medusa-native inspect``."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from rich.table import Table
from rich.tree import Tree as Drawing

from medusa_native import _core
from medusa_native.cli import options as opt
from medusa_native.cli.terminal import console, reports_errors, write_json
from medusa_native.heads import fingerprint, open_heads
from medusa_native.loading import Checkpoint, HeadsCheckpoint, load_checkpoint
from medusa_native.trees import choose_tree


@reports_errors
def inspect(
    model: opt.Model,
    heads: opt.Heads = None,
    medusa_choices: opt.Choices = "auto",
    max_total_draft_tokens: opt.DraftTokens = None,
    json: opt.Json = False,
) -> None:
    """Show what a model, its heads and their tree are, without loading the weights.

    Example: medusa-native inspect -m demo --heads auto
    """
    config = opt.speculative_config(heads, medusa_choices, max_total_draft_tokens, "exact")
    checkpoint = load_checkpoint(opt.resolve_model(model))
    facts: dict[str, Any] = {"model": model_facts(checkpoint)}
    tree, isas = None, _core.cpu_isas()
    if config is not None and config.model is not None:
        opened = open_heads(config.model, checkpoint)
        facts["heads"] = heads_facts(opened)
        tree = choose_tree(config, opened.num_heads, opened.config.get("medusa_choices"), isas[0])
        facts["tree"] = {"nodes": tree.size, "depth": tree.depth, "paths": tree.paths}
    facts["cpu"] = {"instruction_sets": isas}
    if json:
        write_json(facts)
    else:
        _show(facts, tree)


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


def heads_facts(heads: HeadsCheckpoint) -> dict[str, Any]:
    """Return what the files of Medusa heads say."""
    tensors = [t for head in heads.residual for layer in head for t in layer if t is not None]
    tensors += heads.projection or []
    return {
        "path": str(heads.path),
        "version": heads.version,
        "num_heads": heads.num_heads,
        "num_layers": heads.num_layers,
        "draft_vocab_size": None if heads.token_map is None else len(heads.token_map),
        "parameters": sum(math.prod(tensor.shape) for tensor in tensors),
        "stored_bytes": sum(tensor.data.nbytes for tensor in tensors),
        "weight_formats": dict(Counter(tensor.dtype for tensor in tensors)),
    }


def _show(facts: dict[str, Any], tree: _core.Tree | None) -> None:
    for title, group in facts.items():
        table = Table(title=title, title_justify="left", show_header=False, box=None)
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for key, value in group.items():
            if key != "paths":
                table.add_row(key, _readable(value))
        console.print(table)
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
