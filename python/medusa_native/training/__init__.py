"""Training of Medusa heads, alone (Medusa-1) or with the backbone (Medusa-2), on its own answers."""

from medusa_native.training.distill import DistillReport, distill
from medusa_native.training.joint import JointTrainReport, train_recipe
from medusa_native.training.recipe import Recipe, load_recipe, recipe_names
from medusa_native.training.train import TrainReport, train

__all__ = [
    "DistillReport",
    "JointTrainReport",
    "Recipe",
    "TrainReport",
    "distill",
    "load_recipe",
    "recipe_names",
    "train",
    "train_recipe",
]
