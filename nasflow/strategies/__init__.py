"""Search strategies, and what can be put around them."""

from nasflow.strategies.base import Strategy
from nasflow.strategies.evolution import RegularizedEvolution
from nasflow.strategies.guided import Guided
from nasflow.strategies.nsga2 import NSGA2
from nasflow.strategies.optuna_sampler import OptunaSampler
from nasflow.strategies.random import Random
from nasflow.strategies.scores import ColumnScore, ProxyScore, Score
from nasflow.strategies.warmup import MoveProposal, Warmup
from nasflow.strategies.wrappers import Deduplicate, Filter

__all__ = [
    "NSGA2",
    "ColumnScore",
    "Deduplicate",
    "Filter",
    "Guided",
    "MoveProposal",
    "OptunaSampler",
    "ProxyScore",
    "Random",
    "RegularizedEvolution",
    "Score",
    "Strategy",
    "Warmup",
]
