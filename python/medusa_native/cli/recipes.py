"""``medusa-native recipes``."""

from __future__ import annotations

from typing import Annotated

import typer

from medusa_native.cli.terminal import console, reports_errors


@reports_errors
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one's file.")] = None,
) -> None:
    """List the training recipes in the package, or print one to copy and change.

    Example: medusa-native recipes medusa-2-small > mine.toml
    """
    from medusa_native.training.recipe import load_recipe, recipe_names, recipe_path

    if name is not None:
        load_recipe(name)
        typer.echo(recipe_path(name).read_text(encoding="utf-8"), nl=False)
        return
    width = max(map(len, recipe_names()))
    for each in recipe_names():
        console.print(f"{each:{width}}  {load_recipe(each).description}", soft_wrap=True)
