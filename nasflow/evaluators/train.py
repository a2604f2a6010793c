"""Accuracy by training the network."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Literal

import numpy as np

from devices import heavy_work
from nasflow.evaluators.base import Context, Evaluation
from nasflow.models import save_weights, weights_path
from nasflow.tasks import ImageTask
from nasflow.training import Trainer, TrainingResult
from nasflow.training.runtime import torch_device
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, NetworkError, TrainingError
from searchspaces.genes import Rows
from searchspaces.network import Network
from searchspaces.space import SearchSpace
from searchspaces.task import Task


class Train:
    """Trains each network and gives its accuracy on the validation images, a share from 0 to 1.

    Trained weights are kept in the run's folder. Between epochs the machine-wide lock is given back, so that a
    measurement never waits for longer than an epoch.

    Args:
        space: The search space.
        task: The task, with images.
        trainer: How to train; the fidelity of a study is its number of epochs.

    Raises:
        ConfigError: If the task has no images.
        TaskError: If its images are missing or malformed.
    """

    provides = ("accuracy",)
    cost: Literal["cheap", "expensive"] = "expensive"
    deterministic = True

    def __init__(self, space: SearchSpace, task: Task, trainer: Trainer) -> None:
        if not isinstance(task, ImageTask):
            raise ConfigError(f"Task {task.name!r} has no images to train on; choose one of the task group.")
        # Missing data and devices are told before the first evaluation, not by each one.
        _ = task.splits, torch_device(trainer.device)
        self.space = space
        self.task = task
        self.trainer = trainer

    def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
        """Train the networks one after the other, or the seeds of one architecture side by side.

        Raises:
            TrainingError: If a loss diverges.
        """
        epochs = None if context.fidelity is None else int(context.fidelity)
        results: dict[int, TrainingResult] = {}
        for places in _repetitions(archs.rows, self.trainer.copies):
            row, seeds = archs.rows[places[0]], [context.seeds[i] for i in places]
            trained = self._fit_all(self.space.network(row, self.task), seeds, epochs)
            results |= dict(zip(places, trained, strict=True))
            for i in places:
                if context.folder is not None and context.slots:
                    save_weights(weights_path(context.folder, context.slots[i], row), results[i].weights)
        ordered = [results[i] for i in range(len(archs))]
        provenance = [
            {
                "test_accuracy": result.metrics["test_accuracy"],
                "loss": result.metrics["loss"],
                "test_loss": result.metrics["test_loss"],
                "epochs": result.epochs,
                "seconds": result.seconds,
                "seed": seed,
            }
            for result, seed in zip(ordered, context.seeds, strict=True)
        ]
        return Evaluation({"accuracy": np.array([result.metrics["accuracy"] for result in ordered])}, provenance)

    def _fit_all(self, network: Network, seeds: Sequence[int], epochs: int | None) -> list[TrainingResult]:
        try:
            return self._fit(network, seeds, epochs)
        except (NetworkError, TrainingError):
            if len(seeds) == 1:
                raise
        # Some networks have no copies side by side, and where one diverges, the others are still to be had.
        return [result for seed in seeds for result in self._fit(network, [seed], epochs)]

    def _fit(self, network: Network, seeds: Sequence[int], epochs: int | None) -> list[TrainingResult]:
        with ExitStack() as held:
            held.enter_context(heavy_work())

            def step_aside(report: object) -> None:
                held.close()
                held.enter_context(heavy_work())

            return self.trainer.fit_copies(network, self.task, seeds, epochs, step_aside)


def _repetitions(rows: Rows, most: int) -> list[list[int]]:
    """Group the places of equal rows, at most `most` in a group, by first appearance."""
    places: dict[bytes, list[int]] = {}
    for i, row in enumerate(rows):
        places.setdefault(row.tobytes(), []).append(i)
    return [same[start : start + most] for same in places.values() for start in range(0, len(same), most)]
