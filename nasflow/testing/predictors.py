"""What every predictor promises, as tests to inherit."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.stats import kendalltau

from predictors.base import Predictor, saved_facts
from searchspaces.arch import ArchBatch
from searchspaces.errors import PredictorError
from searchspaces.genes import GeneSpace
from searchspaces.space import SearchSpace


class PredictorContract(ABC):
    """Subclass it, implement the fixtures `new` and `space`, and inherit the tests.

    Attributes:
        samples: Samples that the predictor learns from.
        least_tau: Kendall tau-b on architectures left out that it has to reach: the target is a sum over operations.
        positive: Whether it takes positive figures only, as of latencies.
    """

    samples = 40
    least_tau = 0.3
    positive = False

    @pytest.fixture
    @abstractmethod
    def new(self) -> Callable[[], Predictor]:
        """Return what makes an unfitted predictor, the same each time."""

    @pytest.fixture
    @abstractmethod
    def space(self) -> SearchSpace:
        """Return the space of the samples; it needs some hundred classes."""

    @pytest.fixture
    def drawn(self, space: SearchSpace) -> ArchBatch:
        """Samples first, then architectures left out; one of each class."""
        archs = ArchBatch.sample(space, 4 * self.samples, np.random.default_rng(3)).unique()
        assert len(archs) >= 2 * self.samples, "the space is too small for the contract"
        return archs

    @pytest.fixture
    def fitted(self, new: Callable[[], Predictor], drawn: ArchBatch) -> Predictor:
        """A predictor that has learned from the samples."""
        return new().fit(drawn[: self.samples], target(drawn)[: self.samples])

    def test_it_ranks_what_it_has_not_seen(self, fitted: Predictor, drawn: ArchBatch) -> None:
        """Better than chance, with finite means and positive standard deviations."""
        rest = drawn[self.samples :]
        mean, std = fitted.predict(rest)
        assert mean.shape == std.shape == (len(rest),)
        assert np.isfinite(mean).all()
        assert np.isfinite(std).all()
        assert (std > 0).all()
        assert kendalltau(mean, target(rest)).statistic > self.least_tau

    def test_means_are_in_the_unit_of_the_target(
        self, new: Callable[[], Predictor], drawn: ArchBatch
    ) -> None:
        """A target of another scale and level is predicted at that scale and level."""
        y = 1e-3 * target(drawn)[: self.samples] - (0.0 if self.positive else 7.0)
        mean, std = new().fit(drawn[: self.samples], y).predict(drawn[self.samples :])
        assert abs(np.median(mean) - np.median(y)) < 3 * np.std(y)
        assert std.mean() < 10 * np.std(y)

    def test_a_prediction_does_not_depend_on_the_batch(self, fitted: Predictor, drawn: ArchBatch) -> None:
        """The figures of one architecture are the same alone and among others."""
        whole = fitted.predict(drawn)
        for i in (0, self.samples, len(drawn) - 1):
            alone = fitted.predict(drawn[i])
            np.testing.assert_allclose([alone.mean[0], alone.std[0]], [whole.mean[i], whole.std[i]], rtol=1e-4)

    def test_nothing_asked_nothing_said(self, fitted: Predictor, drawn: ArchBatch) -> None:
        """An empty batch has an empty prediction."""
        assert fitted.predict(drawn[:0]).mean.shape == (0,)

    def test_the_same_samples_teach_the_same(
        self, new: Callable[[], Predictor], fitted: Predictor, drawn: ArchBatch
    ) -> None:
        """Fitting is deterministic, and forgets what was fitted before."""
        again = new().fit(drawn[self.samples :], target(drawn)[self.samples :])
        again.fit(drawn[: self.samples], target(drawn)[: self.samples])
        np.testing.assert_array_equal(again.predict(drawn).mean, fitted.predict(drawn).mean)

    def test_repeated_architectures_count_once_with_their_mean(
        self, new: Callable[[], Predictor], fitted: Predictor, drawn: ArchBatch
    ) -> None:
        """Samples of one class are merged."""
        first, y = drawn[: self.samples], target(drawn)[: self.samples]  # halves more and less than y are exact
        twice = ArchBatch.concatenate([first, first])
        merged = new().fit(twice, np.concatenate([y - 0.5, y + 0.5]))
        np.testing.assert_allclose(merged.predict(drawn).mean, fitted.predict(drawn).mean, rtol=1e-6)

    @pytest.mark.parametrize(
        ("figures", "message"),
        [([1.0, 1.0, 1.0], "the same figure"), ([1.0, np.nan, 2.0], "NaN"), ([1.0, 2.0], "needs one figure")],
    )
    def test_bad_samples_are_refused(
        self, new: Callable[[], Predictor], drawn: ArchBatch, figures: list[float], message: str
    ) -> None:
        """Constant and unknown figures teach nothing."""
        with pytest.raises(PredictorError, match=message):
            new().fit(drawn[:3], figures)

    def test_nothing_was_fitted(
        self, new: Callable[[], Predictor], drawn: ArchBatch, tmp_path: Path
    ) -> None:
        """An unfitted predictor neither predicts nor saves."""
        with pytest.raises(PredictorError, match="was not fitted"):
            new().predict(drawn)
        with pytest.raises(PredictorError, match="was not fitted"):
            new().save(tmp_path / "p.safetensors")

    def test_another_space_is_refused(self, fitted: Predictor, drawn: ArchBatch) -> None:
        """Figures of another space or scale do not carry over."""
        with pytest.raises(PredictorError, match="was fitted to"):
            fitted.predict(ArchBatch(_Renamed(drawn.space), drawn.rows))

    def test_what_is_saved_predicts_the_same(
        self, new: Callable[[], Predictor], fitted: Predictor, drawn: ArchBatch, tmp_path: Path
    ) -> None:
        """Means and standard deviations survive the disk."""
        path = tmp_path / "deep" / "p.safetensors"
        fitted.save(path, told="so")
        assert saved_facts(path)["facts"] == {"told": "so"}
        read = new().load(path, drawn.space)
        for before, after in zip(fitted.predict(drawn), read.predict(drawn), strict=True):
            np.testing.assert_allclose(after, before, rtol=1e-6)

    def test_what_cannot_be_read_is_told(
        self, new: Callable[[], Predictor], fitted: Predictor, tmp_path: Path, drawn: ArchBatch
    ) -> None:
        """Missing, damaged and foreign files, and files of another version or space."""
        path = tmp_path / "p.safetensors"
        fitted.save(path)
        with pytest.raises(PredictorError, match="no predictor"):
            new().load(tmp_path / "absent", drawn.space)
        with pytest.raises(PredictorError, match="was fitted to"):
            new().load(path, _Renamed(drawn.space))
        facts = saved_facts(path)
        for change, message in (({"schema": 0}, "schema 0"), ({"predictor": "Other"}, "is of Other")):
            other = tmp_path / "other.safetensors"
            save_file(load_file(path), other, {"nasflow": json.dumps(facts | change)})
            with pytest.raises(PredictorError, match=message):
                new().load(other, drawn.space)
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(PredictorError, match="damaged"):
            new().load(path, drawn.space)


def target(archs: ArchBatch) -> NDArray[np.float64]:
    """A figure that follows from the graph: a weight for each operation, summed over the vertices, and the edges."""
    space = archs.space
    assert isinstance(space, SearchSpace)
    adjacency, ops = space.graph(space.canonical(archs.rows))
    weights = np.append(np.random.default_rng(5).permutation(len(space.ops)) / len(space.ops), 0.0)
    figures = weights[ops].sum(axis=1) + 0.1 * adjacency.sum(axis=(1, 2))
    return np.asarray(np.round(figures * 1024) / 1024)


class _Renamed(GeneSpace):
    """A space of the same rows under another name."""

    name = "renamed"

    def __init__(self, base: GeneSpace) -> None:
        self.genes = base.genes
