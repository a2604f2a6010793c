"""CATE (arXiv 2102.07108): vectors of a transformer that fills in the operations of architectures of similar cost."""

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from predictors.encodings.base import search_space
from predictors.encodings.corpus import Corpus, GraphEncoder, OpDecoder, Picks, mean_over_vertices
from predictors.encodings.learned import LearnedEncoding
from predictors.graphs import WIDTH, Graphs
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.task import Task

logger = logging.getLogger(__name__)

_BUILT_FOR = Task("costs", (3, 224, 224), 10)  # large enough for every scale; parameters do not depend on it
_NEAR = 0.01  # share of the architectures, in order of cost, on either side of one that it is paired with
_HIDDEN, _REPLACED = 0.8, 0.1  # of the chosen operations; the rest stay, as in arXiv 1810.04805
_INITIAL_STD = 0.02


class CATE(LearnedEncoding):
    """Vertices' vectors of a transformer, averaged over an architecture.

    In training, pairs of architectures with about as many parameters are read; some operations are hidden, and a second
    transformer that sees both fills them in. In the first one, the one that encodes, a vertex attends to itself and
    to those that lead to it, directly or not. As which edges are direct would then not show, they get a learned bias
    per head.

    Width, heads, epochs, learning rate and the share of hidden operations are the published ones. What is made for
    GPUs is smaller: 3 and 2 layers in place of 12 and 24, batches of 64 in place of 1024. Other differences: operations
    are read and filled in as descriptors, so that spaces share one network; there is no dropout; each vertex is
    squeezed to 32 entries between the transformers, whose mean is the vector, where the paper takes all 64 of the last
    vertex; and partners are drawn anew each time.

    Parameters are counted by describing each network once, which takes some milliseconds per architecture.

    Args:
        path: File of a trained encoding, whose settings replace the following; None for one that is to be trained.
        latent: Entries of a vector.
        hidden: Width of the layers.
        heads: Heads of attention; they share the width.
        layers: Layers that encode.
        cross_layers: Layers that see both architectures.
        masked: Share of the operations that are to be filled in.
        epochs: How often each architecture is seen in training.
        batch: Pairs in a batch.
        lr: Learning rate at the start.
    """

    prefix = "cate"

    def __init__(
        self,
        path: str | Path | None = None,
        latent: int = 32,
        hidden: int = 64,
        heads: int = 8,
        layers: int = 3,
        cross_layers: int = 2,
        masked: float = 0.2,
        epochs: int = 10,
        batch: int = 64,
        lr: float = 1e-3,
    ) -> None:
        sizes = {"latent": latent, "hidden": hidden, "heads": heads, "layers": layers, "cross_layers": cross_layers}
        super().__init__(path, sizes | {"masked": masked, "epochs": epochs, "batch": batch, "lr": lr})

    def _check(self) -> None:
        super()._check()
        hidden, heads, masked = (self.settings[name] for name in ("hidden", "heads", "masked"))
        if hidden % heads:
            raise ConfigError(f"Heads share the width of the layers, but hidden={hidden} is no multiple of {heads=}.")
        if masked >= 1:
            raise ConfigError(f"masked is a share of the operations, below 1, but is {masked}.")

    def _build(self) -> GraphEncoder:
        latent, hidden, heads = (int(self.settings[name]) for name in ("latent", "hidden", "heads"))
        layers, cross_layers = int(self.settings["layers"]), int(self.settings["cross_layers"])
        return _PairTransformer(latent, hidden, heads, layers, cross_layers, self.settings["masked"])

    def _costs(self, archs: ArchBatch) -> NDArray[np.float64]:
        space = search_space(archs)
        logger.info("Counting the parameters of %d networks of %s", len(archs), space.name)
        return np.array([float(space.network(row, _BUILT_FOR).params) for row in archs.rows])


class _PairTransformer(GraphEncoder):
    """A transformer per architecture, and one over the pair."""

    def __init__(self, latent: int, hidden: int, heads: int, layers: int, cross_layers: int, masked: float) -> None:
        super().__init__()
        self.masked = masked
        self.op = nn.Linear(WIDTH, hidden)
        self.hidden_op = nn.Parameter(_INITIAL_STD * torch.randn(hidden))
        self.direct = nn.Parameter(torch.zeros(layers, heads))
        self.layers = nn.ModuleList(_Layer(hidden, heads) for _ in range(layers))
        self.squeeze = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, latent))
        self.widen = nn.Linear(latent, hidden)
        self.member = nn.Parameter(_INITIAL_STD * torch.randn(2, hidden))
        self.cross = nn.ModuleList(_Layer(hidden, heads) for _ in range(cross_layers))
        self.fill = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU())
        self.word = OpDecoder(hidden, hidden)

    def vertices(self, graphs: Graphs, ops: Tensor, unread: Tensor | None = None) -> Tensor:
        """Return the vertices' vectors `(n, v, latent)`.

        Args:
            graphs: The graphs.
            ops: Descriptors to read in place of theirs.
            unread: Vertices whose operations are not read, `(n, v)`.
        """
        x = self.op(ops)
        if unread is not None:
            x = torch.where(unread[..., None], self.hidden_op, x)
        leading = _leading(graphs.incoming)[:, None]
        for layer, direct in zip(self.layers, self.direct, strict=True):
            bias = graphs.incoming[:, None] * direct[:, None, None]
            x = layer(x, bias.masked_fill(~leading, -torch.inf))
        out: Tensor = self.squeeze(x)
        return out

    def latents(self, graphs: Graphs) -> Tensor:
        """Return the vertices' vectors, averaged."""
        return mean_over_vertices(self.vertices(graphs, graphs.ops), graphs)

    def loss(self, corpus: Corpus, picks: Picks, rng: np.random.Generator) -> Tensor:
        """Return the cross-entropy of the operations to be filled in."""
        logits, labels = self._fill_in(corpus, picks, rng, _HIDDEN, _REPLACED)
        return functional.cross_entropy(logits, labels, reduction="sum") / max(1, len(labels))

    def quality(self, corpus: Corpus, rng: np.random.Generator) -> dict[str, float]:
        """Return the share of hidden operations that are filled in as they are."""
        logits, labels = self._fill_in(corpus, np.arange(len(corpus)), rng, hidden=1.0, replaced=0.0)
        return {"operations": float((logits.argmax(-1) == labels).double().mean())}

    def _fill_in(
        self, corpus: Corpus, picks: Picks, rng: np.random.Generator, hidden: float, replaced: float
    ) -> tuple[Tensor, Tensor]:
        """Return for all chosen operations how well each word fits, `(m, k)`, and which is right, `(m,)`."""
        both = corpus[np.concatenate([picks, _partners(corpus, picks, rng)])]
        chosen = _choose(both.inner, self.masked, rng)
        fate = torch.from_numpy(rng.random(chosen.shape, dtype=np.float32))
        others = both.words[torch.from_numpy(rng.integers(len(both.words), size=chosen.shape))]
        changed = chosen & (fate >= hidden) & (fate < hidden + replaced)
        ops = torch.where(changed[..., None], others, both.graphs.ops)
        x = self.widen(self.vertices(both.graphs, ops, chosen & (fate < hidden)))
        x = torch.cat([half + member for half, member in zip(x.chunk(2), self.member, strict=True)], dim=1)
        used = _side_by_side(both.graphs.used) > 0
        bias = torch.zeros(used.shape, dtype=x.dtype).masked_fill(~used, -torch.inf)[:, None, None]
        for layer in self.cross:
            x = layer(x, bias)
        where = _side_by_side(chosen)
        return self.word(self.fill(x[where]), corpus.words), _side_by_side(both.labels)[where]


class _Layer(nn.Module):
    """Attention and a feed-forward layer, each on normalised inputs and added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.read = nn.Linear(width, 3 * width)
        self.write = nn.Linear(width, width)
        self.forward_part = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return the next layer's inputs `(n, v, width)`; `bias` is added to attention, `-inf` forbids it."""
        n, v, width = x.shape
        queries, keys, values = self.read(self.norm(x)).view(n, v, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(queries, keys, values, bias)
        x = x + self.write(attended.transpose(1, 2).reshape(n, v, width))
        out: Tensor = x + self.forward_part(x)
        return out


def _side_by_side(x: Tensor) -> Tensor:
    """Return what is known of the vertices of first and second members, `(2n, v)`, by pair: `(n, 2v)`."""
    return torch.cat(x.chunk(2), dim=1)


def _leading(incoming: Tensor) -> Tensor:
    """Tell at `[i, b, a]` whether a path leads from vertex a to vertex b, of length 0 or more; bool."""
    reached = (incoming + torch.eye(incoming.shape[-1], dtype=incoming.dtype)).clamp(max=1)
    for _ in range(max(1, incoming.shape[-1] - 1).bit_length()):
        reached = (reached @ reached).clamp(max=1)
    return reached > 0


def _partners(corpus: Corpus, picks: Picks, rng: np.random.Generator) -> Picks:
    """Draw for each pick another architecture of about its cost."""
    assert corpus.costs is not None
    count = len(corpus)
    order = np.lexsort((rng.random(count), corpus.costs))  # those of one cost in random order
    place = np.argsort(order)[picks]
    window = max(1, round(_NEAR * count))
    low, high = np.maximum(place - window, 0), np.minimum(place + window, count - 1)
    drawn = low + (rng.random(len(picks)) * (high - low)).astype(np.int64)
    return np.asarray(order[np.minimum(drawn + (drawn >= place), count - 1)])


def _choose(inner: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Choose that share of the inner vertices, and at least one of each architecture that has any; `(n, v)`, bool."""
    draw = torch.from_numpy(rng.random(inner.shape, dtype=np.float32)).masked_fill(~inner, 2.0)
    least = draw == draw.min(dim=1, keepdim=True).values
    return inner & ((draw < share) | least)
