"""Training by a recipe: heads alone, or with the backbone's adapter or all its weights (Medusa-2)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medusa_native.arguments import check_device
from medusa_native.checks import check_integer
from medusa_native.errors import InvalidArgument
from medusa_native.heads import ADAPTER, FINGERPRINT, fingerprint, open_heads
from medusa_native.loading import load_checkpoint as load_backbone
from medusa_native.loading import save_heads
from medusa_native.training.joint_export import (
    heads_of,
    require_describable,
    save_adapter,
    save_model,
)
from medusa_native.training.joint_run import JointRun
from medusa_native.training.recipe import load_recipe
from medusa_native.training.records import writing
from medusa_native.training.settings import prepare_folder
from medusa_native.training.training_log import draw_losses

if TYPE_CHECKING:
    from medusa_native.training.joint_validation import JointValidation


@dataclass(frozen=True)
class JointSettings:
    """What a run's bits depend on beside its recipe; see `train_recipe`."""

    dtype: str
    weight_format: str
    validation_fraction: float
    max_tree_nodes: int
    validate_steps: int

    def check(self) -> None:
        """Raise InvalidArgument for what is out of range."""
        check_integer("train", "max_tree_nodes", self.max_tree_nodes, 2, 256)
        check_integer("train", "validate_steps", self.validate_steps, 1, 1 << 30)
        if not 0 <= self.validation_fraction <= 0.5:
            raise InvalidArgument(
                "train: validation_fraction must be between 0 and 0.5, found "
                f"{self.validation_fraction}"
            )
        for name, choices in (
            ("dtype", ("bfloat16", "float32")),
            ("weight_format", ("as_stored", "widened")),
        ):
            if getattr(self, name) not in choices:
                raise InvalidArgument(
                    f"train: {name}: {' or '.join(choices)}, found {getattr(self, name)!r}"
                )


@dataclass(frozen=True)
class JointTrainReport:
    """What `train_recipe` did.

    Attributes
    ----------
    path
        The heads' file.
    adapter
        The adapter's folder, or None where the recipe trains none.
    model
        The trained model's folder, or None where the recipe does not train all weights.
    num_answers, num_tokens
        Learned from, validation left out; prompts count.
    num_steps, seconds
        Updates and the time spent in them, earlier runs included.
    validation
        Of what was written.
    history
        Every validation, with its update.
    """

    path: Path
    adapter: Path | None
    model: Path | None
    num_answers: int
    num_tokens: int
    num_steps: int
    seconds: float
    validation: JointValidation
    history: list[dict[str, Any]]


def train_recipe(
    model: str | Path,
    data: str | Path,
    output: str | Path,
    recipe: str | Path,
    *,
    dtype: str = "bfloat16",
    weight_format: str = "as_stored",
    validation_fraction: float = 0.03,
    initial_heads: str | Path | None = None,
    max_tree_nodes: int = 64,
    validate_steps: int = 50,
    device: str = "auto",
    num_threads: int | None = None,
    checkpoint_seconds: float = 120.0,
    restart: bool = False,
    base_model: str | None = None,
    progress: bool | None = None,
) -> JointTrainReport:
    """Train by a recipe on the model's own answers, as `distill` writes them.

    An interrupted run, called again with the same arguments, goes on from its last checkpoint and
    ends with the same bits.

    Parameters
    ----------
    model
        A GGUF file, a Hugging Face folder or a hub id; its weights stay as they are.
    data
        JSON Lines with ``id``, ``prompt_token_ids`` and ``token_ids``.
    output
        Folder for the heads (``medusa_lm_head.safetensors``, ``config.json`` with the best tree),
        ``adapter/`` in PEFT's format or, of all weights, ``model/`` in Hugging Face's and in
        `dtype`, ``train_log.jsonl`` and ``losses.svg``. Unfinished work lies in ``.training``
        within.
    recipe
        A TOML file, or one of the package by name; see `Recipe`.
    dtype
        Compute type of products; weights, moments and sums are float32.
    weight_format
        ``as_stored``: quantised weights are widened whenever a product reads them. ``widened``:
        once, at load, which is faster and takes two bytes a weight in bfloat16.
    validation_fraction
        Share of answers (at most 512) that are kept out, to measure on and to choose the tree.
    initial_heads
        Heads to go on from, of the recipe's kind: a folder or file, or ``auto`` for those that ship.
        Their draft vocabulary stays. None: such as have learned nothing.
    max_tree_nodes
        Root included.
    validate_steps
        Updates between two validations; there is one before the first and after every stage, too.
    device
        "cpu", "cuda", "cuda:1": where heads and backbone are computed; "auto": the CPU. Each
        device's bits are its own, so unfinished work goes on where it began. A GPU trains heads and
        adapters only.
    num_threads
        None: all cores.
    checkpoint_seconds
        Time between checkpoints.
    restart
        Throw unfinished work away instead of going on.
    base_model
        Name for the files' configurations; default: the model file's.
    progress
        Show it on standard error; None: when that is a terminal.

    Raises
    ------
    InvalidArgument
        A parameter or a value of the recipe is out of range, a file cannot be read or written, or
        `output` holds unfinished work of others.
    DeviceError
        This build or machine does not have the device, or it does not train what the recipe says.
    ModelFormatError
        A checkpoint is damaged, or a Hugging Face folder cannot describe the model to be written.
    OutOfMemory
        The machine cannot hold it; nothing was started.
    MedusaError
        The loss is not finite; the message names the step and the batch.
    """
    settings = JointSettings(
        dtype, weight_format, validation_fraction, max_tree_nodes, validate_steps
    )
    settings.check()
    check_device(device)
    chosen = load_recipe(recipe)
    folder = Path(output)
    work = prepare_folder(folder, restart)
    backbone = load_backbone(model)
    if chosen.all_weights:
        require_describable(backbone)
    start = None if initial_heads is None else open_heads(initial_heads, backbone, adapted=True)
    run = JointRun(
        chosen, settings, backbone, Path(data), num_threads or 0, device, progress, start
    )
    with writing(folder):
        run.load()
        found = run.fit(work / "checkpoint", folder / "train_log.jsonl", checkpoint_seconds)
        losses = draw_losses(run.log.entries)
        (folder / "losses.svg").write_text(losses, encoding="utf-8")
    name = base_model or backbone.path.name
    adapter = trained = None
    if chosen.lora is not None:
        adapter = folder / "adapter"
        save_adapter(adapter, run.trainer, chosen.lora, backbone, name)
    if chosen.all_weights:
        with writing(folder):
            trained = save_model(folder / "model", run.trainer, backbone, dtype)
        name = base_model or str(trained)
    config = {
        "base_model_name_or_path": name,
        FINGERPRINT: fingerprint(load_backbone(trained or model)),
        "medusa_choices": found.heads.paths,
        "validation": found.summary(),
    }
    if adapter is not None:
        config[ADAPTER] = adapter.name
    heads = heads_of(run.trainer, chosen.heads, run.token_map)
    path = save_heads(folder, heads, config)
    shutil.rmtree(work)
    state = run.state
    return JointTrainReport(
        path, adapter, trained, run.num_answers, run.num_tokens, state.step, state.seconds, found,
        state.history,
    )  # fmt: skip
