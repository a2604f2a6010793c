"""Evaluators: what turns architectures into metrics."""

from nasflow.evaluators.base import Context, Evaluation, Evaluator
from nasflow.evaluators.costs import Costs
from nasflow.evaluators.measure import Measure
from nasflow.evaluators.predicted import PredictedLatency
from nasflow.evaluators.proxies import Proxies
from nasflow.evaluators.table import TableLookup
from nasflow.evaluators.train import Train

__all__ = [
    "Context",
    "Costs",
    "Evaluation",
    "Evaluator",
    "Measure",
    "PredictedLatency",
    "Proxies",
    "TableLookup",
    "Train",
]
