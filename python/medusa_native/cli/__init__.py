"""The command ``medusa-native``."""

from __future__ import annotations

import typer

from medusa_native.cli.bench import bench
from medusa_native.cli.chat import chat
from medusa_native.cli.convert import convert
from medusa_native.cli.demo import demo
from medusa_native.cli.distill import distill
from medusa_native.cli.generate import generate
from medusa_native.cli.inspect import inspect
from medusa_native.cli.merge import merge
from medusa_native.cli.recipes import recipes
from medusa_native.cli.train import train
from medusa_native.cli.tune import tune

app = typer.Typer(
    name="medusa-native",
    help="One LLM answers faster without changing a single token of the answer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (
    generate,
    chat,
    distill,
    train,
    tune,
    bench,
    convert,
    merge,
    recipes,
    inspect,
    demo,
):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    app()


__all__ = ["app", "main"]
