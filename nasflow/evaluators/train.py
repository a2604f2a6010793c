"""Accuracy by training the network."""

from contextlib import ExitStack
from typing import Literal

import numpy as np

from devices import heavy_work
from nasflow.evaluators.base import Context, Evaluation
from nasflow.models import save_weights, weights_path
from nasflow.tasks import ImageTask
from nasflow.training import Trainer, TrainingResult
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
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
        _ = task.splits  # missing data are told before the first evaluation, not by each one
        self.space = space
        self.task = task
        self.trainer = trainer

    def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
        """Train the networks one after the other.

        Raises:
            TrainingError: If a loss diverges.
        """
        epochs = None if context.fidelity is None else int(context.fidelity)
        results = []
        for i, row in enumerate(archs.rows):
            result = self._fit(self.space.network(row, self.task), context.seeds[i], epochs)
            if context.folder is not None and context.slots:
                save_weights(weights_path(context.folder, context.slots[i], row), result.weights)
            results.append(result)
        provenance = [
            {
                "test_accuracy": result.metrics["test_accuracy"],
                "loss": result.metrics["loss"],
                "epochs": result.epochs,
                "seconds": result.seconds,
                "seed": seed,
            }
            for result, seed in zip(results, context.seeds, strict=True)
        ]
        return Evaluation({"accuracy": np.array([result.metrics["accuracy"] for result in results])}, provenance)

    def _fit(self, network: Network, seed: int, epochs: int | None) -> TrainingResult:
        with ExitStack() as held:
            held.enter_context(heavy_work())

            def step_aside(report: object) -> None:
                held.close()
                held.enter_context(heavy_work())

            return self.trainer.fit(network, self.task, seed, epochs, step_aside)
