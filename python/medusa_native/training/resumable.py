"""What every training run does to be interrupted and go on: its place is in a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medusa_native.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from medusa_native.training.progress import Meter

if TYPE_CHECKING:
    from pathlib import Path

    from medusa_native.training.checkpoint import AnyTrainer


class Resumable:
    """A trainer and where its run stands; runs say what an update is (`_loop`)."""

    trainer: AnyTrainer
    state: Progress
    _key: str  # of everything that the trained weights depend on
    _shown: bool | None

    def resume(self, checkpoint: Path) -> None:
        """Go back to where a checkpoint of the same run stands; without one, to the start."""
        self.state = load_checkpoint(checkpoint, self._key, self.trainer) or Progress()

    def finish(self, checkpoint: Path, total: int, every: float) -> None:
        """Run the updates that are left of `total`; Ctrl-C saves what is done and goes on up."""
        with Meter("train", total, self.state.step, shown=self._shown) as meter:
            try:
                self._loop(checkpoint, every, meter)
            except KeyboardInterrupt:
                self._save(checkpoint)
                raise

    def _loop(self, checkpoint: Path, every: float, meter: Meter) -> None:
        raise NotImplementedError

    def _save(self, checkpoint: Path) -> None:
        """Only the trainer knows the step: Ctrl-C is raised after an update, before its report."""
        self.state.step = self.trainer.num_steps
        save_checkpoint(checkpoint, self._key, self.trainer, self.state)
