"""What a run ran on: versions and machine, for provenance."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from devices import environment as machine

PACKAGES = ("nasflow", "numpy", "torch", "onnx", "onnxruntime", "optuna", "hydra-core", "scikit-learn")


def environment() -> dict[str, Any]:
    """Return versions, processor and system as JSON-able facts."""
    versions = {name: _version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **machine(), "packages": versions}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
