"""Training networks on image tasks, and scoring them."""

from nasflow.training.evaluation import Score, evaluate, evaluate_onnx
from nasflow.training.trainer import EpochReport, Trainer, TrainingResult

__all__ = ["EpochReport", "Score", "Trainer", "TrainingResult", "evaluate", "evaluate_onnx"]
