"""nasflow finds the best neural network for a given device from few measurements.

Everything that users and authors of plug-ins need is here: `from nasflow import SearchSpace, Gene, NetworkBuilder`.
Names are imported when they are first used, so that `import nasflow` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from devices import Device as Device
    from devices import Measurement as Measurement
    from devices import SshDevice as SshDevice
    from devices import heavy_work as heavy_work
    from devices import load_latencies as load_latencies
    from nasflow.config import composed as composed
    from nasflow.config import instantiate as instantiate
    from nasflow.evaluators import Context as Context
    from nasflow.evaluators import Costs as Costs
    from nasflow.evaluators import Evaluation as Evaluation
    from nasflow.evaluators import Evaluator as Evaluator
    from nasflow.evaluators import Measure as Measure
    from nasflow.evaluators import PredictedLatency as PredictedLatency
    from nasflow.evaluators import Proxies as Proxies
    from nasflow.evaluators import TableLookup as TableLookup
    from nasflow.evaluators import Train as Train
    from nasflow.flow import InfeasibleError as InfeasibleError
    from nasflow.flow import Search as Search
    from nasflow.flow import search as search
    from nasflow.models import Model as Model
    from nasflow.objectives import Objective as Objective
    from nasflow.objectives import Objectives as Objectives
    from nasflow.strategies import NSGA2 as NSGA2
    from nasflow.strategies import ColumnScore as ColumnScore
    from nasflow.strategies import Deduplicate as Deduplicate
    from nasflow.strategies import Filter as Filter
    from nasflow.strategies import Guided as Guided
    from nasflow.strategies import MoveProposal as MoveProposal
    from nasflow.strategies import OptunaSampler as OptunaSampler
    from nasflow.strategies import ProxyScore as ProxyScore
    from nasflow.strategies import Random as Random
    from nasflow.strategies import RegularizedEvolution as RegularizedEvolution
    from nasflow.strategies import Score as Score
    from nasflow.strategies import Strategy as Strategy
    from nasflow.strategies import Warmup as Warmup
    from nasflow.study import Log as Log
    from nasflow.study import Record as Record
    from nasflow.study import Runner as Runner
    from nasflow.study import Study as Study
    from nasflow.suites import Cell as Cell
    from nasflow.suites import Row as Row
    from nasflow.suites import Suite as Suite
    from nasflow.tasks import Cifar10 as Cifar10
    from nasflow.tasks import Cifar100 as Cifar100
    from nasflow.tasks import Digits as Digits
    from nasflow.tasks import ImageTask as ImageTask
    from nasflow.tasks import NpzTask as NpzTask
    from nasflow.tasks import Split as Split
    from nasflow.tasks import Splits as Splits
    from nasflow.training import Trainer as Trainer
    from nasflow.training import TrainingResult as TrainingResult
    from predictors.accuracy.auto import Auto as Auto
    from predictors.accuracy.auto import Candidate as Candidate
    from predictors.accuracy.blend import Blend as Blend
    from predictors.accuracy.brp import BRP as BRP
    from predictors.accuracy.flan import FLAN as FLAN
    from predictors.accuracy.gaussian import GaussianProcessPredictor as GaussianProcessPredictor
    from predictors.accuracy.gcn import GCN as GCN
    from predictors.accuracy.regression import Regression as Regression
    from predictors.accuracy.single import BestColumn as BestColumn
    from predictors.base import Prediction as Prediction
    from predictors.base import Predictor as Predictor
    from predictors.base import SourceSamples as SourceSamples
    from predictors.choosers import Chooser as Chooser
    from predictors.choosers import Cosine as Cosine
    from predictors.choosers import KMeans as KMeans
    from predictors.choosers import MostInformative as MostInformative
    from predictors.choosers import Strata as Strata
    from predictors.encodings import AdjacencyOps as AdjacencyOps
    from predictors.encodings import Concatenation as Concatenation
    from predictors.encodings import CostFeatures as CostFeatures
    from predictors.encodings import Encoding as Encoding
    from predictors.encodings import LayerCosts as LayerCosts
    from predictors.encodings import OneHot as OneHot
    from predictors.encodings import OpCounts as OpCounts
    from predictors.encodings import OpPairs as OpPairs
    from predictors.encodings import Paths as Paths
    from predictors.encodings import Topology as Topology
    from predictors.encodings import ZeroCost as ZeroCost
    from predictors.encodings.arch2vec import Arch2Vec as Arch2Vec
    from predictors.encodings.cate import CATE as CATE
    from predictors.ensemble import Ensemble as Ensemble
    from predictors.latency.additive import Additive as Additive
    from predictors.latency.gaussian import LatencyGaussianProcess as LatencyGaussianProcess
    from predictors.latency.gcn import LatencyGCN as LatencyGCN
    from predictors.latency.help import HELP as HELP
    from predictors.latency.lines import CostLine as CostLine
    from predictors.latency.lines import SourceCopy as SourceCopy
    from predictors.latency.multi_predict import MultiPredict as MultiPredict
    from predictors.latency.nasflat import NASFLAT as NASFLAT
    from proxies import Proxy as Proxy
    from proxies import score as score
    from searchspaces.arch import ArchBatch as ArchBatch
    from searchspaces.errors import ArchitectureError as ArchitectureError
    from searchspaces.errors import ConfigError as ConfigError
    from searchspaces.errors import DeviceError as DeviceError
    from searchspaces.errors import NasflowError as NasflowError
    from searchspaces.errors import NetworkError as NetworkError
    from searchspaces.errors import PredictorError as PredictorError
    from searchspaces.errors import StudyError as StudyError
    from searchspaces.errors import TableError as TableError
    from searchspaces.errors import TaskError as TaskError
    from searchspaces.errors import TrainingError as TrainingError
    from searchspaces.fbnet import FBNet as FBNet
    from searchspaces.genes import Gene as Gene
    from searchspaces.genes import GeneSpace as GeneSpace
    from searchspaces.genes import JointSpace as JointSpace
    from searchspaces.genes import Rows as Rows
    from searchspaces.importing import Source as Source
    from searchspaces.mobilenet import MobileNet as MobileNet
    from searchspaces.nb101 import NB101 as NB101
    from searchspaces.nb201 import NB201 as NB201
    from searchspaces.network import INPUT as INPUT
    from searchspaces.network import Network as Network
    from searchspaces.network import NetworkBuilder as NetworkBuilder
    from searchspaces.network import Node as Node
    from searchspaces.network import init_weights as init_weights
    from searchspaces.network import to_onnx as to_onnx
    from searchspaces.network import to_torch as to_torch
    from searchspaces.network.from_torch import from_torch as from_torch
    from searchspaces.pool import Pool as Pool
    from searchspaces.space import Op as Op
    from searchspaces.space import SearchSpace as SearchSpace
    from searchspaces.table import Column as Column
    from searchspaces.table import Table as Table
    from searchspaces.task import Task as Task
    from searchspaces.unreduced import Unreduced as Unreduced

_HOMES = {
    "searchspaces.errors": (
        "ArchitectureError",
        "ConfigError",
        "DeviceError",
        "NasflowError",
        "NetworkError",
        "PredictorError",
        "StudyError",
        "TableError",
        "TaskError",
        "TrainingError",
    ),
    "searchspaces.genes": ("Gene", "GeneSpace", "JointSpace", "Rows"),
    "searchspaces.arch": ("ArchBatch",),
    "searchspaces.importing": ("Source",),
    "searchspaces.pool": ("Pool",),
    "searchspaces.space": ("Op", "SearchSpace"),
    "searchspaces.unreduced": ("Unreduced",),
    "searchspaces.task": ("Task",),
    "searchspaces.table": ("Column", "Table"),
    "searchspaces.network": ("INPUT", "Network", "NetworkBuilder", "Node", "init_weights", "to_onnx", "to_torch"),
    "searchspaces.network.from_torch": ("from_torch",),
    "searchspaces.nb101": ("NB101",),
    "searchspaces.nb201": ("NB201",),
    "searchspaces.fbnet": ("FBNet",),
    "searchspaces.mobilenet": ("MobileNet",),
    "predictors.accuracy.auto": ("Auto", "Candidate"),
    "predictors.accuracy.blend": ("Blend",),
    "predictors.accuracy.brp": ("BRP",),
    "predictors.accuracy.flan": ("FLAN",),
    "predictors.accuracy.gaussian": ("GaussianProcessPredictor",),
    "predictors.accuracy.gcn": ("GCN",),
    "predictors.accuracy.regression": ("Regression",),
    "predictors.accuracy.single": ("BestColumn",),
    "predictors.latency.additive": ("Additive",),
    "predictors.latency.gaussian": ("LatencyGaussianProcess",),
    "predictors.latency.gcn": ("LatencyGCN",),
    "predictors.latency.help": ("HELP",),
    "predictors.latency.lines": ("CostLine", "SourceCopy"),
    "predictors.latency.multi_predict": ("MultiPredict",),
    "predictors.latency.nasflat": ("NASFLAT",),
    "predictors.choosers": ("Chooser", "Cosine", "KMeans", "MostInformative", "Strata"),
    "predictors.base": ("Prediction", "Predictor", "SourceSamples"),
    "predictors.encodings": (
        "AdjacencyOps",
        "Concatenation",
        "CostFeatures",
        "Encoding",
        "LayerCosts",
        "OneHot",
        "OpCounts",
        "OpPairs",
        "Paths",
        "Topology",
        "ZeroCost",
    ),
    "predictors.encodings.arch2vec": ("Arch2Vec",),
    "predictors.encodings.cate": ("CATE",),
    "predictors.ensemble": ("Ensemble",),
    "proxies": ("Proxy", "score"),
    "devices": ("Device", "Measurement", "SshDevice", "heavy_work", "load_latencies"),
    "nasflow.tasks": ("Cifar10", "Cifar100", "Digits", "ImageTask", "NpzTask", "Split", "Splits"),
    "nasflow.training": ("Trainer", "TrainingResult"),
    "nasflow.objectives": ("Objective", "Objectives"),
    "nasflow.evaluators": (
        "Context",
        "Costs",
        "Evaluation",
        "Evaluator",
        "Measure",
        "PredictedLatency",
        "Proxies",
        "TableLookup",
        "Train",
    ),
    "nasflow.strategies": (
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
    ),
    "nasflow.study": ("Log", "Record", "Runner", "Study"),
    "nasflow.flow": ("InfeasibleError", "Search", "search"),
    "nasflow.config": ("composed", "instantiate"),
    "nasflow.models": ("Model",),
    "nasflow.suites": ("Cell", "Row", "Suite"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nasflow' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
