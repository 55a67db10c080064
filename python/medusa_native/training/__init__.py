"""Training of Medusa-1 heads: the model's own answers as data, then heads on a frozen backbone."""

from medusa_native.training.distill import DistillReport, distill
from medusa_native.training.recipe import Recipe, load_recipe, recipe_names
from medusa_native.training.train import TrainReport, train

__all__ = [
    "DistillReport",
    "Recipe",
    "TrainReport",
    "distill",
    "load_recipe",
    "recipe_names",
    "train",
]
