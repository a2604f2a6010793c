"""The interface of predictors: figures of architectures, learned from few samples."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from searchspaces.arch import ArchBatch
from searchspaces.errors import PredictorError
from searchspaces.files import replacing
from searchspaces.genes import GeneSpace

SCHEMA_VERSION = 2
WITHIN_90 = 1.6448536  # standard deviations within which nine tenths of a normal distribution lie
_META = "nasflow"
Arrays = dict[str, NDArray[Any]]


class Prediction(NamedTuple):
    """What a predictor expects.

    Attributes:
        mean: Shape `(n,)`, in the target's unit.
        std: Shape `(n,)`, in the same unit: one standard deviation of what is not known about the figure.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]


@dataclass(frozen=True)
class SourceSamples:
    """Figures to learn from beside the target's own: of another task, device or space.

    Attributes:
        archs: The architectures.
        y: Their figures `(n,)`, in any unit: larger means better wherever it does for the target.
        name: What they are figures of.
    """

    archs: ArchBatch
    y: NDArray[np.float64]
    name: str


def _same_sources(first: Sequence[SourceSamples], second: Sequence[SourceSamples]) -> bool:
    """Tell whether sources are the same, sample by sample."""
    return len(first) == len(second) and all(
        a.name == b.name
        and a.archs.space.fingerprint == b.archs.space.fingerprint
        and np.array_equal(a.archs.rows, b.archs.rows)
        and np.array_equal(a.y, b.y)
        for a, b in zip(first, second, strict=True)
    )


class SourceError(PredictorError):
    """A predictor cannot learn from figures of that space."""


class Predictor(ABC):
    """Learns a figure of architectures from samples.

    Samples of one canonical class are one sample with the mean of their figures.

    A subclass implements `_fit`, `_predict`, `_state` and `_restore`; `fit` has then checked and merged the samples.
    What it learns from sources alone it learns in `_fit_sources`, and keeps: that is asked only when they change.

    Attributes:
        space: The space of the samples it was fitted to; None before.
        calibrates: Whether a fit may leave out samples in turn, and fit again, to find standard deviations; those of
            one that does not are too small.
    """

    space: GeneSpace | None = None
    calibrates: bool = True
    _known: tuple[str, list[SourceSamples]] | None = None

    def fit(self, archs: ArchBatch, y: ArrayLike, sources: Sequence[SourceSamples] = ()) -> "Predictor":
        """Learn from samples, and forget what was learned from others before.

        Fitting again with the same sources finds what fitting from scratch would have found; most predictors learn from
        them no second time.

        Args:
            archs: Architectures `(n,)`.
            y: Their figures `(n,)`.
            sources: Figures of other tasks, devices or spaces that may help.

        Raises:
            PredictorError: If the samples are too few or not finite, or all figures are the same.
        """
        merged, figures = merged_samples(archs, y)
        others = [SourceSamples(*merged_samples(s.archs, s.y), s.name) for s in sources]
        space = archs.space
        if self._known is None or self._known[0] != space.fingerprint or not _same_sources(self._known[1], others):
            self._known = None
            self._fit_sources(space, others)
            self._known = space.fingerprint, others
        self._fit(merged, figures, others)
        self.space = space
        return self

    def predict(self, archs: ArchBatch) -> Prediction:
        """Return what to expect of `archs`.

        Raises:
            PredictorError: If nothing was fitted, or to another space.
        """
        if self.space is None:
            raise PredictorError(f"{type(self).__name__} was not fitted yet: call fit(archs, y) first.")
        self._check(archs.space.fingerprint, self.space.fingerprint)
        if not len(archs):
            return Prediction(np.zeros(0), np.zeros(0))
        return self._predict(archs)

    def _fit_sources(self, space: GeneSpace, sources: Sequence[SourceSamples]) -> None:  # noqa: B027 (most learn none)
        """Learn what sources, of which there may be none, tell of architectures of a space; samples come later."""

    @abstractmethod
    def _fit(self, archs: ArchBatch, y: NDArray[np.float64], sources: Sequence[SourceSamples]) -> None:
        """Learn from at least two distinct architectures whose figures differ."""

    @abstractmethod
    def _predict(self, archs: ArchBatch) -> Prediction:
        """Predict for at least one architecture."""

    # -- on disk ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        """Return what was learned: arrays, and facts that JSON can hold."""

    @abstractmethod
    def _restore(self, space: GeneSpace, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        """Take up what `_state` returned."""

    def save(self, path: Path, **facts: Any) -> None:
        """Write what was learned as safetensors; a former file is replaced in one step.

        Args:
            path: The file.
            **facts: Further facts to keep beside it, such as the configuration; JSON must be able to hold them.

        Raises:
            PredictorError: If nothing was fitted.
        """
        if self.space is None:
            raise PredictorError(f"{type(self).__name__} was not fitted yet: there is nothing to save.")
        arrays, learned = self._state()
        head = {"schema": SCHEMA_VERSION, "predictor": type(self).__name__, "space": self.space.fingerprint}
        meta = json.dumps(head | {"learned": learned, "facts": facts})
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial, {_META: meta})

    def load(self, path: Path, space: GeneSpace) -> "Predictor":
        """Take up what a predictor built with the same arguments has saved.

        Raises:
            PredictorError: If the file is missing or damaged, or is of another predictor, schema version or space.
        """
        meta = saved_facts(path)
        if meta["predictor"] != type(self).__name__:
            raise PredictorError(f"{path} is of {meta['predictor']}, not of {type(self).__name__}: name the right one.")
        self._check(space.fingerprint, meta["space"])
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
        self._known = None
        try:
            self._restore(space, arrays, meta["learned"])
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise PredictorError(
                f"{path} does not fit this {type(self).__name__} ({error}): it was saved by one with other arguments. "
                "Give the arguments that it was fitted with, or fit anew."
            ) from error
        self.space = space
        return self

    def _check(self, asked: str, fitted: str) -> None:
        if asked != fitted:
            raise PredictorError(
                f"The predictor was fitted to {fitted}, but it was asked about {asked}: figures of another space or "
                "scale do not carry over. Fit one to that space; this one's samples may serve as a source."
            )


def saved_facts(path: Path) -> dict[str, Any]:
    """Return what a predictor's file says of itself: schema, predictor, space, learned, facts.

    Raises:
        PredictorError: If the file is missing or damaged, or of another schema version.
    """
    if not path.is_file():
        raise PredictorError(f"There is no predictor {path}. Check the path, or fit one: nasflow fit.")
    try:
        with safe_open(path, "numpy") as file:
            meta = json.loads((file.metadata() or {})[_META])
        schema = meta["schema"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise PredictorError(f"{path} is damaged, or no predictor of nasflow ({error}). Fit it again.") from error
    if schema != SCHEMA_VERSION:
        raise PredictorError(
            f"{path} has predictor schema {schema}, but this version of nasflow reads {SCHEMA_VERSION}. Fit it again."
        )
    return dict(meta)


def merged_samples(archs: ArchBatch, y: ArrayLike) -> tuple[ArchBatch, NDArray[np.float64]]:
    """Return one sample per canonical class, with the mean of its figures, in order of first appearance.

    Raises:
        PredictorError: If shapes do not fit, a figure is not finite, or fewer than two different ones are left.
    """
    figures = np.asarray(y, dtype=np.float64)
    if figures.shape != (len(archs),):
        raise PredictorError(f"Each of {len(archs)} architectures needs one figure, but y has shape {figures.shape}.")
    if not np.isfinite(figures).all():
        raise PredictorError(
            f"{int((~np.isfinite(figures)).sum())} of {len(figures)} figures are NaN or infinite. Leave their "
            "architectures out; failed trials have no figure to learn from."
        )
    places: dict[bytes, int] = {}
    keys = archs.keys()
    group = np.array([places.setdefault(key, len(places)) for key in keys], dtype=np.int64)
    means = np.bincount(group, figures) / np.maximum(1, np.bincount(group)) if len(group) else figures
    if len(means) < 2 or np.ptp(means) == 0:
        raise PredictorError(
            f"A predictor learns from at least two architectures whose figures differ, but got {len(means)} of "
            f"different classes{', all with the same figure' if len(means) > 1 else ''}. Evaluate more of them."
        )
    return archs[np.unique(group, return_index=True)[1]], means
