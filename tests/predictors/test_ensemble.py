"""Ensembles of copies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kendalltau

from nasflow.testing import PredictorContract
from nasflow.testing.predictors import target
from predictors.accuracy.gcn import GCN
from predictors.base import Prediction, Predictor
from predictors.ensemble import Ensemble
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.nb201 import NB201
from searchspaces.space import SearchSpace
from tests.predictors.neural import samples


def small(**arguments: Any) -> GCN:
    return GCN(**({"width": 32, "layers": 3, "epochs": 40, "batch": 16, "lr": 5e-3} | arguments))


class TestEnsemble(PredictorContract):
    @pytest.fixture
    def new(self) -> Callable[[], Predictor]:
        return lambda: Ensemble(small(), members=2, seed=3)

    @pytest.fixture
    def space(self) -> SearchSpace:
        return NB201()


class Memory(Predictor):
    """Predicts the mean figure of what it was given, a figure of its seed aside; keeps what it was given."""

    def __init__(self, seed: int = 0, std: float = 1.0) -> None:
        self.seed, self.std = seed, std

    def _fit(self, archs: ArchBatch, y: Any, sources: Any) -> None:
        self.archs, self.y = archs, y

    def _predict(self, archs: ArchBatch) -> Prediction:
        return Prediction(np.full(len(archs), self.y.mean()), np.full(len(archs), self.std))

    def _state(self) -> Any:
        return {"y": self.y}, {}

    def _restore(self, space: Any, arrays: Any, facts: Any) -> None:
        self.y = arrays["y"]


def members(ensemble: Ensemble) -> list[Any]:
    return ensemble._members


def test_each_sample_is_left_out_by_one_member() -> None:
    archs = samples(NB201(), 23)
    ensemble = Ensemble(Memory(), members=4, seed=1)
    ensemble.fit(archs, np.arange(23.0))
    kept = np.array([np.isin(np.arange(23.0), member.y) for member in members(ensemble)])
    assert (kept.sum(0) == 3).all()
    assert {member.seed for member in members(ensemble)} == set(
        np.random.SeedSequence(1).generate_state(4).tolist()
    )


def test_few_samples_are_given_to_all() -> None:
    archs = samples(NB201(), 7)
    ensemble = Ensemble(Memory(std=0.5), members=4).fit(archs, np.arange(7.0))
    assert isinstance(ensemble, Ensemble)
    assert all(len(member.y) == 7 for member in members(ensemble))
    assert_allclose(ensemble.predict(archs).std, 0.5)


def test_members_of_a_predictor_that_was_fitted_differ() -> None:
    known = samples(NB201(), 5)
    fitted = small().fit(known, target(known))
    ensemble = Ensemble(fitted, members=3).fit(known, target(known))
    found = [member.predict(known).mean for member in members(ensemble)]
    assert (found[0] != found[1]).any()
    assert (found[1] != found[2]).any()


def test_samples_that_would_leave_a_member_nothing_to_learn_are_given_to_all() -> None:
    archs = samples(NB201(), 20)
    ensemble = Ensemble(Memory(), members=5).fit(archs, np.eye(20)[0])
    assert isinstance(ensemble, Ensemble)
    assert all(len(member.y) == 20 for member in members(ensemble))


@pytest.mark.parametrize("claimed", [1e-3, 1.0, 1e3])
def test_deviations_hold_for_left_out_samples_whatever_members_claim(claimed: float) -> None:
    archs = samples(NB201(), 200)
    y = np.random.default_rng(0).normal(size=200)
    ensemble = Ensemble(Memory(std=claimed), members=5).fit(archs[:100], y[:100])
    mean, std = ensemble.predict(archs[100:])
    assert 0.5 < np.mean(np.abs(y[100:] - mean) < std) < 0.85


def test_the_mean_of_members_is_better_than_most() -> None:
    archs = samples(NB201(), 300)
    y = target(archs) + np.random.default_rng(0).normal(size=300) * target(archs).std() / 2
    ensemble = Ensemble(small(epochs=20), members=5).fit(archs[:40], y[:40])
    assert isinstance(ensemble, Ensemble)
    rest = archs[40:]
    alone = [kendalltau(member.predict(rest).mean, y[40:]).statistic for member in members(ensemble)]
    together = ensemble.predict(rest)
    assert kendalltau(together.mean, y[40:]).statistic > np.mean(alone)
    assert 0.5 < np.mean(np.abs(y[40:] - together.mean) < together.std) < 0.95


def test_it_is_saved_with_all_members(tmp_path: Path) -> None:
    archs = samples(NB201(), 30)
    ensemble = Ensemble(small(epochs=2), members=3, seed=2).fit(archs, target(archs))
    ensemble.save(tmp_path / "e")
    read = Ensemble(small(epochs=2), members=3, seed=2).load(tmp_path / "e", archs.space)
    for before, after in zip(ensemble.predict(archs), read.predict(archs), strict=True):
        assert_array_equal(after, before)


def test_what_cannot_be_an_ensemble_is_told() -> None:
    with pytest.raises(ConfigError, match="at least 1 member"):
        Ensemble(Memory(), members=0)

    class Seedless(Memory):
        def __init__(self) -> None:
            pass

    with pytest.raises(ConfigError, match="Seedless has none"):
        Ensemble(Seedless())
