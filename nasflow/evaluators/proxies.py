"""Zero-cost proxies as metrics."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from devices import heavy_work
from nasflow.evaluators.base import Context, Evaluation
from nasflow.tasks import ImageTask
from proxies import Proxy, score
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.space import SearchSpace
from searchspaces.task import Task


class Proxies:
    """Raw scores of untrained networks, under the proxies' names.

    Args:
        space: The search space.
        task: The task; its training images make the minibatch, drawn by `seed`.
        proxies: Proxies, or names of shipped ones.
        batch_size: Images in the minibatch.
        seed: Seed of the minibatch and of the networks' weights, one for all, so that scores compare.
    """

    cost: Literal["cheap", "expensive"] = "expensive"
    deterministic = True

    def __init__(
        self, space: SearchSpace, task: Task, proxies: Sequence[str | Proxy], batch_size: int = 64, seed: int = 0
    ) -> None:
        self.space = space
        self.task = task
        self.proxies = list(proxies)
        self.seed = seed
        self.provides = tuple(proxy if isinstance(proxy, str) else proxy.name for proxy in self.proxies)
        if batch_size < 2:
            raise ConfigError(f"A minibatch of proxies holds at least two images, but batch_size={batch_size}.")
        self._data = None
        if isinstance(task, ImageTask):
            train = task.splits.train
            picked = np.random.default_rng(seed).permutation(len(train))[:batch_size]
            self._data = train.images[picked], train.labels[picked]

    def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
        """Score the architectures.

        Raises:
            NetworkError: If a score is not defined.
        """
        with heavy_work():
            return Evaluation(score(archs, self.task, self.proxies, self._data, self.seed))
