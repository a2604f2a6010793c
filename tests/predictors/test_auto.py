import numpy as np
import pytest

from nasflow.testing.predictors import target
from predictors.accuracy.auto import Auto, Candidate
from predictors.accuracy.blend import Blend
from predictors.accuracy.gaussian import GaussianProcessPredictor
from predictors.accuracy.single import BestColumn
from predictors.base import Prediction, Predictor, SourceError, SourceSamples
from predictors.encodings import OneHot, Topology, ZeroCost
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, PredictorError
from searchspaces.nb101 import NB101
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table


class Fixed(Predictor):
    """Predicts the truth with so much noise, whatever it was fitted to."""

    def __init__(self, noise: float, std: float = 1.0) -> None:
        self.noise, self.std = noise, std
        self.fits: list[int] = []
        self.calibrated: list[bool] = []

    def _fit(self, archs, y, sources):
        self.fits.append(len(y))
        self.calibrated.append(self.calibrates)

    def _predict(self, archs):
        noise = np.array([np.random.default_rng(list(row)).normal() for row in archs.rows])
        return Prediction(target(archs) + self.noise * noise, np.full(len(archs), self.std))

    def _state(self):
        return {"noise": np.array([self.noise])}, {"fits": self.fits}

    def _restore(self, space, arrays, facts):
        self.noise, self.fits = float(arrays["noise"][0]), facts["fits"]


@pytest.fixture(scope="module")
def archs() -> ArchBatch:
    return ArchBatch.sample(NB201(), 150, np.random.default_rng(0)).unique()


def chooser(**arguments) -> Auto:
    candidates = [Candidate("many", Fixed(5.0), least=40), Candidate("any", Fixed(2.0)), Candidate("good", Fixed(0.01))]
    return Auto(candidates, **arguments)


def test_what_ranks_left_out_samples_better_beyond_doubt_is_taken(archs, caplog):
    caplog.set_level("INFO")
    auto = chooser()
    auto.fit(archs[:60], target(archs[:60]))
    assert auto.choice == "good"
    assert auto.scores["good"] > auto.scores["any"] > auto.scores["many"] - 0.1
    assert "good: better than the preferred many by" in caplog.text
    assert auto.candidates["good"].predictor.fits == [48] * 5 + [60]
    assert auto.candidates["good"].predictor.calibrated == [False] * 5 + [True], "nobody asks for the deviations"
    np.testing.assert_array_equal(auto.predict(archs).mean, Fixed(0.01)._predict(archs).mean)


def test_the_preferred_one_is_kept_where_others_are_no_better(archs):
    auto = Auto([Candidate("first", Fixed(1.0)), Candidate("second", Fixed(1.0))])
    auto.fit(archs[:40], target(archs[:40]))
    assert auto.choice == "first"
    assert "preferred, and none is better beyond doubt" in auto.reason


@pytest.mark.parametrize(("n", "choice", "why"), [(5, "any", "too few to compare"), (20, "good", "better")])
def test_candidates_that_need_more_samples_wait(archs, n, choice, why):
    auto = chooser()
    auto.fit(archs[:n], target(archs[:n]))
    assert auto.choice == choice
    assert why in auto.reason
    assert "many" not in auto.scores


def test_fewer_samples_than_folds_leave_one_out(archs):
    auto = chooser(folds=50)
    auto.fit(archs[:12], target(archs[:12]))
    assert auto.candidates["good"].predictor.fits == [11] * 12 + [12]


def test_choice_and_reason_are_saved(archs, tmp_path):
    auto = chooser().fit(archs[:60], target(archs[:60]))
    auto.save(tmp_path / "a")
    read = chooser().load(tmp_path / "a", archs.space)
    assert (read.choice, read.reason, read.scores) == (auto.choice, auto.reason, auto.scores)
    np.testing.assert_array_equal(read.predict(archs).mean, auto.predict(archs).mean)


def test_bad_candidates_are_refused():
    for candidates in ([], [Candidate("a", Fixed(1), 30)], [Candidate("a", Fixed(1)), Candidate("a", Fixed(2))]):
        with pytest.raises(ConfigError, match="chooses among candidates of different names"):
            Auto(candidates)
    with pytest.raises(ConfigError, match="at least 2 folds"):
        Auto([Candidate("a", Fixed(1))], folds=1)


def test_a_blend_is_better_than_members_that_err_apart(archs):
    class Other(Fixed):
        def _predict(self, archs):
            noise = np.array([np.random.default_rng([9, *row]).normal() for row in archs.rows])
            return Prediction(target(archs) + self.noise * noise, np.full(len(archs), self.std))

    y = target(archs)
    members = [Fixed(0.3, std=3.0), Other(0.3, std=4.0)]
    blend = Blend(members).fit(archs, y)
    errors = [np.std(one.predict(archs).mean - y) for one in (*members, blend)]
    assert errors[2] < 0.9 * min(errors[:2])
    np.testing.assert_allclose(blend.predict(archs).std, (12.5) ** 0.5)
    with pytest.raises(ConfigError, match="at least one predictor"):
        Blend([])


def test_the_best_column_may_have_either_sign(archs):
    y = target(archs)
    noise = np.random.default_rng(1).normal(size=(2, len(archs)))
    columns = {"a": noise[0], "b": -y + 0.1 * noise[1], "c": y + noise[1]}
    table = Table(archs.canonical(), columns, [Column(name) for name in columns])
    predictor = BestColumn(ZeroCost(table, voters=[])).fit(archs[:30], y[:30])
    assert predictor.column == 1
    assert np.corrcoef(predictor.predict(archs).mean, y)[0, 1] > 0.9


def test_sources_of_the_same_cells_help_and_of_others_are_refused(archs):
    space, y = archs.space, target(archs)
    train, rest = slice(0, 8), slice(8, None)
    source = SourceSamples(ArchBatch(NB201("small"), archs.rows), 3 * y + 1, "another task")
    alone = GaussianProcessPredictor(OneHot()).fit(archs[train], y[train])
    helped = GaussianProcessPredictor(OneHot()).fit(archs[train], y[train], [source])
    errors = [np.std(one.predict(archs[rest]).mean - y[rest]) for one in (alone, helped)]
    assert errors[1] < 0.7 * errors[0]
    other = NB101()
    foreign = ArchBatch.sample(other, 20, np.random.default_rng(0))
    cells = SourceSamples(foreign, target(foreign), "cells")
    with pytest.raises(SourceError, match="sources of its own space only, but 'cells' is of nb101"):
        GaussianProcessPredictor(OneHot()).fit(archs[train], y[train], [cells])
    assert space.name == "nb201"


def test_a_source_is_learned_once(archs, monkeypatch):
    y, learned = target(archs), []
    monkeypatch.setattr(GaussianProcessPredictor, "fit", lambda *a: learned.append(1) or Predictor.fit(*a))
    source = SourceSamples(archs[20:80], y[20:80] ** 2, "another task")
    changed = SourceSamples(source.archs, source.y[::-1], source.name)
    predictor = GaussianProcessPredictor(OneHot())
    for n, sources, times in ((10, [source], 2), (20, [source], 3), (20, [], 4), (20, [source], 6), (20, [changed], 8)):
        predictor.fit(archs[:n], y[:n], sources)
        assert len(learned) == times
        expected = GaussianProcessPredictor(OneHot())
        Predictor.fit(expected, archs[:n], y[:n], sources)
        learned[times:] = []
        np.testing.assert_array_equal(predictor.predict(archs).mean, expected.predict(archs).mean)


@pytest.mark.parametrize(
    "around", [lambda p: p, lambda p: Blend([p]), lambda p: Auto([Candidate("gp", p)])], ids=["alone", "blend", "auto"]
)
def test_what_is_loaded_takes_the_place_of_sources_learned_before(archs, tmp_path, around):
    def new() -> Predictor:
        return around(GaussianProcessPredictor(OneHot()))

    y, known = target(archs), (archs[:20], target(archs)[:20])
    first, second = (SourceSamples(archs[20:80], figures[20:80], "another task") for figures in (y**2, -y))
    new().fit(*known, [second]).save(tmp_path / "p")
    predictor = new().fit(*known, [first]).load(tmp_path / "p", archs.space)
    expected = new().fit(*known, [first]).predict(archs).mean
    np.testing.assert_array_equal(predictor.fit(*known, [first]).predict(archs).mean, expected)


def test_what_was_learned_from_sources_is_saved(archs, tmp_path):
    y = target(archs)
    source = SourceSamples(archs[20:80], y[20:80] ** 2, "another task")
    fitted = GaussianProcessPredictor(OneHot() + Topology(), seed=3).fit(archs[:20], y[:20], [source])
    fitted.save(tmp_path / "p")
    read = GaussianProcessPredictor(OneHot() + Topology(), seed=3).load(tmp_path / "p", archs.space)
    np.testing.assert_allclose(read.predict(archs).mean, fitted.predict(archs).mean)
    alone = GaussianProcessPredictor(OneHot() + Topology(), seed=3).fit(archs[:20], y[:20])
    np.testing.assert_array_equal(read.fit(archs[:20], y[:20]).predict(archs).mean, alone.predict(archs).mean)
    with pytest.raises(PredictorError, match="other arguments"):
        GaussianProcessPredictor(OneHot(), seed=3).load(tmp_path / "p", archs.space)
