"""Latency predictors of `conf/predictor` go through the contract; networks do in `test_latency_neural`."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nasflow.testing import PredictorContract
from nasflow.testing.predictors import target
from predictors.base import Predictor, SourceSamples
from predictors.encodings import Concatenation, LayerCosts, OneHot, OpCounts
from predictors.latency.lines import SourceCopy
from searchspaces.arch import ArchBatch
from searchspaces.fbnet import FBNet
from searchspaces.nb201 import NB201
from searchspaces.space import SearchSpace
from tests.predictors.test_contract import maker

ENCODING = Concatenation([LayerCosts(), OneHot(), OpCounts()])


class OnLatencies(PredictorContract):
    positive = True


@pytest.mark.parametrize("name", ["latency_gp", "latency_additive"])
class TestOnCells(OnLatencies):
    @pytest.fixture
    def new(self, name: str) -> Callable[[], Predictor]:
        return maker(name)

    @pytest.fixture
    def space(self) -> SearchSpace:
        return NB201("small")


@pytest.mark.parametrize("name", ["latency_macs", "latency_params", "latency_depth"])
class TestOneCost(OnLatencies):
    least_tau = 0.05  # the target is no cost

    @pytest.fixture
    def new(self, name: str) -> Callable[[], Predictor]:
        return maker(name)

    @pytest.fixture
    def space(self) -> SearchSpace:
        return NB201("small")


class TestAuto(OnLatencies):
    samples = 24

    @pytest.fixture
    def new(self) -> Callable[[], Predictor]:
        return maker("latency_auto")

    @pytest.fixture
    def space(self) -> SearchSpace:
        return NB201("small")


class TestCopy(OnLatencies):
    """With a device that takes a similar time, for it needs one."""

    @pytest.fixture
    def new(self, space: SearchSpace) -> Callable[[], Predictor]:
        archs = ArchBatch.sample(space, 60, np.random.default_rng(8)).unique()
        sources = [
            SourceSamples(archs, 1 / target(archs), "reversed"),
            SourceSamples(archs, 5 * target(archs) ** 1.2, "similar"),
        ]

        class Helped(SourceCopy):
            def fit(self, archs: ArchBatch, y: object, _: Sequence[SourceSamples] = ()) -> Predictor:
                return super().fit(archs, y, sources)

        return lambda: Helped(ENCODING)

    @pytest.fixture
    def space(self) -> SearchSpace:
        return NB201("small")


class TestOnChains(OnLatencies):
    least_tau = 0.2

    @pytest.fixture
    def new(self) -> Callable[[], Predictor]:
        return maker("latency_gp")

    @pytest.fixture
    def space(self) -> SearchSpace:
        return FBNet("small")
