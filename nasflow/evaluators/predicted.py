"""Latency by a predictor, without measuring."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from devices import Device, Job, Outcome, heavy_work
from nasflow.evaluators.base import Context, Evaluation
from nasflow.figures import refuse_other_options
from nasflow.fitted import load_fitted
from nasflow.study.predictions import deviation_of, notes
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, PredictorError
from searchspaces.files import located
from searchspaces.genes import Rows
from searchspaces.space import SearchSpace
from searchspaces.task import Task

logger = logging.getLogger(__name__)

BATCH = 8
"""Models that are measured side by side, which is what a kill may cost."""


class PredictedLatency:
    """Predicts latencies on a device, in milliseconds, with a predictor that was fitted to measured ones.

    A search measures its best candidates on the device before it reports them, see `nasflow.verification`.

    Args:
        space: The search space; the predictor must be of the same, at the same scale.
        task: The task; the predictor must be of networks with the same input and as many classes.
        path: The file that `nasflow fit` wrote.
        device: The device. Where the predictor's dataset tells of its own, the options must be the same.
        metric: The metric's name, which ends in `_ms`; the standard deviation is `…_predicted_std_ms`.
        content: What the file must hold, as `content` of an earlier instance told; None for anything.

    Attributes:
        content: A digest of the file.

    Raises:
        ConfigError: If the predictor is of another task, of a device with other options, or of no latency in ms.
        PredictorError: If the file is missing, damaged, of another schema version, space or scale, or holds something
            else than `content`.
    """

    cost: Literal["cheap", "expensive"] = "cheap"
    deterministic = True

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        path: str,
        device: Device,
        metric: str = "latency_ms",
        content: str | None = None,
    ) -> None:
        if not metric.endswith("_ms"):
            raise ConfigError(f"A latency is in milliseconds and says so, but {metric!r} does not end in '_ms'.")
        file = located(path)
        self.predictor, target = load_fitted(file, space, task)
        self.content = sha256(file.read_bytes()).hexdigest()[:16]
        if content not in (None, self.content):
            raise PredictorError(
                f"{path} holds another predictor than when the study began. Put the former file back, or start a new "
                "study in another folder (hydra.run.dir=FOLDER)."
            )
        self.space = space
        self.task = task
        self.device = device
        self.metric = metric
        self.provides: tuple[str, ...] = (metric, deviation_of(metric))
        _check_target(target, device, file)
        facts = target["device"] or {}
        same = facts.get("identity") == device.identity
        self._references: Mapping[str, float] = facts.get("references_ms", {}) if same else {}

    def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
        """Predict the latencies of a batch; the notes of each tell the interval that holds it with 90 %.

        Raises:
            PredictorError: If a predicted latency is not above 0.
        """
        with heavy_work():
            mean, std = self.predictor.predict(archs)
        if not (mean > 0).all():
            first = int(np.argmin(mean > 0))
            raise PredictorError(
                f"A latency is above 0 ms, but {type(self.predictor).__name__} predicts {mean[first]:.4g} for "
                f"{archs[first].format()[0]}. Take one that cannot: nasflow fit predictor=latency_auto."
            )
        told = [notes(self.metric, *pair) for pair in zip(mean.tolist(), std.tolist(), strict=True)]
        return Evaluation({self.metric: mean, deviation_of(self.metric): std}, told)

    def measure(self, rows: Rows, folder: Path, rng: np.random.Generator) -> Iterator[Sequence[Outcome]]:
        """Measure architectures `(n, genes)` on the device, and yield outcomes, each under its row, as they are had.

        Figures of one `folder` are comparable, across processes too: the device's anchors keep their known times there.
        They begin with those that the predictor's samples stand on, so its predictions compare as well.

        Raises:
            DeviceError: If the device cannot measure.
        """
        jobs = [Job(tuple(map(int, row)), partial(self._prepare, row)) for row in rows]
        state = folder / "anchors" / f"{self.metric}.json"
        self.device.adopt(self._references, state)
        yield from self.device.run_jobs(jobs, rng, state, BATCH)

    def _prepare(self, row: NDArray[np.int64]) -> bytes:
        return self.device.prepare(self.space.network(row, self.task))


def _check_target(target: Mapping[str, Any], device: Device, path: Path) -> None:
    """See that a predictor gives latencies of `device`, as far as its dataset tells."""
    if target["unit"] != "ms":
        raise ConfigError(
            f"{path} predicts {target['column']!r} in {target['unit'] or 'no unit'}, but a latency is in ms. Fit a "
            "predictor to latencies: nasflow fit predictor=latency_auto encoding=latency table=FILE device=NAME."
        )
    facts = target["device"]
    if not isinstance(facts, Mapping):
        logger.info("%s does not tell which device it was fitted to: see that it is %r.", path, device.name)
        return
    refuse_other_options(facts, device, f"The latencies that {path} was fitted to")
    if facts.get("identity") != device.identity:
        logger.warning(
            "%s was fitted to latencies of %r on another machine or with other versions (%s). The best candidates are "
            "measured on %r of this one, and the report says where they disagree.",
            path,
            facts["name"],
            ", ".join(f"{key} {facts.get('environment', {}).get(key)}" for key in ("processor", "onnxruntime")),
            device.name,
        )
