"""Predictors that `nasflow fit` has saved, built again from what their files say."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from sklearn.base import BaseEstimator

from nasflow.config import instantiate
from nasflow.figures import check_task
from predictors.accuracy.auto import Candidate
from predictors.base import Predictor, saved_facts
from predictors.encodings import Encoding
from searchspaces.errors import PredictorError
from searchspaces.space import SearchSpace
from searchspaces.task import Task

_ALLOWED = (Predictor, Encoding, Candidate, BaseEstimator)


def load_fitted(path: Path, space: SearchSpace, task: Task) -> tuple[Predictor, Mapping[str, Any]]:
    """Return the predictor that `nasflow fit` has saved, and what it learned (see `nasflow.figures.Figures.target`).

    It is built with the arguments that it was fitted with, which the file holds. A file may name predictors, encodings
    and scikit-learn's estimators; anything else is refused, for a file of figures is not to run a program.

    Args:
        path: The file.
        space: The space that it is to predict for.
        task: What its encoding sees networks of.

    Raises:
        PredictorError: If the file is missing, damaged, of another schema version, space or scale, or not of
            `nasflow fit`.
        ConfigError: If it was fitted to networks for another task.
    """
    facts = saved_facts(path)["facts"]
    identity, target = facts.get("identity"), facts.get("target")
    if not isinstance(identity, Mapping) or not isinstance(identity.get("predictor"), Mapping) or target is None:
        raise PredictorError(
            f"{path} does not say what it was fitted with and to, as the files of nasflow fit do. Fit it again: "
            "nasflow fit predictor=NAME table=FILE device=NAME."
        )
    for name in _targets(identity):
        _check_target(name, path)
    parts: dict[str, Any] = {"space": space, "task": task, "seed": identity["seed"]}
    if identity.get("encoding") is not None:
        parts["encoding"] = instantiate(identity["encoding"], **parts)
    predictor: Predictor = instantiate(identity["predictor"], **parts)
    predictor.load(path, space)
    check_task(target, task, str(path))
    return predictor, target


def _targets(config: Any) -> Iterator[str]:
    """Yield what a saved predictor and its encoding are made of."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == "_target_":
                yield str(value)
            elif key != "space":  # the caller's own takes its place
                yield from _targets(value)
    elif isinstance(config, list):
        for value in config:
            yield from _targets(value)


def _check_target(name: str, path: Path) -> None:
    try:
        found = get_object(name)
    except Exception as error:  # Hydra raises whatever importing the module raised
        raise PredictorError(
            f"{path} was fitted with {name}, which cannot be imported here: {error}. Install what brings it, or fit "
            "anew."
        ) from error
    if not (isinstance(found, type) and issubclass(found, _ALLOWED)):
        raise PredictorError(
            f"{path} names {name}, which is no predictor, encoding or estimator of scikit-learn: nothing else is "
            "built from a file. If you trust where it comes from, fit it again here."
        )
