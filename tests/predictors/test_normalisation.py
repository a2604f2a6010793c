import numpy as np
import pytest
from scipy.stats import norm

from predictors.normalisation import Identity, Logarithm, NormalScores
from searchspaces.errors import PredictorError


def test_scores_are_those_of_the_ranks_whatever_the_scale():
    figures = np.array([3.0, -1e61, 5e61, 7.0, 0.0])
    scores = NormalScores(figures)(figures)
    np.testing.assert_allclose(np.sort(scores), norm.ppf([0.1, 0.3, 0.5, 0.7, 0.9]))
    np.testing.assert_array_equal(np.argsort(scores), np.argsort(figures))


def test_equal_figures_have_one_score_the_mean_ranks():
    scores = NormalScores([1.0, 2.0, 2.0, 2.0, 9.0])
    np.testing.assert_allclose(scores([1.0, 2.0, 9.0]), norm.ppf([0.1, 0.5, 0.9]))


def test_what_lies_between_and_beyond_is_in_order_and_comes_back():
    scores = NormalScores([1.0, 2.0, 4.0, 8.0])
    asked = np.array([-5.0, 0.5, 1.0, 1.5, 3.0, 8.0, 9.0, 100.0])
    found = scores(asked)
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(scores.inverse(found), asked)


def test_infinite_and_unknown_figures():
    scores = NormalScores([np.nan, -np.inf, 1.0, 2.0, np.inf])
    found = scores([-np.inf, 1.5, np.inf, np.nan])
    assert np.isfinite(found[:3]).all()
    assert np.isnan(found[3])
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize("figures", [[], [2.0], [2.0, 2.0], [np.nan]])
def test_a_reference_without_spread_knows_no_difference(figures):
    scores = NormalScores(figures)
    assert (scores([1.0, 2.0, 3.0]) == scores([2.0])).all()
    assert np.isfinite(scores([1.0])).all()


def test_many_figures_are_thinned_without_changing_the_map():
    figures = np.random.default_rng(0).lognormal(size=20000)
    scores = NormalScores(figures)
    assert len(scores.values) < 600
    np.testing.assert_allclose(scores(figures).std(), 1, atol=0.02)
    middle = np.quantile(figures, [0.01, 0.2, 0.5, 0.8, 0.99])
    np.testing.assert_allclose(scores(middle), norm.ppf([0.01, 0.2, 0.5, 0.8, 0.99]), atol=0.02)


def test_logarithms_come_back_as_median_and_deviation_of_the_log_normal():
    mean, std = np.log([2.0, 30.0]), np.array([0.1, 0.5])
    median, deviation = Logarithm([1.0, 2.0]).restored(mean, std)
    drawn = np.exp(mean + std * np.random.default_rng(0).normal(size=(400_000, 2)))
    np.testing.assert_allclose(median, np.median(drawn, axis=0), rtol=0.01)
    np.testing.assert_allclose(deviation, drawn.std(axis=0), rtol=0.01)
    np.testing.assert_allclose(Logarithm([1.0])([np.e, 1.0]), [1.0, 0.0])
    assert np.isfinite(Logarithm([1.0]).restored(np.zeros(1), np.array([1e9]))[1]).all()
    with pytest.raises(PredictorError, match="above 0 ms, but 2 of 3 are not"):
        Logarithm([1.0, 0.0, -1.0])


def test_the_own_scale_changes_nothing():
    assert Identity([1.0])([3.0, -1.0]).tolist() == [3.0, -1.0]
    assert [float(part[0]) for part in Identity([1.0]).restored(np.ones(1), np.ones(1))] == [1.0, 1.0]
