"""What learned encodings share: training without figures, standardised vectors, the file."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from predictors.encodings.arrays import load_arrays, load_facts, save_arrays
from predictors.encodings.base import Encoding, Features, search_space
from predictors.encodings.corpus import Corpus, GraphEncoder, corpus
from predictors.encodings.training import Hold, Report, train
from predictors.graphs import WIDTH, Graphs, graphs
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, PredictorError
from searchspaces.files import located
from searchspaces.genes import Rows
from searchspaces.space import SearchSpace

SCHEMA_VERSION = 1
_BATCH = 512  # architectures encoded at a time
_HELD_OUT = 0.05
_LEAST = 40  # architectures of a space, of which two are held out
_LEAST_SPREAD = 1e-3  # of an entry, in that of the widest: below it, an entry holds nothing
_TINY = 1e-12
_REMEDY = "Train the encoding again: nasflow fit encoding=NAME."


class LearnedEncoding(Encoding):
    """Vectors of a network that was trained on architectures alone.

    Each entry is shifted and scaled to mean 0 and standard deviation 1 over the architectures that it was trained on.
    As operations enter as descriptors, every search space can be encoded. In one that it was not trained on, entries
    may lie farther from 0, and less of an architecture may show.

    What the graph of an architecture does not show, such as the resolution of its images, its vector does not either.

    Args:
        path: File of a trained encoding, whose settings replace those given; `pkg://PACKAGE/FILE` is one of an
            installed package. None for an encoding that is to be trained.
        settings: Sizes of the network, and how it is trained.

    Attributes:
        settings: Those in use.
        facts: What there is to tell of the training: fingerprints of the `spaces`, `quality` on architectures that
            were held out, and what else was given to `save`.

    Raises:
        ConfigError: If a setting is out of range.
        PredictorError: If the file is missing or damaged, or is of another encoding or schema version.
    """

    prefix: ClassVar[str]

    def __init__(self, path: str | Path | None, settings: Mapping[str, int | float]) -> None:
        self.settings = dict(settings)
        self.facts: dict[str, Any] = {}
        self._network: GraphEncoder | None = None
        self._mean = self._std = np.ones(0)
        if path is None:
            self._check()
        else:
            self.load(located(str(path)))

    @abstractmethod
    def _build(self) -> GraphEncoder:
        """Return a network with initial weights from torch's generator."""

    def _check(self) -> None:
        """Raise a `ConfigError` if a setting is out of range."""
        for name, value in self.settings.items():
            if value <= 0:
                raise ConfigError(f"{name} of {type(self).__name__} is a positive number, but is {value}.")

    def _costs(self, archs: ArchBatch) -> NDArray[np.float64] | None:
        """Return what the networks of `archs` compute, shape `(n,)`, where the training asks for it."""
        return None

    # -- encoding --------------------------------------------------------------------------------------------------

    def columns(self, space: SearchSpace) -> list[str]:
        """Return the names of the vectors' entries."""
        return [f"{self.prefix}{i}" for i in range(int(self.settings["latent"]))]

    def encode(self, archs: ArchBatch) -> Features:
        """Return the vectors `(n, latent)` of `archs`.

        Raises:
            ConfigError: If their space gives no graphs.
            PredictorError: If the encoding was not trained.
        """
        if self._network is None:
            raise PredictorError(
                f"{type(self).__name__} was not trained yet: give it the path of a trained one, which nasflow fit "
                "encoding=NAME writes."
            )
        space, rows, places = _classes(archs)
        raw = np.zeros((len(rows), len(self._mean)))
        for start in range(0, len(rows), _BATCH):
            part = slice(start, start + _BATCH)
            raw[part] = _latents(self._network, graphs(ArchBatch(space, rows[part])))
        return np.asarray(((raw - self._mean) / self._std)[places])

    # -- training --------------------------------------------------------------------------------------------------

    def fit(
        self,
        samples: Sequence[ArchBatch],
        seed: int = 0,
        checkpoint: Path | None = None,
        report: Report | None = None,
        hold: Hold = nullcontext,
    ) -> "LearnedEncoding":
        """Train on architectures of one space or of several, and forget what was learned before.

        Args:
            samples: Architectures by space.
            seed: Decides initial weights, what is held out and all else that is drawn.
            checkpoint: File that keeps the state after each epoch: with it, a stopped training goes on.
            report: Told after each epoch how many are done, and of how many.
            hold: What to hold during an epoch, such as the machine.

        Raises:
            ConfigError: If a space gives no graphs.
            PredictorError: If there are too few architectures, training diverges, or the checkpoint is damaged or of
                another training.
        """
        distinct = [ArchBatch(*_classes(archs)[:2]) for archs in samples]
        if not distinct or min(map(len, distinct)) < _LEAST:
            raise PredictorError(
                f"An encoding learns from at least {_LEAST} architectures of each space, but got "
                f"{', '.join(f'{len(archs)} of {archs.space.name}' for archs in distinct) or 'none'}. Give more."
            )
        rng = np.random.default_rng(seed)
        seen, held = zip(*(self._split(archs, rng) for archs in distinct), strict=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            network = self._build()
        epochs, batch, lr = int(self.settings["epochs"]), int(self.settings["batch"]), self.settings["lr"]
        train(network, seen, epochs, batch, lr, seed, checkpoint, self._identity(distinct, seed), report, hold)
        with torch.inference_mode():
            quality = {
                archs.space.fingerprint: network.quality(corpus, np.random.default_rng(seed))
                for archs, corpus in zip(distinct, held, strict=True)
            }
        final = self._use(network, {"spaces": list(quality), "quality": quality})
        raw = np.concatenate([_latents(final, known.graphs) for known in seen])
        spread = raw.std(axis=0)
        self._mean, self._std = raw.mean(axis=0), np.maximum(spread, max(_LEAST_SPREAD * spread.max(), _TINY))
        return self

    def _split(self, archs: ArchBatch, rng: np.random.Generator) -> tuple[Corpus, Corpus]:
        """Return what is trained on, and what is held out to tell how well that went."""
        everything = corpus(archs, self._costs(archs))
        order = rng.permutation(len(archs))
        held = max(1, round(_HELD_OUT * len(archs)))
        return everything[order[held:]], everything[order[:held]]

    def _identity(self, samples: Sequence[ArchBatch], seed: int) -> str:
        digest = sha256(repr((type(self).__name__, sorted(self.settings.items()), seed)).encode())
        for archs in samples:
            digest.update(archs.space.fingerprint.encode() + archs.rows.tobytes())
        return digest.hexdigest()

    def _use(self, network: GraphEncoder, facts: Mapping[str, Any]) -> GraphEncoder:
        """Take up a trained network, in double precision: what shares a batch then makes no difference to speak of."""
        self._network = deepcopy(network).double().eval().requires_grad_(False)
        self.facts = dict(facts)
        return self._network

    # -- on disk ---------------------------------------------------------------------------------------------------

    def save(self, path: Path, **facts: Any) -> None:
        """Write the encoding as safetensors; a former file is replaced in one step.

        Args:
            path: The file.
            **facts: Further facts to keep beside it, such as the configuration; JSON must be able to hold them.

        Raises:
            PredictorError: If it was not trained.
        """
        if self._network is None:
            raise PredictorError(f"{type(self).__name__} was not trained yet: there is nothing to save.")
        arrays = {f"weights.{name}": tensor.float() for name, tensor in self._network.state_dict().items()}
        arrays |= {"mean": torch.from_numpy(self._mean), "std": torch.from_numpy(self._std)}
        head = {"schema": SCHEMA_VERSION, "encoding": type(self).__name__, "width": WIDTH, "settings": self.settings}
        save_arrays(path, arrays, head | {"facts": self.facts | facts})

    def load(self, path: Path) -> "LearnedEncoding":
        """Take up what an encoding of this class has saved, and its settings.

        Raises:
            PredictorError: If the file is missing or damaged, or is of another encoding or schema version.
        """
        head = load_facts(path, "encoding", SCHEMA_VERSION, ("encoding", "width", "settings", "facts"), _REMEDY)
        if head["encoding"] != type(self).__name__:
            raise PredictorError(f"{path} is of {head['encoding']}, not of {type(self).__name__}: name the right one.")
        if head["width"] != WIDTH:
            raise PredictorError(
                f"{path} was trained on operations described by {head['width']} numbers, but this version of nasflow "
                f"uses {WIDTH}. {_REMEDY}"
            )
        arrays = load_arrays(path)
        weights = {name.removeprefix("weights."): a for name, a in arrays.items() if name.startswith("weights.")}
        former, self.settings = self.settings, dict(head["settings"])
        try:
            with torch.random.fork_rng(devices=[]):  # the initial weights do not stay
                network = self._build()
            network.load_state_dict(weights)
            mean, std = arrays["mean"].numpy(), arrays["std"].numpy()
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            self.settings = former
            raise PredictorError(f"{path} is damaged: its weights do not fit its settings. {_REMEDY}") from error
        self._mean, self._std = mean, std
        self._use(network, head["facts"])
        return self


def _classes(archs: ArchBatch) -> tuple[SearchSpace, Rows, NDArray[np.int64]]:
    """Return the space of `archs`, their distinct canonical rows, and whose place each of them has."""
    space = search_space(archs)
    rows, places = np.unique(space.canonical(archs.rows), axis=0, return_inverse=True)
    return space, rows, places.ravel()


def _latents(network: GraphEncoder, batch: Graphs) -> NDArray[np.float64]:
    """Return the latent vectors of graphs, shape `(n, latent)`."""
    with torch.inference_mode():
        parts = [batch[start : start + _BATCH] for start in range(0, len(batch), _BATCH)]
        found = [
            network.latents(Graphs(part.incoming.double(), part.ops.double(), part.used.double())) for part in parts
        ]
        return np.concatenate([latents.numpy() for latents in found])
