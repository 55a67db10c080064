"""Training of Medusa-1 heads on a frozen backbone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medusa_native.arguments import check_device
from medusa_native.heads import FINGERPRINT, fingerprint
from medusa_native.loading import load_checkpoint as load_backbone
from medusa_native.loading import save_heads
from medusa_native.training.export import heads_of
from medusa_native.training.records import writing
from medusa_native.training.run import Run
from medusa_native.training.settings import TrainSettings, prepare_folder

if TYPE_CHECKING:
    from medusa_native.training.validation import Validation


@dataclass(frozen=True)
class TrainReport:
    """What `train` did.

    Attributes
    ----------
    path
        The heads' file.
    num_answers, num_rows
        Learned from, validation left out.
    num_steps, seconds
        Updates and the time spent in them, earlier runs included.
    validation
        Of the heads that were written.
    history
        One entry an epoch: step, seconds, and what validation found.
    """

    path: Path
    num_answers: int
    num_rows: int
    num_steps: int
    seconds: float
    validation: Validation
    history: list[dict[str, Any]]


def train(
    model: str | Path,
    data: str | Path,
    output: str | Path,
    *,
    num_heads: int = 4,
    num_layers: int = 1,
    version: int = 2,
    grounded: bool = False,
    draft_vocab: int | None = 8192,
    epochs: int = 4,
    batch_size: int = 1024,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    warmup_ratio: float = 0.05,
    head_decay: float = 0.8,
    validation_fraction: float = 0.03,
    max_tree_nodes: int = 64,
    max_model_len: int | None = None,
    seed: int = 0,
    dtype: str = "bfloat16",
    device: str = "auto",
    num_threads: int | None = None,
    checkpoint_seconds: float = 60.0,
    cache_dir: str | Path | None = None,
    restart: bool = False,
    base_model: str | None = None,
    progress: bool | None = None,
) -> TrainReport:
    """Train Medusa heads on the model's own answers, as `distill` writes them.

    The loss is the sum over heads of ``head_decay ** k`` times the cross-entropy of head k, over
    response tokens only. A token outside the draft vocabulary teaches nothing and counts as missed
    in accuracies. An interrupted run, called again with the same arguments, goes on from its last
    checkpoint and ends with the same bits.

    Parameters
    ----------
    model
        A GGUF file, a Hugging Face folder or a hub id; frozen, in whatever format it is stored.
    data
        JSON Lines with ``id``, ``prompt_token_ids`` and ``token_ids``.
    output
        Folder for ``medusa_lm_head.safetensors`` and ``config.json``, best tree included.
        Unfinished work lies in ``.training`` within.
    num_heads, num_layers
        Heads, and residual blocks of each.
    version
        1: a projection of its own for every head; 2: the backbone's lm_head, frozen.
    grounded
        The first residual block of every head also sees the embedding of the root, the token that
        is known to come next: ``x + silu(W x + U e + b)``. Other programs cannot read such heads.
    draft_vocab
        Only the so many most frequent tokens of the data can be guessed; None: all.
    epochs, batch_size, learning_rate, weight_decay, max_grad_norm, warmup_ratio, head_decay, seed
        Of AdamW with linear warm-up and cosine decay to 0. A batch is so many rows.
    validation_fraction
        Share of answers (at most 512) that are kept out, to measure on and to choose the tree.
    max_tree_nodes
        Root included.
    max_model_len
        Longest prompt and answer together; longer ones are left out. Default: the model's.
    dtype, num_threads
        Compute type of backbone and products; weights and moments are float32.
    device
        "cpu", "cuda", "cuda:1": where the backbone's states and the heads are computed; "auto": the
        CPU. Each device's bits are its own, so unfinished work goes on where it began.
    checkpoint_seconds
        Time between checkpoints.
    cache_dir
        Keeps the backbone's states for further runs; default: with the unfinished work, removed at
        the end.
    restart
        Throw unfinished work away instead of going on.
    base_model
        Name for config.json; default: the file's.
    progress
        Show it on standard error; None: when that is a terminal.

    Raises
    ------
    InvalidArgument
        A parameter is out of range, a file cannot be read or written, or `output` holds unfinished
        work of other settings.
    DeviceError
        This build or machine does not have the device.
    OutOfMemory
        The device has too little memory.
    ModelFormatError
        A checkpoint is damaged.
    MedusaError
        The loss is not finite; the message names the step.
    """
    settings = TrainSettings(
        num_heads, num_layers, version, draft_vocab, epochs, batch_size, learning_rate,
        weight_decay, max_grad_norm, warmup_ratio, head_decay, validation_fraction,
        max_tree_nodes, max_model_len, seed, dtype, grounded,
    )  # fmt: skip
    settings.check()
    check_device(device)
    folder = Path(output)
    work = prepare_folder(folder, restart)
    backbone = load_backbone(model)
    run = Run(settings, backbone, Path(data), num_threads or 0, device, progress)
    with writing(folder):
        run.load(Path(cache_dir) if cache_dir is not None else work)
        found = run.fit(work / "checkpoint", checkpoint_seconds)
    config = {
        "base_model_name_or_path": base_model or backbone.path.name,
        FINGERPRINT: fingerprint(backbone),
        "medusa_choices": found.paths,
        "validation": found.summary(),
    }
    path = save_heads(folder, heads_of(run.trainer, settings, run.token_map), config)
    run.close()
    shutil.rmtree(work)
    state = run.state
    return TrainReport(
        path, run.num_answers, run.num_rows, state.step, state.seconds, found, state.history
    )
