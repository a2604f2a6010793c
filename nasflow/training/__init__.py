"""Training networks on image tasks, and scoring them."""

from nasflow.training.evaluation import Score, evaluate, onnx_accuracy
from nasflow.training.loop import EpochReport
from nasflow.training.recipe import Recipe
from nasflow.training.trainer import Trainer, TrainingResult

__all__ = ["EpochReport", "Recipe", "Score", "Trainer", "TrainingResult", "evaluate", "onnx_accuracy"]
