"""What all predictors that are networks over graphs promise beside the contract of predictors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kendalltau

from nasflow.testing import PredictorContract
from nasflow.testing.predictors import target
from nasflow.testing.proxies import WidthsSpace
from predictors.base import Predictor, SourceSamples
from predictors.encodings import OneHot
from predictors.graphs import Graphs, graphs
from predictors.training import NeuralPredictor
from searchspaces.arch import ArchBatch
from searchspaces.errors import PredictorError
from searchspaces.nb101 import NB101
from searchspaces.nb201 import NB201
from searchspaces.space import SearchSpace

Make = Callable[..., NeuralPredictor]


def samples(space: SearchSpace, n: int, seed: int = 0) -> ArchBatch:
    return ArchBatch.sample(space, 3 * n, np.random.default_rng(seed)).unique()[:n]


def padded(batch: Graphs, more: int) -> Graphs:
    pad = torch.nn.functional.pad
    return Graphs(pad(batch.incoming, (0, more, 0, more)), pad(batch.ops, (0, 0, 0, more)), pad(batch.used, (0, more)))


class NeuralContract(PredictorContract):
    """A subclass gives the fixture `make`, which takes arguments of the predictor over small ones."""

    @pytest.fixture
    def new(self, make: Make) -> Callable[[], Predictor]:
        return make

    @pytest.fixture
    def space(self) -> SearchSpace:
        return NB201()

    def test_saved_weights_predict_bit_by_bit_the_same(self, make: Make, drawn: ArchBatch, tmp_path: Path) -> None:
        fitted = make(epochs=1).fit(drawn[:20], target(drawn)[:20])
        fitted.save(tmp_path / "p")
        read = make(epochs=1).load(tmp_path / "p", drawn.space)
        for before, after in zip(fitted.predict(drawn), read.predict(drawn), strict=True):
            assert_array_equal(after, before)

    def test_another_seed_is_another_fit(self, make: Make, drawn: ArchBatch) -> None:
        means = [make(epochs=1, seed=s).fit(drawn[:20], target(drawn)[:20]).predict(drawn).mean for s in (0, 1)]
        assert (means[0] != means[1]).any()

    def test_the_callers_random_numbers_are_left_alone(self, make: Make, drawn: ArchBatch, tmp_path: Path) -> None:
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        fitted = make(epochs=1).fit(drawn[:20], target(drawn)[:20])
        fitted.save(tmp_path / "p")
        make(epochs=1).load(tmp_path / "p", drawn.space)
        assert torch.equal(torch.rand(3), expected)
        torch.manual_seed(6)
        assert_array_equal(make(epochs=1).fit(drawn[:20], target(drawn)[:20]).predict(drawn).mean,
                           fitted.predict(drawn).mean)

    def test_what_is_said_of_one_depends_neither_on_order_nor_on_room(self, make: Make, drawn: ArchBatch) -> None:
        fitted = make(epochs=2).fit(drawn[:20], target(drawn)[:20])
        order = np.random.default_rng(0).permutation(len(drawn))
        assert_allclose(fitted.predict(drawn[order]).mean, fitted.predict(drawn).mean[order], rtol=1e-4)
        with torch.no_grad():
            batch = graphs(drawn)
            tight, roomy = (fitted.network.embed(one) for one in (batch, padded(batch, 3)))
        assert_allclose(roomy.numpy(), tight.numpy(), atol=1e-5)

    def test_a_space_never_seen(self, make: Make) -> None:
        """Graphs made from networks, whose operations are those of ONNX."""
        archs = ArchBatch(WidthsSpace(), np.stack(np.meshgrid(range(3), range(3)), -1).reshape(-1, 2))
        prediction = make(epochs=1).fit(archs, np.arange(1.0, 10.0)).predict(archs)
        assert np.isfinite(prediction.mean).all()

    def test_figures_of_another_space_help(self, make: Make) -> None:
        """Few samples of cells and many of another kind of cells, where convolutions are good in both."""
        theirs, ours = samples(NB101(), 80), samples(NB201(), 200)
        source = SourceSamples(theirs, convolutions(theirs), "cells of another kind")
        known, rest, y = ours[:4], ours[4:], convolutions(ours)
        alone, helped = (
            kendalltau(make(finetune_epochs=10).fit(known, y[:4], sources).predict(rest).mean, y[4:]).statistic
            for sources in ([], [source])
        )
        assert helped > max(0.3, alone)

    def test_sources_are_learned_once(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """And the next fit is what it would have been, had it learned them again."""
        theirs, ours = samples(NB101(), 20), samples(NB201(), 60)
        source = SourceSamples(theirs, 1 + convolutions(theirs), "cells of another kind")
        first, second = ((ours[at], 1 + convolutions(ours[at])) for at in (slice(0, 10), slice(10, 40)))
        expected = make(epochs=1).fit(*second, [source]).predict(ours).mean
        predictor, learn = make(epochs=1), type(make())._fit_sources
        learned = []
        monkeypatch.setattr(type(predictor), "_fit_sources", lambda *a: learned.append(1) or learn(*a))
        for known in (first, second):
            predictor.fit(*known, [source])
        assert len(learned) == 1
        assert_array_equal(predictor.predict(ours).mean, expected)
        changed = SourceSamples(theirs, source.y[::-1], source.name)
        assert (predictor.fit(*second, [changed]).predict(ours).mean != expected).any()

    def test_an_encoding_that_differs_between_spaces_cannot_carry_over(self, make: Make) -> None:
        theirs, ours = samples(NB101(), 20), samples(NB201(), 20)
        source = SourceSamples(theirs, target(theirs), "cells of another kind")
        with pytest.raises(PredictorError, match="other columns than those of 'nb201'"):
            make(encoding=OneHot()).fit(ours, target(ours), [source])

    def test_another_encoding_is_refused_on_loading(self, make: Make, drawn: ArchBatch, tmp_path: Path) -> None:
        make(epochs=1).fit(drawn[:20], target(drawn)[:20]).save(tmp_path / "p")
        with pytest.raises(PredictorError, match="other arguments"):
            make(epochs=1, encoding=OneHot()).load(tmp_path / "p", drawn.space)

    def test_another_width_is_refused_on_loading(self, make: Make, drawn: ArchBatch, tmp_path: Path) -> None:
        make(epochs=1).fit(drawn[:20], target(drawn)[:20]).save(tmp_path / "p")
        with pytest.raises(PredictorError, match="other arguments"):
            make(epochs=1, width=24).load(tmp_path / "p", drawn.space)

    def test_training_that_diverges_is_told(self, make: Make, drawn: ArchBatch) -> None:
        with pytest.raises(PredictorError, match="diverged: give a smaller lr than 1e"):
            make(epochs=5, lr=1e30).fit(drawn[:20], target(drawn)[:20])

    def test_an_encoding_is_learned_from_too(self, make: Make) -> None:
        """The target is what the graph does not tell and the encoding does."""
        archs = samples(NB201(), 120)
        rng = np.random.default_rng(0)
        told = {key: rng.normal() for key in archs.keys()}  # noqa: SIM118 (no dictionary)

        class Told(OneHot):
            def columns(self, space: SearchSpace) -> list[str]:
                return ["told"]

            def encode(self, archs: ArchBatch) -> Any:
                return np.array([[told[key]] for key in archs.keys()])  # noqa: SIM118

        y = np.exp(list(told.values()))
        mean = make(encoding=Told()).fit(archs[:60], y[:60]).predict(archs[60:]).mean
        assert kendalltau(mean, y[60:]).statistic > 0.3


def convolutions(archs: ArchBatch) -> Any:
    """Share of convolutions among a canonical graph's vertices."""
    space = archs.space
    assert isinstance(space, SearchSpace)
    _, ops = space.graph(space.canonical(archs.rows))
    is_convolution = np.array([op.kind == "conv" for op in space.ops] + [False])
    return is_convolution[ops].sum(1) / ops.shape[1] + 0.01 * (ops >= 0).sum(1)
