"""What latency predictors that are networks share: learning many devices once, adapting to one at a time."""

from abc import abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from predictors.accuracy.encoded import Vector
from predictors.base import Prediction, SourceSamples
from predictors.encodings import Encoding
from predictors.graphs import Graphs, graphs
from predictors.latency.lines import rank_correlation
from predictors.normalisation import Logarithm
from predictors.training import GraphNetwork, NeuralPredictor, Recipe, Samples, train
from searchspaces.arch import ArchBatch
from searchspaces.genes import GeneSpace

_LEAST_SLOPE = 1e-6  # scores keep their order whatever the samples say


@dataclass(frozen=True)
class DeviceSamples(Samples):
    """Latencies on several devices.

    Attributes:
        graphs: Architectures `(m,)`, each of which may have been measured on several devices.
        features: Their encoding `(m, k)`.
        y: What the network is to learn of the latencies, shape `(n,)`.
        device: The latencies' devices `(n,)`.
        place: The latencies' architectures `(n,)`.
    """

    device: Tensor
    place: Tensor

    def __getitem__(self, index: Tensor) -> "DeviceSamples":
        at = self.place[index]
        where = torch.arange(len(at))
        return DeviceSamples(self.graphs[at], self.features[at], self.y[index], self.device[index], where)


class LatencyNetwork(NeuralPredictor):
    """A network that is trained on all source devices together, then fine-tuned on the target's samples.

    What was learned from the sources is kept: fitting again with the same ones only fine-tunes, and finds what fitting
    from scratch would have found. Sources may be of other spaces, unless the encoding has other columns there. Without
    sources, the network is trained on the samples alone.

    Scores are brought to logarithms of latencies by an affine map that rises, fitted to the samples. The standard
    deviation is that of samples which further fine-tunings had not seen, with one sample more that is off by as much as
    the samples spread. Predicted are the median and the standard deviation of a log-normal distribution, in the unit of
    the samples.

    A subclass implements `_network` and `_loss`.

    Args:
        encoding: Given to the network beside the graph; None for the graph alone.
        recipe: How to train on the sources, or on the samples where there are none.
        finetuning: How to train on the samples.
        folds: Parts of the samples that are left out in turn to find the standard deviation, which takes as many
            fine-tunings; 0 to take that of the samples learned from, which is too small.
        seed: Decides initial weights, order and dropout.

    Raises:
        ConfigError: If there is no epoch, or a batch is too small for a pair.
    """

    _before: nn.Module
    _sources: list[SourceSamples]

    def __init__(self, encoding: Encoding | None, recipe: Recipe, finetuning: Recipe, folds: int, seed: int) -> None:
        self.encoding, self.recipe, self.finetuning, self.folds, self.seed = encoding, recipe, finetuning, folds, seed

    def _targets(self, y: Vector) -> Vector:
        """Return what the network is to learn of a device's latencies `(n,)`: they are scaled to 0 to 1."""
        return np.asarray((y - y.min()) / np.ptp(y))

    # -- learning ---------------------------------------------------------------------------------------------------

    def _fit(self, archs: ArchBatch, y: Vector, sources: Sequence[SourceSamples]) -> None:
        self._figures, logs = y, Logarithm(y)(y)
        own = SourceSamples(archs, y, "")
        with torch.random.fork_rng(devices=[]):  # initial weights and dropout draw from torch's global generator
            left_out = self._left_out(own, logs)
            self.network = self._adapted(own, self.seed)
        scores = self._scores(archs)
        self._check_scores(scores)
        self._slope, self._intercept = _line(scores, logs)
        errors = logs - self._slope * scores - self._intercept if left_out is None else left_out
        self._std = float(np.sqrt((errors @ errors + logs.var()) / len(errors)))

    def _fit_sources(self, space: GeneSpace, sources: Sequence[SourceSamples]) -> None:
        self._check_columns(space, sources)
        self._sources = list(sources)
        for source in sources:
            Logarithm(source.y)  # refuses what is no latency
        if sources:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self._before = self._pretrained(sources)

    def _pretrained(self, sources: Sequence[SourceSamples]) -> nn.Module:
        """Return what has learned the sources."""
        network = self._fresh(len(sources))
        self._train(network, self._together(sources), self.recipe, self.seed)
        return network

    def _fresh(self, devices: int) -> GraphNetwork:
        """Return a fresh network for so many devices."""
        return self._network(len(self._columns))

    def _start(self, samples: DeviceSamples, y: Vector) -> GraphNetwork:
        """Return what fine-tuning on latencies `(n,)` begins with: a copy of what has learned the sources."""
        return cast("GraphNetwork", deepcopy(self._before))

    def _adapted(self, own: SourceSamples, seed: int) -> GraphNetwork:
        """Return a network for the samples' device, and leave what was learned before as it was."""
        torch.manual_seed(seed)
        samples = self._together([own])
        network = self._start(samples[0], own.y) if self._sources else self._fresh(1)
        self._train(network, samples, self.finetuning if self._sources else self.recipe, seed)
        return network

    def _tried(self, own: SourceSamples) -> GraphNetwork:
        """Return what is asked for left-out samples in place of what `_adapted` returns."""
        return self._adapted(own, self.seed)

    def _train(self, network: GraphNetwork, samples: Sequence[Samples], recipe: Recipe, seed: int) -> None:
        def loss(batch: Samples, generator: torch.Generator) -> Tensor:
            return self._loss(network, batch, generator)

        train(network, samples, loss, recipe, torch.Generator().manual_seed(seed))

    def _together(self, sources: Sequence[SourceSamples]) -> list[DeviceSamples]:
        """Return the latencies of all devices, those of one space together, each architecture once."""
        spaces: dict[str, list[int]] = {}
        for i, source in enumerate(sources):
            spaces.setdefault(source.archs.space.fingerprint, []).append(i)
        return [self._of_one_space(devices, [sources[i] for i in devices]) for devices in spaces.values()]

    def _of_one_space(self, devices: Sequence[int], sources: Sequence[SourceSamples]) -> DeviceSamples:
        space = sources[0].archs.space
        rows, place = np.unique(np.concatenate([s.archs.rows for s in sources]), axis=0, return_inverse=True)
        archs = ArchBatch(space, rows)
        y = np.concatenate([self._targets(source.y) for source in sources])
        device = np.repeat(devices, [len(source.y) for source in sources])
        return DeviceSamples(
            graphs(archs),
            self._features(archs),
            torch.from_numpy(y).float(),
            torch.from_numpy(device),
            torch.from_numpy(place.reshape(-1)),
        )

    def _left_out(self, own: SourceSamples, logs: Vector) -> Vector | None:
        """Return the errors `(n,)` in samples that were left out; None where there are too few to leave any out."""
        folds = np.random.default_rng(self.seed).permutation(len(logs)) % max(1, min(self.folds, len(logs) // 2))
        if not (self.calibrates and folds.any()):
            return None
        errors = np.empty(len(logs))
        for fold in range(int(folds.max()) + 1):
            out, kept = folds == fold, folds != fold
            if np.ptp(own.y[kept]) == 0:
                return None
            self.network = self._tried(SourceSamples(own.archs[kept], own.y[kept], own.name))
            scores = self._scores(own.archs)
            self._check_scores(scores)
            slope, intercept = _line(scores[kept], logs[kept])
            errors[out] = logs[out] - slope * scores[out] - intercept
        return errors

    # -- predicting ----------------------------------------------------------------------------------------------------

    def _predict(self, archs: ArchBatch) -> Prediction:
        mean = self._slope * self._scores(archs) + self._intercept
        return Prediction(*Logarithm(np.ones(1)).restored(mean, np.full(len(mean), self._std)))


class DeviceNetwork(GraphNetwork):
    """A network that tells devices apart by learned vectors.

    Args:
        devices: Number of devices.
        width: Length of their vectors.
    """

    def __init__(self, devices: int, width: int) -> None:
        super().__init__()
        self.hardware = nn.Parameter(torch.randn(devices, width))

    def of(self, device: Tensor | None, n: int) -> Tensor:
        """Return the vectors `(n, width)` of devices `(n,)`; of the first one for None."""
        return self.hardware[:1].expand(n, -1) if device is None else self.hardware[device]

    @abstractmethod
    def embed(self, graphs: Graphs, device: Tensor | None = None) -> Tensor:
        """Return vectors `(n, width)` of graphs on devices `(n,)`; on the first one for None."""

    @abstractmethod
    def score(self, embedding: Tensor, features: Tensor, device: Tensor | None = None) -> Tensor:
        """Return the scores `(n,)` of architectures with embeddings `(n, width)` and encodings `(n, k)`."""

    def forward(self, samples: DeviceSamples) -> Tensor:
        """Return the scores `(n,)` of a batch, each on its own device."""
        return self.score(self.embed(samples.graphs, samples.device), samples.features, samples.device)


class DeviceEmbedding(LatencyNetwork):
    """A network to which a device is a learned vector.

    Fine-tuning begins at the vector of that source device which ranks the samples most alike: by what the network
    predicts for it, for nothing says that the samples were measured there, too.

    A subclass implements `_network_of` in place of `_network`.

    Attributes:
        device: Name of that device, after a fit with sources.
    """

    device: str | None = None

    @abstractmethod
    def _network_of(self, features: int, devices: int) -> DeviceNetwork:
        """Return a fresh network for encodings of so many features, and so many devices."""

    def _network(self, features: int) -> GraphNetwork:
        return self._network_of(features, 1)

    def _fit_sources(self, space: GeneSpace, sources: Sequence[SourceSamples]) -> None:
        self.device = None
        super()._fit_sources(space, sources)

    def _fresh(self, devices: int) -> GraphNetwork:
        return self._network_of(len(self._columns), devices)

    def _start(self, samples: DeviceSamples, y: Vector) -> GraphNetwork:
        network = cast("DeviceNetwork", deepcopy(self._before))
        count = len(network.hardware)
        everywhere = samples[torch.arange(len(y)).repeat(count)]
        with torch.no_grad():
            scores = network(replace(everywhere, device=torch.arange(count).repeat_interleave(len(y))))
        alike = [rank_correlation(row, y) for row in scores.view(count, -1).double().numpy()]
        best = int(np.argmax(alike))
        self.device = self._sources[best].name
        network.hardware = nn.Parameter(network.hardware[[best]].detach().clone())
        return network


def _line(scores: Vector, logs: Vector) -> tuple[float, float]:
    """Return slope, above 0, and intercept of logarithms over scores, by least squares."""
    centred = scores - scores.mean()
    slope = max(_LEAST_SLOPE, float(centred @ logs / max(centred @ centred, 1e-30)))
    return slope, float(logs.mean() - slope * scores.mean())
