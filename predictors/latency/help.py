"""HELP (arXiv 2106.08630): a network meta-learned over devices, which a few latencies adapt to a new one."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from predictors.accuracy.encoded import Vector
from predictors.accuracy.layers import mlp
from predictors.base import SourceError, SourceSamples
from predictors.encodings import Encoding
from predictors.graphs import WIDTH, Graphs
from predictors.latency.neural import DeviceSamples, LatencyNetwork
from predictors.similarity import side_by_side, similarity
from predictors.training import GraphNetwork, Recipe, Samples, fast_products
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, PredictorError
from searchspaces.genes import GeneSpace

_MODULATION = 0.01  # by how much a modulator of 1 scales a layer's output
_KL = 0.1  # weight of the modulator's divergence from a normal distribution
_NOISE = 0.01  # of a latency, to estimate that of another architecture; the kernel's variance is about 1
_HELD_OUT = 8  # one of so many architectures of the sources is held out
_CHECKED, _CHECKS = 50, 4  # episodes between looks at those, and episodes of such a look
_PATIENCE = 20  # looks that find nothing better, after which no more is learned
_FIRST_RATE = 1e-3  # learning rate of every parameter before any is learned

Inputs = tuple[Tensor, ...]
Weights = dict[str, Tensor]


class HelpNetwork(nn.Module):
    """The network of `HELP`: scores architectures on a device.

    Args:
        features: Entries of the encoding; 0 to read the graph.
        references: Entries of the hardware embedding.
        layers: Graph convolutions.
        width: Width of the embeddings of architecture and hardware.
    """

    def __init__(self, features: int, references: int, layers: int, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Linear(width if i else WIDTH, width) for i in range(0 if features else layers)
        )
        self.encode = nn.Linear(features or width, width)
        self.hardware = mlp(references, [width], width)
        self.head = nn.ModuleList([nn.Linear(2 * width, 2 * width), nn.Linear(2 * width, 2 * width)])
        self.last = nn.Linear(2 * width, 1)

    @property
    def modulated(self) -> int:
        """Number of outputs that a modulator scales."""
        return sum(cast("nn.Linear", layer).out_features for layer in (*self.head, self.last))

    def forward(self, inputs: Inputs, hardware: Tensor, z: Tensor) -> Tensor:
        """Return the scores `(n,)`.

        Args:
            inputs: The encoding `(n, features)`; or edges `(n, v, v)` and operations `(n, v, WIDTH)`, as `convolved`
                gives them.
            hardware: The hardware embedding `(references,)`.
            z: The modulator `(modulated,)`.
        """
        x = inputs[-1]
        for convolution in self.convolutions:
            x = (inputs[0] @ convolution(x)).relu()
        x = x[:, -1] if len(self.convolutions) else x
        both = torch.cat([self.encode(x).relu(), self.hardware(hardware).relu().expand(len(x), -1)], 1)
        at = 0
        for layer in self.head:
            scale = 1 + _MODULATION * z[at : at + both.shape[1]]
            at += both.shape[1]
            both = (layer(both) * scale).relu()
        return cast("Tensor", (self.last(both) * (1 + _MODULATION * z[at:]))[:, 0])


def convolved(graphs: Graphs) -> Inputs:
    """Return normalised edges `(n, v + 1, v + 1)` and operations of graphs, the last vertex of which is a global one.

    Edges carry both ways; the global vertex takes in from all used ones and gives nothing back.
    """
    both = torch.maximum(graphs.incoming, graphs.incoming.mT)
    edges = functional.pad(torch.cat([both, graphs.used[:, None]], 1), (0, 1)) + torch.eye(both.shape[-1] + 1)
    root = edges.sum(-1).rsqrt()
    return root[..., None] * edges * root[:, None], functional.pad(graphs.ops, (0, 0, 0, 1))


class MetaNetwork(nn.Module):
    """What is learned over devices: weights to begin with, how fast each of them adapts, and the modulator.

    Args:
        network: The network.
        hardware: The hardware embeddings of the source devices `(devices, references)`.
        width: Width of the modulator's hidden layer.
    """

    hardware: Tensor

    def __init__(self, network: HelpNetwork, hardware: Tensor, width: int) -> None:
        super().__init__()
        self.network = network
        self.names = [name for name, _ in network.named_parameters()]
        self.rates = nn.ParameterList(torch.full_like(p, _FIRST_RATE) for p in network.parameters())
        self.modulator = mlp(hardware.shape[1], [width], 2 * network.modulated)
        self.register_buffer("hardware", hardware)

    def modulators(self, hardware: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw one modulator for each embedding `(k, references)`; return them and their mean divergence."""
        mean, spread = self.modulator(hardware).chunk(2, 1)
        noise = torch.empty_like(mean).normal_(generator=generator)
        divergence = (mean**2 + spread.exp() - spread - 1) / 2
        return mean + (spread / 2).exp() * noise, divergence.mean()

    def adapted(self, steps: int, hardware: Tensor, z: Tensor, inputs: Inputs, y: Tensor) -> Weights:
        """Return the weights after some steps on latencies `(n,)` of one device, each with a rate of its own."""
        weights: Weights = dict(self.network.named_parameters())
        rates = dict(zip(self.names, self.rates, strict=True))

        def loss(weights: Weights) -> Tensor:
            return functional.mse_loss(functional_call(self.network, weights, (inputs, hardware, z)), y)

        for _ in range(steps):
            slopes = grad(loss)(weights)
            weights = {name: weight - rates[name] * slopes[name] for name, weight in weights.items()}
        return weights


class Adapted(GraphNetwork):
    """Networks of one device, one for each modulator drawn, whose scores are averaged.

    Args:
        network: What they are like.
        draws: Number of modulators.
        references: Entries of the hardware embedding.
    """

    hardware: Tensor
    z: Tensor

    def __init__(self, network: HelpNetwork, draws: int, references: int) -> None:
        super().__init__()
        self._like = (network,)  # in a tuple, for its own weights are not used
        self.register_buffer("hardware", torch.zeros(references))
        self.register_buffer("z", torch.zeros(draws, network.modulated))
        for name, weight in network.named_parameters():
            self.register_buffer(name.replace(".", "/"), weight.detach().expand(draws, *weight.shape).clone())

    def embed(self, graphs: Graphs) -> Tensor:
        """Return the scores `(n, 1)` where the network reads graphs, else nothing `(n, 0)`."""
        if not len(self._like[0].convolutions):
            return torch.zeros(len(graphs), 0)
        return self._mean(convolved(graphs))[:, None]

    def score(self, embedding: Tensor, features: Tensor) -> Tensor:
        """Return the scores `(n,)`."""
        return embedding[:, 0] if len(self._like[0].convolutions) else self._mean((features,))

    def _mean(self, inputs: Inputs) -> Tensor:
        names = [name for name, _ in self._like[0].named_parameters()]
        weights = {name: self.get_buffer(name.replace(".", "/")) for name in names}

        def scores(weights: Weights, z: Tensor) -> Tensor:
            return cast("Tensor", functional_call(self._like[0], weights, (inputs, self.hardware, z)))

        return vmap(scores)(weights, self.z).mean(0)


class HELP(LatencyNetwork):
    """HELP (arXiv 2106.08630): a network that learns, over many devices, to adapt to one from few latencies.

    A device is described by the latencies of ten reference architectures on it, scaled to the range from 0 to 1. In
    each episode, the weights take two gradient steps on a few latencies of a device, and the error on others is what
    the weights at the start, the rate of each weight (Meta-SGD) and the modulator learn from, through the steps. The
    modulator draws numbers from the device's description that scale the outputs of the last three layers.
    Predictions are means over several draws; errors are squared.

    The latencies of some hundred architectures are learned by heart long before the last episode. So an eighth of the
    architectures is held out, those weights are kept that err least there, after adapting, and learning ends after a
    thousand episodes that brought nothing.

    References are drawn from the architectures that were measured on all sources, unless they are given. What the
    samples do not hold of them is estimated from the samples, by kernel regression over the encoding: a new device is
    then described with error, but no latency is used beyond the samples. It is better to measure them
    (`references_of`): on task FD of the suite, with 10, 20 and 50 samples, Spearman's coefficient was 0.90, 0.89, 0.89
    with measured references and 0.85, 0.87, 0.83 with estimates (one seed, 4,000 architectures per source). All samples
    serve in the gradient steps; published are ten for the description and ten for the steps. That modulators scale
    outputs, that their divergence is averaged, the scale of the latencies and what is held out are this project's
    reading.

    Args:
        encoding: What architectures are described by; estimates of references rest on it in any case.
        graph: Whether the network reads the graph in place of the encoding, by graph convolutions.
        layers: Graph convolutions.
        width: Width of the embeddings of architecture and hardware; the last layers are twice as wide.
        references: Number of reference architectures; or these, in the space's notation.
        episodes: Most steps of meta-learning; published are 2,000 for cells and 4,000 for chains of blocks.
        devices: Source devices per episode.
        support: Latencies of a device that an episode adapts to.
        query: Latencies of a device that it is then tested on.
        steps: Gradient steps of an adaptation.
        lr: Learning rate of Adam.
        draws: Modulators drawn for a prediction.
        folds: Parts of the samples that are left out in turn to find the standard deviation; see `LatencyNetwork`.
        seed: Decides initial weights, references and episodes.

    Raises:
        ConfigError: If there are no episodes, or fewer than two references.
        PredictorError: On fitting, if there are no sources, or they have too few architectures in common.
    """

    _before: MetaNetwork

    def __init__(
        self,
        encoding: Encoding,
        graph: bool = False,
        layers: int = 4,
        width: int = 100,
        references: int | Sequence[str] = 10,
        episodes: int = 4000,
        devices: int = 8,
        support: int = 10,
        query: int = 200,
        steps: int = 2,
        lr: float = 1e-4,
        draws: int = 10,
        folds: int = 4,
        seed: int = 0,
    ) -> None:
        recipe = Recipe(episodes, max(2, devices), lr, 0.0)
        super().__init__(encoding, recipe, recipe, folds, seed)
        self.graph, self.layers, self.width, self.references = graph, layers, width, references
        self.described_by = references if isinstance(references, int) else len(references)
        if self.described_by < 2:
            raise ConfigError(f"HELP tells devices apart by two references or more, but got {references!r}.")
        self.support, self.query, self.steps, self.draws = support, query, steps, draws

    def _check_columns(self, space: GeneSpace, sources: Sequence[SourceSamples]) -> None:
        super()._check_columns(space, sources)
        own = space.fingerprint
        for source in sources:
            if source.archs.space.fingerprint != own:
                raise SourceError(
                    f"HELP describes devices by the same architectures, but source {source.name!r} is of "
                    f"{source.archs.space.fingerprint} and the samples of {own}. Leave it out, or take a predictor "
                    "that learns across spaces, such as predictor=latency_nasflat."
                )
        if not sources:
            raise PredictorError(
                "HELP learns how devices differ: give figures of at least one other device, or take "
                "predictor=latency_gp."
            )

    def _targets(self, y: Vector) -> Vector:
        """Return latencies `(n,)` with one mean and deviation, mostly within 0 to 1, whatever their number.

        Few span a smaller range than many: scaled by it, they would look to the gradient steps as no device did before.
        """
        return np.asarray(0.5 + (y - y.mean()) / (4 * y.std()))

    # -- meta-learning -------------------------------------------------------------------------------------------------

    def _plain(self, features: int) -> HelpNetwork:
        return HelpNetwork(0 if self.graph else features, self.described_by, self.layers, self.width)

    def _network(self, features: int) -> GraphNetwork:
        return Adapted(self._plain(features), self.draws, self.described_by)

    @fast_products()
    def _pretrained(self, sources: Sequence[SourceSamples]) -> nn.Module:
        self._anchors = self.references_of(sources)
        hardware = torch.stack([self._described(source) for source in sources])
        meta = MetaNetwork(self._plain(len(self._columns)), hardware, self.width)
        (samples,) = self._together(sources)
        samples, held_out = self._apart(samples)
        generator = torch.Generator().manual_seed(self.seed)
        optimizer = torch.optim.Adam(meta.parameters(), self.recipe.lr, fused=True)
        least, best, since = np.inf, deepcopy(meta.state_dict()), 0
        for episode in range(1, self.recipe.epochs + 1):
            optimizer.zero_grad()
            self._loss(meta, samples, generator).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if held_out is not None and (episode % _CHECKED == 0 or episode == self.recipe.epochs):
                error = self._error(meta, held_out)
                since += 1
                if error < least:
                    least, best, since = error, deepcopy(meta.state_dict()), 0
                if since == _PATIENCE:
                    break
        if held_out is not None:
            self._check_scores(np.array([least]))
            meta.load_state_dict(best)
        return meta

    def _apart(self, samples: DeviceSamples) -> tuple[DeviceSamples, DeviceSamples | None]:
        """Hold out an eighth of the architectures, where that is enough to adapt to some and be tested on as many."""
        order = np.random.default_rng(self.seed).permutation(len(samples.graphs))
        held = torch.from_numpy(np.isin(samples.place.numpy(), order[: len(order) // _HELD_OUT]))
        if int(torch.bincount(samples.device[held], minlength=int(samples.device.max()) + 1).min()) < 2 * self.support:
            return samples, None
        return _those(samples, ~held), _those(samples, held)

    def _error(self, meta: MetaNetwork, held_out: DeviceSamples) -> float:
        """Return the mean loss of a few episodes, the same ones each time."""
        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            return float(torch.stack([self._loss(meta, held_out, generator) for _ in range(_CHECKS)]).mean())

    def _loss(self, network: nn.Module, samples: Samples, generator: torch.Generator) -> Tensor:
        """Return the loss of an episode over latencies of all devices."""
        assert isinstance(samples, DeviceSamples)
        meta = cast("MetaNetwork", network)
        of = [torch.nonzero(samples.device == d)[:, 0] for d in range(len(meta.hardware))]
        support, drawn = self.support, min(self.support + self.query, *map(len, of))
        which = torch.randperm(len(of), generator=generator)[: self.recipe.batch].tolist()
        picked = torch.stack([of[d][torch.randperm(len(of[d]), generator=generator)[:drawn]] for d in which])
        inputs, y, hardware = self._inputs(samples, picked), samples.y[picked], meta.hardware[which]
        z, divergence = meta.modulators(hardware, generator)

        def scores(hardware: Tensor, z: Tensor, y: Tensor, *inputs: Tensor) -> Tensor:
            weights = meta.adapted(self.steps, hardware, z, tuple(part[:support] for part in inputs), y[:support])
            rest = tuple(part[support:] for part in inputs)
            return cast("Tensor", functional_call(meta.network, weights, (rest, hardware, z)))

        errors = functional.mse_loss(vmap(scores)(hardware, z, y, *inputs), y[:, support:])
        return errors + _KL * divergence

    def _inputs(self, samples: DeviceSamples, picked: Tensor) -> Inputs:
        """Return what the network reads of the architectures of latencies `picked`, of any shape."""
        place = samples.place[picked]
        if not self.graph:
            return (samples.features[place],)
        parts = convolved(samples.graphs[place.reshape(-1)])
        return tuple(part.view(*place.shape, *part.shape[1:]) for part in parts)

    def references_of(self, sources: Sequence[SourceSamples]) -> ArchBatch:
        """Return the architectures by whose latencies devices are described, with these sources.

        Raises:
            PredictorError: If too few were measured on all of them.
            ArchitectureError: If references were given that are not of the space.
        """
        first = sources[0].archs.unique()
        shared = set(first.keys()).intersection(*(source.archs.keys() for source in sources[1:]))
        places = [i for i, key in enumerate(first.keys()) if key in shared]
        least = min(len(source.y) for source in sources) - self.support
        drawn = self.references if isinstance(self.references, int) else 0
        if len(places) < drawn or least < 1:
            raise PredictorError(
                f"HELP needs {self.described_by} architectures that were measured on every source device, and more "
                f"than {self.support} on each, but {len(places)} are common to all, and one device has "
                f"{least + self.support}. Give fewer references or a smaller support, or leave devices out."
            )
        if not isinstance(self.references, int):
            return ArchBatch.parse(first.space, self.references)
        return first[np.random.default_rng(self.seed).permutation(places)[:drawn]]

    def _described(self, own: SourceSamples) -> Tensor:
        """Return the hardware embedding `(references,)`: latencies of the references, estimated where not measured."""
        known = dict(zip(own.archs.keys(), own.y, strict=True))
        keys = self._anchors.keys()
        if any(key not in known for key in keys):
            assert self.encoding is not None
            ours, theirs = (side_by_side(self.encoding, archs) for archs in (own.archs, self._anchors))
            level, spread = own.y.mean(), own.y.std()
            kernel = similarity(ours, ours) + _NOISE * np.eye(len(ours))
            weights = np.linalg.solve(kernel, (own.y - level) / spread)
            estimates = level + spread * (similarity(theirs, ours) @ weights)
            known = dict(zip(keys, estimates, strict=True)) | known
        latencies = np.array([known[key] for key in keys])
        return torch.from_numpy((latencies - latencies.min()) / max(np.ptp(latencies), 1e-12)).float()

    # -- adapting ------------------------------------------------------------------------------------------------------

    def _adapted(self, own: SourceSamples, seed: int) -> GraphNetwork:
        (samples,) = self._together([own])
        hardware, meta = self._described(own), self._before
        everything = torch.arange(len(samples))
        network = Adapted(meta.network, self.draws, self.described_by)
        with torch.no_grad():
            z, _ = meta.modulators(hardware.expand(self.draws, -1), torch.Generator().manual_seed(seed))
            adapted = partial(meta.adapted, self.steps, hardware, inputs=self._inputs(samples, everything), y=samples.y)
            weights = vmap(lambda z: adapted(z=z))(z)
        state = {name.replace(".", "/"): weight.detach() for name, weight in weights.items()}
        network.load_state_dict(state | {"hardware": hardware, "z": z})
        return network.eval()


def _those(samples: DeviceSamples, which: Tensor) -> DeviceSamples:
    """Return some latencies, beside the architectures of all."""
    return replace(samples, y=samples.y[which], device=samples.device[which], place=samples.place[which])
