"""A run of a recipe: updates in order, validations, checkpoints."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from medusa_native import _core
from medusa_native.engine import as_core
from medusa_native.heads import fingerprint
from medusa_native.loading.casting import cast
from medusa_native.training import dataset as rows
from medusa_native.training.joint_options import core_options, require_memory
from medusa_native.training.joint_start import (
    begin_with,
    digest_of,
    heads_weights,
    require_heads_of,
)
from medusa_native.training.joint_validation import JointValidation, validate
from medusa_native.training.packing import (
    count_tokens,
    documents_of,
    draft_ids_of,
    num_rows,
    plan_updates,
    token_batch,
)
from medusa_native.training.records import read_answers
from medusa_native.training.resumable import Resumable
from medusa_native.training.settings import device_part, digest, file_digest
from medusa_native.training.training_log import TrainingLog

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from medusa_native.loading import Checkpoint, HeadsCheckpoint
    from medusa_native.training.joint import JointSettings
    from medusa_native.training.progress import Meter
    from medusa_native.training.recipe import Recipe


class JointRun(Resumable):
    """Data and the native trainer of heads and backbone together."""

    trainer: _core.JointTrainer

    def __init__(
        self,
        recipe: Recipe,
        settings: JointSettings,
        backbone: Checkpoint,
        data: Path,
        num_threads: int,
        device: str,
        progress: bool | None,
        initial_heads: HeadsCheckpoint | None = None,
    ) -> None:
        self._recipe, self._settings, self._shown = recipe, settings, progress
        self._threads, self._device = num_threads, device
        config = backbone.config
        self._vocab = int(config["vocab_size"])
        longest = min(config["max_position_embeddings"], recipe.sequence_length)
        self._answers = documents_of(read_answers(data, self._vocab), longest)
        fraction = settings.validation_fraction
        learn, keep = rows.split(len(self._answers), fraction, recipe.seed)
        self._learn = learn.tolist()
        self._keep = [self._answers[i] for i in keep.tolist()]
        self._initial: dict[str, npt.NDArray[np.float32]] = {}
        if initial_heads is None:
            self.token_map = self._choose_vocabulary()
        else:
            require_heads_of(initial_heads, recipe.heads, self._vocab)
            self._initial = heads_weights(initial_heads)
            self.token_map = initial_heads.token_map
        self._draft_ids = draft_ids_of(self.token_map, self._vocab)
        self.updates = plan_updates(self._answers, self._learn, recipe)
        self._key = digest(
            asdict(recipe) | {"description": ""}, asdict(settings), fingerprint(backbone),
            file_digest(data), digest_of(self._initial),
            [] if self.token_map is None else self.token_map.tolist(), *device_part(device),
        )  # fmt: skip
        self._backbone = backbone

    def _choose_vocabulary(self) -> npt.NDArray[np.int32] | None:
        size = self._recipe.heads.draft_vocab
        if size == 0 or size >= self._vocab:
            return None
        learned = [self._answers[i] for i in self._learn]
        return rows.most_frequent(count_tokens(learned, self._vocab), size)

    def load(self) -> None:
        """Start the trainer, if there is memory for it."""
        config = _core.ModelConfig(**self._backbone.config)
        options = core_options(
            self._recipe, self._settings, self.updates, self._threads, self._device
        )
        grounded = self._recipe.heads.grounded
        vocab = self._vocab if self.token_map is None else len(self.token_map)
        # A device takes or refuses what the trainer needs when it starts.
        on_host = not device_part(self._device)
        needed = _core.joint_memory_estimate(config, vocab, grounded, **options) if on_host else 0
        widened = self._settings.weight_format == "widened"
        require_memory(needed, self._backbone, self._settings, self._recipe.all_weights)
        tensors = {
            name: as_core(self._widened(name) if widened or tensor.scales is not None else tensor)
            for name, tensor in self._backbone.tensors.items()
        }
        token_map = [] if self.token_map is None else self.token_map.tolist()
        self.trainer = _core.JointTrainer(config, tensors, token_map, grounded, **options)
        begin_with(self.trainer, self._initial)

    def _widened(self, name: str) -> Any:
        plain = "F32" if self._settings.dtype == "float32" else "BF16"
        tensor = self._backbone.tensors[name]
        return tensor if tensor.dtype in ("F32", plain) else cast(name, tensor, plain)

    def fit(self, checkpoint: Path, log: Path, every: float) -> JointValidation:
        """Run all updates that are left; return what the last validation found."""
        self.resume(checkpoint)
        self.log = TrainingLog(log, self.state.step)
        self.finish(checkpoint, len(self.updates), every)
        return self._validate()

    def _loop(self, checkpoint: Path, every: float, meter: Meter) -> None:
        saved = time.monotonic()
        while True:
            if self._validation_is_due():
                self._record_validation(meter)
            if self.state.step == 0 or time.monotonic() - saved >= every:
                self._save(checkpoint)
                saved = time.monotonic()
            if self.state.step == len(self.updates):
                return
            self._step(meter)

    def _validation_is_due(self) -> bool:
        """Before the first update, between stages, and every so many updates."""
        step, stages = self.state.step, [update.stage for update in self.updates]
        if any(entry["step"] == step for entry in self.state.history):
            return False
        between = 0 < step < len(stages) and stages[step] != stages[step - 1]
        ends = step in (0, len(stages))
        return between or ends or step % self._settings.validate_steps == 0

    def _record_validation(self, meter: Meter) -> None:
        found = self._validate()
        entry = {"step": self.state.step, "validation": found.summary()}
        self.state.history.append(entry)
        self.log.add(entry)
        top1 = " ".join(f"{head[0]:.3f}" for head in found.heads.top)
        meter.say(
            f"update {self.state.step}: validation top-1 {top1}, "
            f"{found.heads.tokens_per_step:.3f} tokens a step, KL {found.divergence:.4f}, "
            f"perplexity {found.perplexity:.3f} (before: {found.base_perplexity:.3f})"
        )

    def _validate(self) -> JointValidation:
        return validate(
            self.trainer, self._keep, self._recipe.heads.num_heads, self._draft_ids,
            self._recipe.sequence_length, self._settings.max_tree_nodes,
        )  # fmt: skip

    def _step(self, meter: Meter) -> None:
        update = self.updates[self.state.step]
        start = time.monotonic()
        batches = [
            token_batch(
                [self._answers[i] for i in sequence],
                self._recipe.heads.num_heads,
                self._draft_ids,
            )
            for sequence in update.sequences
        ]
        report = self.trainer.step(batches)
        seconds = time.monotonic() - start
        self.state.step = report.step
        self.state.seconds += seconds
        tokens = sum(len(batch[0]) for batch in batches)
        self._log_update(update.stage, report, tokens, seconds)
        meter.update(
            report.step,
            f"loss {report.loss:.4f}, KL {report.backbone_loss:.4f}, "
            f"heads {' '.join(f'{x:.2f}' for x in report.head_loss)}, "
            f"{tokens / max(seconds, 1e-9):.0f} tokens/s",
        )

    def _log_update(
        self, stage: int, report: _core.JointReport, tokens: int, seconds: float
    ) -> None:
        self.log.add(
            {
                "step": report.step,
                "stage": stage,
                "loss": report.loss,
                "backbone_loss": report.backbone_loss,
                "head_loss": report.head_loss,
                "head_accuracy": report.head_accuracy,
                "heads_weight": report.heads_weight,
                "grad_norm": report.grad_norm,
                "learning_rate": report.learning_rate,
                "tokens": tokens,
                "seconds": round(seconds, 3),
            }
        )

    @property
    def num_answers(self) -> int:
        """Answers that are learned from, validation left out."""
        return len(self._learn)

    @property
    def num_tokens(self) -> int:
        """Their tokens, prompts included."""
        return sum(num_rows(self._answers[i]) for i in self._learn)
