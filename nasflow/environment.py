"""What a run ran on: versions and machine, for provenance."""

import json
import logging
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from devices import environment as machine

logger = logging.getLogger(__name__)

PACKAGES = ("nasflow", "numpy", "torch", "onnx", "onnxruntime", "optuna", "hydra-core", "scikit-learn")


def environment() -> dict[str, Any]:
    """Return versions, processor and system as JSON-able facts."""
    versions = {name: _version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **machine(), "packages": versions}


def read_environment(path: Path) -> Mapping[str, Any]:
    """Return the facts that a file holds; none, with a warning, where it cannot be read: they are there for people."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        logger.warning("What the run ran on is not known, for %s cannot be read: %s", path, error)
        return {}
    return facts if isinstance(facts, dict) else {}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
