"""Recipes: how heads, and perhaps the backbone with them, are trained; TOML files to copy and change.

Those in the package are the published ones, each number with its source, and one for small models.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from medusa_native.errors import InvalidArgument
from medusa_native.training.recipe_rules import (
    Rule,
    flag,
    names,
    number,
    one_of,
    read_toml,
    tables,
    text,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).parent / "recipes"
LORA_TARGETS = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head",
)  # fmt: skip
T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """One pass of training; the next begins with what it made.

    Attributes
    ----------
    trained
        ``heads``, alone or with ``lora`` (adapters on frozen weights) or ``backbone`` (all weights).
    epochs
        Times the data is seen.
    learning_rate
        Of the backbone at its peak; heads learn at a multiple of it, also where they learn alone.
    warmup_steps, warmup_ratio
        Updates with a growing learning rate: a number, or a share of all of the stage's.
    schedule
        Of the learning rate afterwards: ``cosine`` or ``linear`` to 0, or ``constant``.
    """

    trained: tuple[str, ...]
    epochs: int
    learning_rate: float
    schedule: str
    warmup_steps: int = 0
    warmup_ratio: float = 0.0


@dataclass(frozen=True)
class LoraSettings:
    """Adapters: ``W + alpha / rank * B A`` on linear layers named in `targets`."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    dropout: float = 0.0


@dataclass(frozen=True)
class HeadsSettings:
    """Medusa heads, as for `train`; a `draft_vocab` of 0 stands for the whole vocabulary."""

    version: int
    num_heads: int
    num_layers: int = 1
    draft_vocab: int = 0
    grounded: bool = False
    learning_rate_multiplier: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """How a model's heads are trained. Source: paper, sections 2.2 and 2.3.

    The loss is ``L_LM + heads_coefficient * s * sum over k of heads_decay ** k * L_k``, k from 1;
    where heads learn alone there is no L_LM.

    Attributes
    ----------
    heads_schedule
        s at a share x of the stage's updates: ``constant`` 1, ``linear`` x, ``sine`` sin(pi/2 x),
        ``sine_r`` the sine until x is `heads_schedule_fraction`, then 1.
    self_distillation
        L_LM is KL(original || model), the original being the model as it was before training;
        otherwise it is cross-entropy with the data.
    batch_tokens
        Tokens of an update.
    sequence_length
        Longest sequence, in tokens.
    packing
        Several documents share a sequence, none of which sees another.
    """

    description: str
    stages: tuple[Stage, ...]
    heads: HeadsSettings
    heads_coefficient: float
    heads_decay: float
    heads_schedule: str
    self_distillation: bool
    batch_tokens: int
    sequence_length: int
    lora: LoraSettings | None = None
    heads_schedule_fraction: float = 1.0
    packing: bool = True
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0

    @property
    def all_weights(self) -> bool:
        """Whether a stage trains the backbone's own weights."""
        return any("backbone" in stage.trained for stage in self.stages)


_STAGE: dict[str, Rule] = {
    "trained": names("heads", "lora", "backbone"),
    "epochs": whole(1, 10_000),
    "learning_rate": number(0, 10, "(]"),
    "schedule": one_of("cosine", "linear", "constant"),
    "warmup_steps": whole(0, 1 << 30),
    "warmup_ratio": number(0, 0.9),
}
_LORA: dict[str, Rule] = {
    "rank": whole(1, 4096),
    "alpha": number(0, 1e6, "(]"),
    "targets": names(*LORA_TARGETS),
    "dropout": number(0, 1, "[)"),
}
_HEADS: dict[str, Rule] = {
    "version": whole(1, 2),
    "num_heads": whole(1, 32),
    "num_layers": whole(1, 32),
    "draft_vocab": whole(0, 1 << 30),
    "grounded": flag(),
    "learning_rate_multiplier": number(0, 1e4, "(]"),
}
_RECIPE: dict[str, Rule] = {
    "description": text(),
    "stages": tables(),
    "heads": Rule(lambda value: isinstance(value, dict), "a table"),
    "lora": Rule(lambda value: isinstance(value, dict), "a table"),
    "heads_coefficient": number(0, 1e6, "(]"),
    "heads_decay": number(0, 1, "(]"),
    "heads_schedule": one_of("constant", "linear", "sine", "sine_r"),
    "heads_schedule_fraction": number(0, 1, "(]"),
    "self_distillation": flag(),
    "batch_tokens": whole(1, 1 << 30),
    "sequence_length": whole(2, 1 << 24),
    "packing": flag(),
    "weight_decay": number(0, 10),
    "max_grad_norm": number(0, 1e9),
    "seed": whole(0, 2**63 - 1),
}


def recipe_names() -> list[str]:
    """Names of the recipes in the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def recipe_path(recipe: str | Path) -> Path:
    """Return the file of a recipe; one that exists comes before a name.

    Raises
    ------
    InvalidArgument
        There is neither such a file nor a recipe of that name.
    """
    if Path(recipe).is_file():
        return Path(recipe)
    if str(recipe) in recipe_names():
        return FOLDER / f"{recipe}.toml"
    raise InvalidArgument(
        f"recipe {str(recipe)!r}: a file or one of {', '.join(recipe_names())} expected, found none"
    )


def load_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe: a TOML file, or one of the package by name.

    Raises
    ------
    InvalidArgument
        The file cannot be read, a key is unknown or missing, or a value has another type or range.
        The message names file and key, what was expected and what was found.
    """
    path = recipe_path(recipe)
    values = read_toml(path)
    found = _build(path, "", values, _RECIPE, Recipe, ("stages", "heads", "lora"))
    lora = values.get("lora")
    settings = {
        "stages": tuple(
            _build(path, f"stages[{i}].", stage, _STAGE, Stage)
            for i, stage in enumerate(values["stages"])
        ),
        "heads": _build(path, "heads.", values["heads"], _HEADS, HeadsSettings),
        "lora": None if lora is None else _build(path, "lora.", lora, _LORA, LoraSettings),
    }
    result = Recipe(**found | settings)
    _check_whole(path, result)
    return result


def _build(
    path: Path,
    prefix: str,
    table: Mapping[str, Any],
    rules: Mapping[str, Rule],
    kind: type[T],
    elsewhere: tuple[str, ...] = (),
) -> Any:
    """Check a table; return an instance of `kind`, or its values where some are built elsewhere."""
    for key in table:
        if key not in rules:
            raise InvalidArgument(
                f"{path}: '{prefix}{key}' is unknown: expected one of {', '.join(rules)}"
            )
    required = {f.name for f in fields(kind) if f.default is MISSING}  # type: ignore[arg-type]
    for key, rule in rules.items():
        if key in table or key in required:
            _require(path, prefix, key, table, rule)
    values = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in table.items()
        if key not in elsewhere
    }
    return values if elsewhere else kind(**values)


def _require(path: Path, prefix: str, key: str, table: Mapping[str, Any], rule: Rule) -> None:
    if key not in table or not rule.accepts(table[key]):
        found = repr(table[key])[:80] if key in table else "nothing"
        raise InvalidArgument(f"{path}: '{prefix}{key}' must be {rule.expected}, found {found}")


def _check_whole(path: Path, recipe: Recipe) -> None:
    """Raise for values that are fine alone and not together."""
    for i, stage in enumerate(recipe.stages):
        _check_stage(path, f"stages[{i}].", stage, recipe)
    used = any("lora" in stage.trained for stage in recipe.stages)
    problem = None
    if recipe.lora is not None and not used:
        problem = "'lora' must be left out where no stage trains it, found a table"
    elif used and recipe.all_weights:
        problem = "'stages' must train lora or backbone, found both in different stages"
    elif recipe.batch_tokens < recipe.sequence_length:
        problem = (
            f"'batch_tokens' must be at least 'sequence_length', {recipe.sequence_length}, "
            f"found {recipe.batch_tokens}"
        )
    elif recipe.heads_schedule_fraction != 1.0 and recipe.heads_schedule != "sine_r":
        problem = (
            "'heads_schedule_fraction' must be left out unless 'heads_schedule' is 'sine_r', "
            f"found {recipe.heads_schedule_fraction}"
        )
    if problem is not None:
        raise InvalidArgument(f"{path}: {problem}")


def _check_stage(path: Path, prefix: str, stage: Stage, recipe: Recipe) -> None:
    problem = None
    if "heads" not in stage.trained or {"lora", "backbone"} <= {*stage.trained}:
        problem = f"'{prefix}trained' must be heads, alone or with lora or backbone"
    elif stage.warmup_steps and stage.warmup_ratio:
        problem = f"'{prefix}warmup_steps' and '{prefix}warmup_ratio' exclude each other"
    elif "lora" in stage.trained and recipe.lora is None:
        problem = f"'lora' must be a table, for '{prefix}trained' names it"
    if problem is not None:
        raise InvalidArgument(f"{path}: {problem}, found {list(stage.trained)}")
