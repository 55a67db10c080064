"""Training of Medusa-1 heads on a frozen backbone."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_native.engine import load_model
from medusa_native.heads import FINGERPRINT, fingerprint
from medusa_native.loading import load_checkpoint as load_backbone
from medusa_native.loading import save_heads
from medusa_native.training import dataset as rows
from medusa_native.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from medusa_native.training.export import draft_rows, embedding_table, heads_of
from medusa_native.training.hidden import hidden_states
from medusa_native.training.progress import Meter
from medusa_native.training.records import read_answers, writing
from medusa_native.training.settings import TrainSettings, digest, file_digest, prepare_folder
from medusa_native.training.validation import Validation, ValidationSet, validate

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native.loading import Checkpoint


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
    folder = Path(output)
    work = prepare_folder(folder, restart)
    backbone = load_backbone(model)
    run = _Run(settings, backbone, Path(data), num_threads or 0, progress)
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
    return run.report(path, found)


class _Run:
    """A training run: data, states and the native trainer."""

    def __init__(
        self,
        settings: TrainSettings,
        backbone: Checkpoint,
        data: Path,
        num_threads: int,
        progress: bool | None,
    ) -> None:
        self._settings = settings
        self._backbone = backbone
        self._threads = num_threads
        self._shown = progress
        config = backbone.config
        self._vocab = int(config["vocab_size"])
        answers = read_answers(data, self._vocab)
        longest = config["max_position_embeddings"]
        longest = min(longest, settings.max_model_len or longest)
        self._dataset = rows.make_dataset(answers, longest)
        self._key = digest(settings, fingerprint(backbone), file_digest(data))
        self._hidden_key = digest(fingerprint(backbone), file_digest(data), settings.dtype, longest)
        count = len(self._dataset.answers)
        self._learn, self._keep = rows.split(count, settings.validation_fraction, settings.seed)
        self.token_map = self._choose_vocabulary()

    def _choose_vocabulary(self) -> npt.NDArray[np.int32] | None:
        size = self._settings.draft_vocab
        if size is None or size >= self._vocab:
            return None
        return rows.most_frequent(self._dataset.token_counts(self._learn, self._vocab), size)

    def load(self, cache: Path) -> None:
        """Compute the backbone's states, or map those computed earlier, and start the trainer."""
        cache.mkdir(parents=True, exist_ok=True)
        model = load_model(self._backbone, self._settings.dtype, self._threads)
        self._hidden = hidden_states(
            model, self._dataset, cache, self._hidden_key, progress=self._shown
        )
        tokens = self._dataset.targets(self._settings.num_heads)
        self._roots = self._dataset.roots() if self._settings.grounded else None
        self._targets = rows.to_draft_ids(tokens, self.token_map, self._vocab)
        learn = self._dataset.rows_of(self._learn)
        self._rows = learn[(self._targets[learn] >= 0).any(axis=1)]
        self._validation = self._validation_set(tokens)
        self._steps_per_epoch = -(-len(self._rows) // self._settings.batch_size)
        self._total = self._steps_per_epoch * self._settings.epochs
        lm_head = draft_rows(self._backbone, self.token_map)
        embedding = None
        if self._settings.grounded:
            embedding = embedding_table(self._backbone, self._settings.dtype)
        self.trainer = self._settings.make_trainer(lm_head, embedding, self._total, self._threads)

    def _validation_set(self, tokens: npt.NDArray[np.int32]) -> ValidationSet:
        kept = self._dataset.rows_of(self._keep)
        first = np.concatenate([[0], np.cumsum(self._dataset.num_rows[self._keep])])
        return ValidationSet(
            kept, first.tolist(), self._targets[kept], tokens[kept] >= 0, self._roots_of(kept)
        )

    def _roots_of(self, batch: npt.NDArray[np.int64]) -> npt.NDArray[np.int32] | None:
        return None if self._roots is None else self._roots[batch]

    def fit(self, checkpoint: Path, every: float) -> Validation:
        """Run all steps that are left; return what the last validation found."""
        self._state = load_checkpoint(checkpoint, self._key, self.trainer) or Progress()
        with Meter("train", self._total, self._state.step, shown=self._shown) as meter:
            try:
                self._loop(checkpoint, every, meter)
            except KeyboardInterrupt:
                self._save(checkpoint)
                raise
        return self._validate()

    def _save(self, checkpoint: Path) -> None:
        """Only the trainer knows the step: Ctrl-C is raised after an update, before its report."""
        self._state.step = self.trainer.num_steps
        save_checkpoint(checkpoint, self._key, self.trainer, self._state)

    def _loop(self, checkpoint: Path, every: float, meter: Meter) -> None:
        saved = time.monotonic()
        order = np.empty(0, dtype=np.int64)
        while True:
            epoch, index = divmod(self._state.step, self._steps_per_epoch)
            if len(self._state.history) < epoch:
                self._end_epoch(epoch, meter)
            if index == 0 or time.monotonic() - saved >= every:
                self._save(checkpoint)
                saved = time.monotonic()
            if self._state.step == self._total:
                return
            if index == 0 or not order.size:
                order = self._order(epoch)
            size = self._settings.batch_size
            self._step(order[index * size : (index + 1) * size], meter)

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Rows in the order of an epoch; epoch 0 of the permutations chose the validation set."""
        return self._rows[rows.permutation(len(self._rows), self._settings.seed, epoch + 1)]

    def _step(self, batch: npt.NDArray[np.int64], meter: Meter) -> None:
        start = time.monotonic()
        report = self.trainer.step(self._hidden, batch, self._targets[batch], self._roots_of(batch))
        seconds = time.monotonic() - start
        self._state.step = report.step
        self._state.seconds += seconds
        accuracy = " ".join(f"{share:.2f}" for share in report.head_accuracy)
        rate = len(batch) / max(seconds, 1e-9)
        meter.update(report.step, f"loss {report.loss:.3f}, top-1 {accuracy}, {rate:.0f} rows/s")

    def _end_epoch(self, epoch: int, meter: Meter) -> None:
        found = self._validate()
        entry = {"epoch": epoch, "step": self._state.step, **found.summary()}
        self._state.history.append(entry)
        top1 = " ".join(f"{head[0]:.3f}" for head in found.top)
        meter.say(
            f"epoch {epoch}: validation top-1 {top1}, {found.tokens_per_step:.3f} tokens a step "
            f"with {1 + len(found.paths)} nodes"
        )

    def _validate(self) -> Validation:
        nodes = self._settings.max_tree_nodes
        return validate(self.trainer, self._hidden, self._validation, nodes)

    def close(self) -> None:
        """Unmap the states, so that their file can go."""
        del self._hidden

    def report(self, path: Path, found: Validation) -> TrainReport:
        """Sum up."""
        state = self._state
        return TrainReport(
            path, len(self._learn), len(self._rows), state.step, state.seconds, found, state.history
        )
