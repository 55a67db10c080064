"""Training of Medusa-1 heads: the model's own answers as data, then heads on a frozen backbone."""

from medusa_native.training.distill import DistillReport, distill
from medusa_native.training.train import TrainReport, train

__all__ = ["DistillReport", "TrainReport", "distill", "train"]
