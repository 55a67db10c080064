"""A training run: from answers to trained heads, through checkpoints."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from medusa_native.engine import load_model
from medusa_native.heads import fingerprint
from medusa_native.training import dataset as rows
from medusa_native.training.export import draft_rows, embedding_table
from medusa_native.training.hidden import hidden_states
from medusa_native.training.records import read_answers
from medusa_native.training.resumable import Resumable
from medusa_native.training.settings import TrainSettings, device_part, digest, file_digest
from medusa_native.training.validation import Validation, ValidationSet, validate

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from medusa_native import _core
    from medusa_native.loading import Checkpoint
    from medusa_native.training.progress import Meter


class Run(Resumable):
    """Data, states and the native trainer."""

    trainer: _core.Trainer

    def __init__(
        self,
        settings: TrainSettings,
        backbone: Checkpoint,
        data: Path,
        num_threads: int,
        device: str,
        progress: bool | None,
    ) -> None:
        self._settings = settings
        self._backbone = backbone
        self._threads = num_threads
        self._device = device
        self._shown = progress
        config = backbone.config
        self._vocab = int(config["vocab_size"])
        answers = read_answers(data, self._vocab)
        longest = config["max_position_embeddings"]
        longest = min(longest, settings.max_model_len or longest)
        self._dataset = rows.make_dataset(answers, longest)
        inputs = [fingerprint(backbone), file_digest(data)]
        own = device_part(device)
        self._key = digest(settings, *inputs, *own)
        self._hidden_key = digest(*inputs, settings.dtype, longest, *own)
        fraction = settings.validation_fraction
        self._learn, self._keep = self._dataset.split(fraction, settings.seed)
        self.token_map = self._choose_vocabulary()

    def _choose_vocabulary(self) -> npt.NDArray[np.int32] | None:
        size = self._settings.draft_vocab
        if size is None or size >= self._vocab:
            return None
        return rows.most_frequent(self._dataset.token_counts(self._learn, self._vocab), size)

    def load(self, cache: Path) -> None:
        """Compute the backbone's states, or map those computed earlier, and start the trainer."""
        cache.mkdir(parents=True, exist_ok=True)
        model = load_model(self._backbone, self._settings.dtype, self._threads, self._device)
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
        del model  # its memory is the trainer's now
        self.trainer = self._settings.make_trainer(
            lm_head, embedding, self._total, self._threads, self._device
        )

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
        self.resume(checkpoint)
        self.finish(checkpoint, self._total, every)
        return self._validate()

    def _loop(self, checkpoint: Path, every: float, meter: Meter) -> None:
        saved = time.monotonic()
        order = np.empty(0, dtype=np.int64)
        while True:
            epoch, index = divmod(self.state.step, self._steps_per_epoch)
            if len(self.state.history) < epoch:
                self._end_epoch(epoch, meter)
            if index == 0 or time.monotonic() - saved >= every:
                self._save(checkpoint)
                saved = time.monotonic()
            if self.state.step == self._total:
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
        self.state.step = report.step
        self.state.seconds += seconds
        accuracy = " ".join(f"{share:.2f}" for share in report.head_accuracy)
        rate = len(batch) / max(seconds, 1e-9)
        meter.update(report.step, f"loss {report.loss:.3f}, top-1 {accuracy}, {rate:.0f} rows/s")

    def _end_epoch(self, epoch: int, meter: Meter) -> None:
        found = self._validate()
        entry = {"epoch": epoch, "step": self.state.step, **found.summary()}
        self.state.history.append(entry)
        top1 = " ".join(f"{head[0]:.3f}" for head in found.top)
        meter.say(
            f"epoch {epoch}: validation top-1 {top1}, {found.tokens_per_step:.3f} tokens a step "
            f"with {1 + len(found.paths)} nodes"
        )

    def _validate(self) -> Validation:
        nodes = self._settings.max_tree_nodes
        return validate(self.trainer, self._hidden, self._validation, nodes)

    @property
    def num_answers(self) -> int:
        """Answers that are learned from, validation left out."""
        return len(self._learn)

    @property
    def num_rows(self) -> int:
        """Their rows."""
        return len(self._rows)

    def close(self) -> None:
        """Unmap the states, so that their file can go."""
        del self._hidden
