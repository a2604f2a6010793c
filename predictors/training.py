"""What predictors that are networks over graphs share: samples as tensors, training, scoring, files."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from math import cos, pi
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from predictors.base import Arrays, Prediction, Predictor, SourceError, SourceSamples
from predictors.encodings import Encoding
from predictors.encodings.base import search_space
from predictors.graphs import Graphs, graphs
from predictors.normalisation import NormalScores
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, PredictorError
from searchspaces.genes import GeneSpace

_CHUNK = 512  # graphs embedded at a time, so that their activations stay in the processor's cache


@dataclass(frozen=True)
class Samples:
    """Architectures and their figures, as a network takes them.

    Attributes:
        graphs: The architectures `(n,)`.
        features: Their encoding `(n, k)`; k is 0 without one.
        y: Normal scores of their figures `(n,)`.
    """

    graphs: Graphs
    features: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Tensor) -> "Samples":
        return Samples(self.graphs[index], self.features[index], self.y[index])


class GraphNetwork(nn.Module):
    """A network that scores architectures in two steps, the first of which sees the graph alone."""

    @abstractmethod
    def embed(self, graphs: Graphs) -> Tensor:
        """Return vectors `(n, width)` of graphs."""

    @abstractmethod
    def score(self, embedding: Tensor, features: Tensor) -> Tensor:
        """Return the scores `(n,)` of architectures with embeddings `(n, width)` and encodings `(n, k)`."""


Loss = Callable[[Samples, torch.Generator], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How to train: by AdamW, whose learning rate falls along half a cosine to a thousandth.

    Attributes:
        epochs: Passes over the samples.
        batch: Samples per step.
        lr: Learning rate of the first step.
        weight_decay: Weight decay.

    Raises:
        ConfigError: If there is no epoch, or a batch is too small for a pair.
    """

    epochs: int
    batch: int
    lr: float
    weight_decay: float

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2:
            raise ConfigError(
                f"Training takes at least 1 epoch and batches of at least 2 samples, but got {self.epochs} epochs and "
                f"batches of {self.batch}."
            )


@contextmanager
def fast_products() -> Iterator[None]:
    """Let oneDNN multiply matrices of float32 numbers, which may round factors to bfloat16 where that is faster.

    Processors of AMD multiply them in half the time of MKL, without rounding. Nothing changes where precisions were set
    for single backends (`torch.backends`), for then PyTorch has no common one.
    """
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        yield
        return
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@fast_products()
def train(
    network: nn.Module, samples: Sequence[Samples], loss: Loss, recipe: Recipe, generator: torch.Generator
) -> None:
    """Fit `network` in place; each batch is of one of the `samples`, so that losses of pairs never mix them."""
    optimizer = torch.optim.AdamW(network.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    sizes = [len(one) for one in samples]
    steps = recipe.epochs * sum(_parts(size, recipe.batch) for size in sizes)
    drawn = (pick for _ in range(recipe.epochs) for pick in minibatches(sizes, recipe.batch, generator))
    network.train()
    for step, (which, places) in enumerate(drawn):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * max(1e-3, (1 + cos(pi * step / steps)) / 2)
        optimizer.zero_grad()
        loss(samples[which][places], generator).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.eval()


def minibatches(sizes: Sequence[int], batch: int, generator: torch.Generator) -> Iterator[tuple[int, Tensor]]:
    """Yield one epoch over several sets of samples in random order, as pairs of a set's number and places in it.

    Batches of a set differ in size by one at most, and hold at least two samples: pairs need them.
    """
    drawn = [
        (which, places)
        for which, size in enumerate(sizes)
        for places in torch.randperm(size, generator=generator).tensor_split(_parts(size, batch))
    ]
    for i in torch.randperm(len(drawn), generator=generator).tolist():
        yield drawn[i]


def _parts(size: int, batch: int) -> int:
    return max(1, min(-(-size // batch), size // 2))


def hinge_loss(
    scores: Tensor, y: Tensor, margin: float, most: int, generator: torch.Generator, group: Tensor | None = None
) -> Tensor:
    """Return the mean of `max(0, margin - (s_a - s_b))` over pairs with `y_a > y_b`; 0 where there are none.

    Args:
        scores: Shape `(n,)`.
        y: Shape `(n,)`; pairs of equal figures are dropped.
        margin: By how much scores of a pair should differ.
        most: Pairs to take; of more, so many are drawn.
        generator: Draws them.
        group: Shape `(n,)`: pairs are of one group; None for one group of all.
    """
    a, b = torch.triu_indices(len(y), len(y), 1)
    difference = y[a] - y[b]
    if group is not None:
        difference = difference * (group[a] == group[b])
    kept = difference.nonzero()[:, 0]
    if len(kept) > most:
        kept = kept[torch.randperm(len(kept), generator=generator)[:most]]
    ahead = difference[kept].sign() * (scores[a[kept]] - scores[b[kept]])
    return (margin - ahead).relu().sum() / max(1, len(kept))


class NeuralPredictor(Predictor):
    """A predictor that is a network over graphs; operations enter as descriptors, so any space will do.

    It learns the normal scores of the figures' ranks: accuracies crowd at the upper end and have a long tail of
    failures at the lower, ranks have neither. With sources, the network is first trained on them, each batch of one
    source, then fine-tuned on the target's samples. Sources may be of other spaces.

    Scores are brought to the target's unit by an affine map with a slope of at least 0 to the samples' normal scores,
    and from these to figures. The standard deviation is that of the samples around this map, with one sample more that
    is off by 1. A network fits few samples closely, so it is too small: `Ensemble` measures it on left-out samples.

    A subclass implements `_network` and `_loss`.

    Args:
        encoding: Given to the network beside the graph; None for the graph alone.
        epochs: Passes over the samples; with sources, over these.
        batch: Samples per step.
        lr: Learning rate of the first step.
        weight_decay: Weight decay.
        finetune_epochs: Passes over the samples after those over sources.
        finetune_lr: Learning rate of their first step.
        seed: Decides initial weights, order and dropout.

    Raises:
        ConfigError: If there is no epoch, or a batch is too small for a pair.
    """

    network: GraphNetwork
    _begun: tuple[GraphNetwork, Tensor, Tensor]

    def __init__(
        self,
        encoding: Encoding | None,
        epochs: int,
        batch: int,
        lr: float,
        weight_decay: float,
        finetune_epochs: int,
        finetune_lr: float,
        seed: int,
    ) -> None:
        self.encoding = encoding
        self.recipe = Recipe(epochs, batch, lr, weight_decay)
        self.finetuning = Recipe(finetune_epochs, batch, finetune_lr, weight_decay)
        self.seed = seed

    @abstractmethod
    def _network(self, features: int) -> GraphNetwork:
        """Return a fresh network for encodings of so many features."""

    @abstractmethod
    def _loss(self, network: GraphNetwork, samples: Samples, generator: torch.Generator) -> Tensor:
        """Return the loss `()` of a batch."""

    def _finish(self, samples: Samples) -> None:
        """Do what is left to do once the network is trained."""

    def _fit(self, archs: ArchBatch, y: NDArray[np.float64], sources: Sequence[SourceSamples]) -> None:
        samples = self._samples(archs, y)
        before, own, general = self._begun
        network, generator = deepcopy(before), torch.Generator()
        with torch.random.fork_rng(devices=[]):
            generator.set_state(own)
            torch.set_rng_state(general)
            recipe = self.finetuning if sources else self.recipe
            train(network, [samples], partial(self._loss, network), recipe, generator)
        self.network = network
        self._finish(samples)
        self._figures = y
        scores = self._scores(archs)
        self._check_scores(scores)
        self._calibrate(scores)

    def _fit_sources(self, space: GeneSpace, sources: Sequence[SourceSamples]) -> None:
        """Learn from sources, and keep in which state of the generators that ended: training goes on there."""
        self._check_columns(space, sources)
        generator = torch.Generator().manual_seed(self.seed)
        with torch.random.fork_rng(devices=[]):  # initial weights and dropout draw from torch's global generator
            torch.manual_seed(self.seed)
            network = self._network(len(self._columns))
            if sources:
                before = [self._samples(source.archs, source.y) for source in sources]
                train(network, before, partial(self._loss, network), self.recipe, generator)
            self._begun = network, generator.get_state(), torch.get_rng_state()

    def _check_columns(self, space: GeneSpace, sources: Sequence[SourceSamples]) -> None:
        self._columns = self._columns_of(space)
        for source in sources:
            if self._columns_of(source.archs.space) != self._columns:
                raise SourceError(
                    f"Source {source.name!r} is of {source.archs.space.name!r}, whose architectures the encoding gives "
                    f"other columns than those of {space.name!r}. Take an encoding that is the same for both "
                    "(encoding=null for none), or leave the source out."
                )

    def _check_scores(self, scores: NDArray[np.float64]) -> None:
        if not np.isfinite(scores).all():
            raise PredictorError(
                f"The training of {type(self).__name__} diverged: give a smaller lr than {self.recipe.lr:g} (and "
                f"finetune_lr than {self.finetuning.lr:g})."
            )

    def _calibrate(self, scores: NDArray[np.float64]) -> None:
        self._normal = NormalScores(self._figures)
        target = self._normal(self._figures)
        centred = scores - scores.mean()
        self._slope = max(0.0, float(centred @ target / max(centred @ centred, 1e-30)))
        self._intercept = float(target.mean() - self._slope * scores.mean())
        residual = target - self._slope * scores - self._intercept
        self._std = float(np.sqrt((residual @ residual + 1) / len(residual)))

    def _predict(self, archs: ArchBatch) -> Prediction:
        mean = self._slope * self._scores(archs) + self._intercept
        low, high = self._normal.inverse(mean - self._std), self._normal.inverse(mean + self._std)
        return Prediction(self._normal.inverse(mean), (high - low) / 2)

    @torch.no_grad()
    def _scores(self, archs: ArchBatch) -> NDArray[np.float64]:
        """Return the network's scores `(n,)`; each class is embedded once."""
        rows, place = np.unique(archs.space.canonical(archs.rows), axis=0, return_inverse=True)
        classes = ArchBatch(archs.space, rows)
        parts = [classes[start : start + _CHUNK] for start in range(0, len(classes), _CHUNK)]
        embedding = torch.cat([self.network.embed(graphs(part)) for part in parts])
        scores = self.network.score(embedding[torch.from_numpy(place.reshape(-1))], self._features(archs))
        return scores.numpy().astype(np.float64)

    def _samples(self, archs: ArchBatch, y: NDArray[np.float64]) -> Samples:
        return Samples(graphs(archs), self._features(archs), torch.from_numpy(NormalScores(y)(y)).float())

    def _features(self, archs: ArchBatch) -> Tensor:
        if self.encoding is None:
            return torch.zeros(len(archs), 0)
        return torch.tensor(self.encoding.encode(archs), dtype=torch.float32)

    def _columns_of(self, space: GeneSpace) -> list[str]:
        return [] if self.encoding is None else self.encoding.columns(search_space(ArchBatch(space, [])))

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays: Arrays = {f"network.{name}": value.numpy() for name, value in self.network.state_dict().items()}
        affine = {"slope": self._slope, "intercept": self._intercept, "std": self._std}
        return arrays | {"figures": self._figures}, affine | {"columns": self._columns}

    def _restore(self, space: GeneSpace, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        columns = self._columns_of(space)
        if columns != facts["columns"]:
            raise ValueError(f"its encoding has the columns {facts['columns']}, this one's {columns}")
        with torch.random.fork_rng(devices=[]):
            network = self._network(len(columns))
        prefix = "network."
        weights = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        self.network, self._columns, self._figures = network.eval(), columns, arrays["figures"]
        self._normal = NormalScores(self._figures)
        self._slope, self._intercept, self._std = facts["slope"], facts["intercept"], facts["std"]
