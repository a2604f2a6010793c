"""Latency by running the ONNX model on a device."""

from typing import Any, Literal

import numpy as np

from devices import Device
from nasflow.evaluators.base import Context, Evaluation
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.network import Network
from searchspaces.space import SearchSpace
from searchspaces.task import Task


class Measure:
    """Measures each network's latency on a device, in milliseconds for one batch.

    Figures are comparable across the whole study: the device's anchors keep their known times in the run's folder.

    Args:
        space: The search space.
        task: The task that networks are built for.
        device: The device.
        metric: The metric's name, so that several devices can be measured in one study; it ends in `_ms`.
        anchors: How many models of the current front are run along as anchors.
    """

    cost: Literal["cheap", "expensive"] = "expensive"
    deterministic = False

    def __init__(
        self, space: SearchSpace, task: Task, device: Device, metric: str = "latency_ms", anchors: int = 2
    ) -> None:
        if not metric.endswith("_ms"):
            raise ConfigError(f"A latency is in milliseconds and says so, but {metric!r} does not end in '_ms'.")
        self.space = space
        self.task = task
        self.device = device
        self.anchors = anchors
        self.metric = metric
        self.provides = (metric,)

    def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
        """Measure the networks, interleaved with each other and with the anchors.

        Raises:
            DeviceError: If ONNX Runtime refuses a model or the machine cannot be had alone.
        """
        front = [] if context.front is None else list(context.front.rows[: self.anchors])
        results = self.device.measure(
            [self.device.prepare(self._network(row)) for row in archs.rows],
            np.random.default_rng(context.seeds),
            anchors=[self.device.prepare(self._network(row)) for row in front],
            state=None if context.folder is None else context.folder / "anchors" / f"{self.metric}.json",
        )
        columns = {self.metric: np.array([result.latency_ms for result in results])}
        return Evaluation(columns, [{"metric": self.metric} | result.record() for result in results])

    def _network(self, row: Any) -> Network:
        return self.space.network(row, self.task)
