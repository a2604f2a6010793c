"""Every predictor of `conf/predictor` goes through the contract, on cells and on chains of blocks."""

from collections.abc import Callable
from typing import Any

import pytest

from nasflow.config import composed, instantiate, plain
from nasflow.testing import PredictorContract
from predictors.base import Predictor
from predictors.encodings import Concatenation, OneHot, Topology
from searchspaces.fbnet import FBNet
from searchspaces.nb201 import NB201
from searchspaces.space import SearchSpace
from tests.registry import leaves

ENCODING = Concatenation([OneHot(), Topology()])
APART = ("auto", "brp", "flan", "gcn")
GENERAL = [name for name in leaves("predictor") if name not in APART and not name.startswith("latency")]


def smaller(config: Any) -> Any:
    """The same with fewer trees and steps: the contract is about behaviour."""
    if isinstance(config, list):
        return [smaller(entry) for entry in config]
    if not isinstance(config, dict):
        return config
    few = {"n_estimators": 20, "max_iter": 100}
    return {key: min(value, few[key]) if key in few else smaller(value) for key, value in config.items()}


def maker(name: str) -> Callable[[], Predictor]:
    config = smaller(plain(composed("fit", [f"predictor={name}"]).predictor))

    def make() -> Predictor:
        predictor = instantiate(config, encoding=ENCODING, seed=1)
        assert isinstance(predictor, Predictor)
        return predictor

    return make


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", GENERAL)
class TestOnCells(PredictorContract):
    @pytest.fixture
    def new(self, name: str) -> Callable[[], Predictor]:
        return maker(name)

    @pytest.fixture
    def space(self) -> SearchSpace:
        return NB201()


class TestAuto(PredictorContract):
    samples = 24  # too few for all candidates, which the contract would fit hundreds of times

    @pytest.fixture
    def new(self) -> Callable[[], Predictor]:
        return maker("auto")

    @pytest.fixture
    def space(self) -> SearchSpace:
        return NB201()


@pytest.mark.parametrize("name", ["gp", "trees"])
class TestOnChains(PredictorContract):
    least_tau = 0.2

    @pytest.fixture
    def new(self, name: str) -> Callable[[], Predictor]:
        return maker(name)

    @pytest.fixture
    def space(self) -> SearchSpace:
        return FBNet()
