"""What suites of predictors that learn from few samples share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from nasflow.config import composed, instantiate, plain
from nasflow.suites.base import Cell
from predictors.base import WITHIN_90, Predictor, SourceSamples
from predictors.encodings import Encoding
from searchspaces.arch import ArchBatch

_SOME = 64  # architectures whose vectors tell one encoding from another


@dataclass(frozen=True)
class Fitted:
    """A predictor of the suite.

    Attributes:
        overrides: What chooses the predictor on the command line of `nasflow fit`.
        encoding: Name of the task's encoding that it gets; None for a predictor that reads the graph alone.
        seeds: Seeds it runs under; None for as many as the suite.
        transfer: Whether it learns from the task's sources, too.
    """

    overrides: Sequence[str]
    encoding: str | None = None
    seeds: int | None = None
    transfer: bool = False

    @cached_property
    def predictor(self) -> Any:
        """The predictor's configuration."""
        return plain(composed("fit", [*self.overrides]).predictor)


Method = TypeVar("Method", bound=Fitted)


def methods_of(kind: type[Method], entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Method]:
    """Return the methods that a suite's configuration names."""
    target = f"{kind.__module__}.{kind.__name__}"
    return {name: instantiate({"_target_": target, **arguments}) for name, arguments in entries.items()}


class KeptPredictors:
    """The predictors of the last cells, some of which need not learn the same sources again."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[tuple[str, int], Predictor]] = {}

    def predictor(self, cell: Cell, method: Fitted, encodings: Mapping[str, Encoding], **more: Any) -> Predictor:
        """Return the cell's predictor: that of the method's last cell if task and seed are the same.

        Args:
            cell: The cell.
            method: Its method.
            encodings: The task's encodings by name.
            **more: What is different in the configuration of the predictor.
        """
        of = cell.task, cell.seed
        if cell.method not in self._last or self._last[cell.method][0] != of:
            encoding = None if method.encoding is None else encodings[method.encoding]
            self._last[cell.method] = of, instantiate({**method.predictor, **more}, seed=cell.seed, encoding=encoding)
        return self._last[cell.method][1]


def content(encoding: Encoding, archs: ArchBatch) -> str:
    """Return a digest of what an encoding gives for some of `archs`."""
    return sha256(np.round(encoding.encode(archs[:_SOME]), 6).tobytes()).hexdigest()[:16]


def held_out(
    predictor: Predictor,
    archs: ArchBatch,
    y: NDArray[np.float64],
    test: ArchBatch,
    truth: NDArray[np.float64],
    sources: Sequence[SourceSamples] = (),
) -> dict[str, float]:
    """Fit a predictor, predict others and compare; see `AccuracyFewShot` for the figures."""
    start = perf_counter()
    predictor.fit(archs, y, sources)
    fitted = perf_counter()
    mean, std = predictor.predict(test)
    scored = perf_counter()
    seen = set(archs.keys())
    unseen = np.array([key not in seen for key in test.keys()])  # noqa: SIM118 (a method)
    return {
        "kendall_tau": float(kendalltau(mean, truth).statistic),
        "spearman": float(spearmanr(mean, truth).statistic),
        "kendall_tau_unseen": float(kendalltau(mean[unseen], truth[unseen]).statistic),
        "within_90": float(np.mean(np.abs(truth - mean) <= WITHIN_90 * std)),
        "fit_s": fitted - start,
        "score_1000_s": (scored - fitted) * 1000 / len(test),
    }
