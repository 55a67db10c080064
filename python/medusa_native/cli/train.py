"""``medusa-native train``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from medusa_native.cli import options as opt
from medusa_native.cli.terminal import console, reports_errors, write_json
from medusa_native.errors import InvalidArgument

if TYPE_CHECKING:
    from medusa_native.training import TrainReport


@reports_errors
def train(
    context: typer.Context,
    model: opt.Model,
    data: Annotated[str, typer.Option("--data", help="Answers, as `distill` writes them.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the heads.")],
    num_heads: Annotated[int, typer.Option(help="Heads.")] = 4,
    num_layers: Annotated[int, typer.Option(help="Residual blocks of each.")] = 1,
    version: Annotated[
        int, typer.Option(help="1: a projection for each head; 2: the model's lm_head.")
    ] = 2,
    grounded: Annotated[
        bool, typer.Option("--grounded", help="Heads see the token after the accepted ones, too.")
    ] = False,
    draft_vocab: Annotated[
        int, typer.Option(help="Guess only the most frequent tokens; 0: all.")
    ] = 8192,
    epochs: Annotated[int, typer.Option(help="Times the data is seen.")] = 4,
    batch_size: Annotated[int, typer.Option(help="Rows of an update.")] = 1024,
    learning_rate: Annotated[float, typer.Option(help="At its peak.")] = 1e-3,
    max_tree_nodes: Annotated[int, typer.Option(help="Of the tree stored with the heads.")] = 64,
    max_model_len: opt.MaxModelLen = None,
    seed: opt.Seed = None,
    dtype: opt.TrainDType = "bfloat16",
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    cache_dir: Annotated[
        str | None, typer.Option(help="Keeps the model's states for further runs.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A TOML file or one of `recipes`; for heads and backbone together."),
    ] = None,
    weight_format: Annotated[
        str, typer.Option(help="Recipes: as_stored, or widened, which is faster and larger.")
    ] = "as_stored",
    initial_heads: Annotated[
        str | None, typer.Option(help="Recipes: heads to go on from; auto: those that ship.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Throw unfinished work away.")] = False,
    json: opt.Json = False,
) -> None:
    """Train Medusa heads on a frozen model, or by a recipe, perhaps with the model or an adapter for it.

    An interrupted run, called again, goes on from its last checkpoint and ends with the same bits.

    Example: medusa-native train -m demo --data answers.jsonl -o heads
    """
    if recipe is not None:
        _require_recipe_options(context)
        _train_recipe(
            json,
            opt.resolve_model(model),
            data,
            output,
            recipe,
            dtype=dtype,
            weight_format=weight_format,
            initial_heads=initial_heads,
            max_tree_nodes=max_tree_nodes,
            device=device,
            num_threads=threads,
            restart=restart,
        )
        return
    from medusa_native.training import train as run

    report = run(
        opt.resolve_model(model),
        data,
        output,
        num_heads=num_heads,
        num_layers=num_layers,
        version=version,
        grounded=grounded,
        draft_vocab=draft_vocab or None,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        max_tree_nodes=max_tree_nodes,
        max_model_len=max_model_len,
        seed=seed or 0,
        dtype=dtype,
        device=device,
        num_threads=threads,
        cache_dir=cache_dir,
        restart=restart,
    )
    if json:
        write_json(_facts(report))
    else:
        _show(_facts(report))


_WITH_RECIPE = {
    "model", "data", "output", "recipe", "dtype", "weight_format", "initial_heads", "max_tree_nodes", "device",
    "threads", "restart", "json",
}  # fmt: skip


def _require_recipe_options(context: typer.Context) -> None:
    """Raise InvalidArgument for options whose values are the recipe's to say."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in _WITH_RECIPE and source is not None and source.name == "COMMANDLINE":
            option = name.replace("_", "-")
            raise InvalidArgument(f"--{option}: belongs into the recipe where --recipe is given")


def _train_recipe(json: bool, *arguments: Any, **options: Any) -> None:
    from medusa_native.training import train_recipe

    report = train_recipe(*arguments, **options)
    facts: dict[str, object] = {
        "path": str(report.path),
        "adapter": None if report.adapter is None else str(report.adapter),
        "model": None if report.model is None else str(report.model),
        "num_answers": report.num_answers,
        "num_tokens": report.num_tokens,
        "num_steps": report.num_steps,
        "seconds": report.seconds,
        "validation": report.validation.summary(),
    }
    if json:
        write_json(facts)
    else:
        _show(facts)


def _facts(report: TrainReport) -> dict[str, object]:
    return {
        "path": str(report.path),
        "num_answers": report.num_answers,
        "num_rows": report.num_rows,
        "num_steps": report.num_steps,
        "seconds": report.seconds,
        "validation": report.validation.summary(),
    }


def _show(facts: dict[str, object]) -> None:
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        for name, shown in value.items() if isinstance(value, dict) else [(key, value)]:
            table.add_row(name, str(shown))
    console.print(table)
