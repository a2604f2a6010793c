"""nasflow finds the best neural network for a given device from few measurements.

Everything that users and authors of plug-ins need is here: `from nasflow import SearchSpace, Gene, NetworkBuilder`.
Names are imported when they are first used, so that `import nasflow` is quick.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "searchspaces.errors": (
        "ArchitectureError",
        "ConfigError",
        "DeviceError",
        "NasflowError",
        "NetworkError",
        "StudyError",
        "TableError",
        "TaskError",
        "TrainingError",
    ),
    "searchspaces.genes": ("Gene", "GeneSpace", "JointSpace", "Rows"),
    "searchspaces.arch": ("ArchBatch",),
    "searchspaces.space": ("Op", "SearchSpace"),
    "searchspaces.task": ("Task",),
    "searchspaces.table": ("Column", "Table"),
    "searchspaces.network": (
        "INPUT",
        "Network",
        "NetworkBuilder",
        "Node",
        "init_weights",
        "to_onnx",
        "to_torch",
    ),
    "searchspaces.network.from_torch": ("from_torch",),
    "searchspaces.nb101": ("NB101",),
    "searchspaces.nb201": ("NB201",),
    "searchspaces.fbnet": ("FBNet",),
    "searchspaces.mobilenet": ("MobileNet",),
    "proxies": ("Proxy", "score"),
    "devices": ("Device", "Measurement", "heavy_work"),
    "nasflow.tasks": ("Cifar10", "Cifar100", "Digits", "ImageTask", "NpzTask"),
    "nasflow.training": ("Trainer", "TrainingResult"),
    "nasflow.objectives": ("Objective", "Objectives"),
    "nasflow.evaluators": ("Context", "Costs", "Evaluation", "Evaluator", "Measure", "Proxies", "TableLookup", "Train"),
    "nasflow.strategies": (
        "NSGA2",
        "Deduplicate",
        "Filter",
        "OptunaSampler",
        "Random",
        "RegularizedEvolution",
        "Strategy",
    ),
    "nasflow.study": ("Log", "Record", "Runner", "Study"),
    "nasflow.search": ("Search", "search"),
    "nasflow.config": ("composed", "instantiate"),
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
