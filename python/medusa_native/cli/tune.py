"""``medusa-native tune``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from medusa_native.cli import options as opt
from medusa_native.cli.terminal import console, messages, reports_errors, write_json

if TYPE_CHECKING:
    from medusa_native.tuning.run import TuneReport


@reports_errors
def tune(
    model: opt.Model,
    heads: Annotated[str, typer.Option(help='Medusa heads; "auto": those that ship.')],
    prompts: Annotated[
        str | None, typer.Option(help="JSON Lines with `prompt` or `messages`, to be answered.")
    ] = None,
    answers: Annotated[
        str | None, typer.Option(help="Instead: answers, as `distill` writes them.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Answers to look at.")] = 200,
    max_tokens: opt.MaxTokens = 128,
    temperature: opt.Temperature = 0.0,
    seed: opt.Seed = None,
    max_nodes: Annotated[int, typer.Option(help="Of the largest tree, root included.")] = 64,
    context: Annotated[
        list[int] | None, typer.Option(help="Time steps at this length; repeat for several.")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Sequences in a step; repeat for several.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Rounds of timing.")] = 3,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for drawings of what was found.")
    ] = None,
    dtype: opt.DType = "auto",
    threads: opt.Threads = None,
    json: opt.Json = False,
) -> None:
    """Find the tree of guesses that is fastest on this device.

    What is found is stored with the heads, and used from then on wherever the tree is "auto".

    Example: medusa-native tune -m demo --heads auto --prompts prompts.jsonl -o drawings
    """
    from medusa_native.tuning import run
    from medusa_native.tuning.drawing import write_drawings

    report = run.tune(
        opt.resolve_model(model),
        heads,
        prompts,
        answers=answers,
        limit=limit,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed or 0,
        max_nodes=max_nodes,
        contexts=context or run.CONTEXTS,
        batches=batch or run.BATCHES,
        repeats=repeats,
        dtype=dtype,
        num_threads=threads,
    )
    drawings = [] if output is None else write_drawings(report, output)
    if json:
        write_json(facts(report) | {"drawings": [str(path) for path in drawings]})
        return
    show(report)
    for path in [report.path, *drawings]:
        messages.print(f"written: {path}", style="dim", soft_wrap=True)


def facts(report: TuneReport) -> dict[str, Any]:
    """Return what was found, as plain types."""
    return {
        "path": str(report.path),
        "nodes": report.device.nodes,
        "tokens_per_step": report.tokens_per_step,
        "medusa_choices": [list(path) for path in report.tree_paths],
        "speeds": [asdict(speed) for speed in report.speeds],
        "tuning": report.tuning.to_dict(),
    }


def show(report: TuneReport) -> None:
    """Print the tree, what pays where, and how well that was foreseen."""
    from medusa_native.tuning.drawing import draw_tree

    table, device = report.tuning.table, report.device
    console.print(draw_tree(report.tree_paths, table.probabilities))
    console.print(f"{device.nodes} nodes, {report.tokens_per_step:.2f} tokens a step\n")
    sizes = _table("What pays", "context", "sequences", "nodes", "tokens/s", "plain", "speed-up")
    for cost in device.costs:
        nodes, speed, plain = report.best_of(cost)
        _row(sizes, cost.context, cost.batch, nodes, speed, plain, f"{speed / plain:.2f} x")
    checked = _table("One sequence", "nodes", "tokens a step", "expected tokens/s", "measured", "")
    for s in report.speeds:
        off = f"{100 * (s.measured / s.expected - 1):+.1f} %"
        _row(checked, s.nodes, f"{s.tokens_per_step:.2f}", s.expected, s.measured, off)
    console.print(sizes)
    console.print(checked)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _row(table: Table, *values: float | str) -> None:
    table.add_row(*(f"{v:.1f}" if isinstance(v, float) else str(v) for v in values))
