"""Arch2Vec (arXiv 2006.06936): the latent space of a variational graph auto-encoder."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from predictors.encodings.corpus import Corpus, GraphEncoder, OpDecoder, Picks, mean_over_vertices
from predictors.encodings.learned import LearnedEncoding
from predictors.graphs import WIDTH, Graphs

_INITIAL_LOG_STD = -2.0


class Arch2Vec(LearnedEncoding):
    """Means of the posterior of a variational graph auto-encoder, averaged over an architecture's vertices.

    A graph isomorphism network, which follows edges both ways, gives each vertex a Gaussian; from a draw of it, edges
    are decoded as inner products and operations by a linear layer.

    Width, layers and learning rate are the published ones; there are 32 latent dimensions, as in arXiv 2403.02484, and
    not 16. Other differences: operations are read and decoded as descriptors, so that spaces share one network; layers
    are normalised by vertex and not by batch, as a batch is of one space, and are added to what they read; edges have a
    learned level; there is no dropout; and 20 epochs of larger batches take the place of 10, which suits a CPU. Long
    chains are decoded badly, for but for their operations their vertices look alike.

    Args:
        path: File of a trained encoding, whose settings replace the following; None for one that is to be trained.
        latent: Entries of a vector.
        hidden: Width of the layers.
        layers: Their number.
        beta: Weight of the divergence from the prior.
        epochs: How often each architecture is seen in training.
        batch: Architectures in a batch.
        lr: Learning rate at the start.
    """

    prefix = "arch2vec"

    def __init__(
        self,
        path: str | Path | None = None,
        latent: int = 32,
        hidden: int = 128,
        layers: int = 5,
        beta: float = 0.005,
        epochs: int = 20,
        batch: int = 64,
        lr: float = 1e-3,
    ) -> None:
        sizes = {"latent": latent, "hidden": hidden, "layers": layers, "beta": beta}
        super().__init__(path, sizes | {"epochs": epochs, "batch": batch, "lr": lr})

    def _build(self) -> GraphEncoder:
        latent, hidden, layers = (int(self.settings[name]) for name in ("latent", "hidden", "layers"))
        return _AutoEncoder(latent, hidden, layers, self.settings["beta"])


class _AutoEncoder(GraphEncoder):
    """Graph isomorphism network, Gaussian latents of vertices, decoder of edges and operations."""

    def __init__(self, latent: int, hidden: int, layers: int, beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.own = nn.Parameter(torch.zeros(layers))
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(hidden if i else WIDTH, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.LayerNorm(hidden),
                nn.ReLU(),
            )
            for i in range(layers)
        )
        self.mean = nn.Linear(hidden, latent)
        self.log_std = nn.Linear(hidden, latent)
        nn.init.constant_(self.log_std.bias, _INITIAL_LOG_STD)
        self.op = OpDecoder(latent, hidden)
        self.edge = nn.Parameter(torch.zeros(()))

    def posterior(self, graphs: Graphs) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the standard deviation of each vertex's latents, both `(n, v, latent)`."""
        neighbours = graphs.incoming + graphs.incoming.mT
        used = graphs.used[..., None]
        x = graphs.ops
        for i, (own, layer) in enumerate(zip(self.own, self.layers, strict=True)):
            y = layer((1 + own) * x + neighbours @ x) * used
            x = x + y if i else y
        return self.mean(x), self.log_std(x)

    def latents(self, graphs: Graphs) -> Tensor:
        """Return the means, averaged over vertices."""
        return mean_over_vertices(self.posterior(graphs)[0], graphs)

    def loss(self, corpus: Corpus, picks: Picks, rng: np.random.Generator) -> Tensor:
        """Return what a draw of the latents costs: edges and operations it decodes wrongly, and the divergence."""
        batch = corpus[picks]
        mean, log_std = self.posterior(batch.graphs)
        noise = torch.from_numpy(rng.standard_normal(mean.shape, dtype=np.float32))
        z = mean + noise * log_std.exp()
        used = batch.graphs.used > 0
        pairs = _pairs(used)
        edges = functional.binary_cross_entropy_with_logits(self._edges(z)[pairs], batch.graphs.incoming.mT[pairs])
        ops = functional.cross_entropy(self.op(z[used], batch.words), batch.labels[used])
        divergence = (mean**2 + (2 * log_std).exp() - 1 - 2 * log_std).sum(-1)[used].mean() / 2
        return edges + ops + self.beta * divergence

    def _edges(self, z: Tensor) -> Tensor:
        """Return the logits of edges between vertices with latents `z`, shape `(n, v, v)`, symmetric."""
        return z @ z.mT + self.edge

    def quality(self, corpus: Corpus, rng: np.random.Generator) -> dict[str, float]:
        """Return the shares of operations, of edges and of whole architectures that are decoded as they are."""
        z = self.posterior(corpus.graphs)[0]
        pairs = _pairs(corpus.graphs.used > 0)
        edges = ((self._edges(z) > 0) == (corpus.graphs.incoming.mT > 0)) | ~pairs
        ops = (self.op(z, corpus.words).argmax(-1) == corpus.labels) | ~corpus.inner
        whole = edges.all(-1).all(-1) & ops.all(-1)
        return {
            "operations": float(ops[corpus.inner].double().mean()),
            "edges": float(edges[pairs].double().mean()),
            "architectures": float(whole.double().mean()),
        }


def _pairs(used: Tensor) -> Tensor:
    """Tell between which vertices an edge may be, a to b at `[i, a, b]`: used ones in topological order."""
    return (used[:, :, None] & used[:, None, :]).triu(1)
