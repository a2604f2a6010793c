import numpy as np
import pytest
from scipy import stats

from nasflow.statistics import kendall_tau, reliability, spearman
from searchspaces.errors import ConfigError


@pytest.mark.parametrize(("ours", "theirs"), [(spearman, stats.spearmanr), (kendall_tau, stats.kendalltau)])
def test_values_are_the_known_ones_with_ties(ours, theirs) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 8, 60)
    y = x + rng.integers(0, 8, 60)
    assert ours(x, y).value == pytest.approx(theirs(x, y).statistic)
    assert ours(x, y).n == 60


@pytest.mark.parametrize(
    ("measure", "true"),
    [(spearman, 6 / np.pi * np.arcsin(0.25)), (kendall_tau, 2 / np.pi * np.arcsin(0.5))],  # of normal pairs with r = .5
)
def test_intervals_cover_the_true_value_about_as_often_as_they_say(measure, true) -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        x = rng.standard_normal(50)
        y = 0.5 * x + np.sqrt(0.75) * rng.standard_normal(50)
        found = measure(x, y)
        assert found.low < found.value < found.high
        covered += found.low <= true <= found.high
    assert 0.91 <= covered / 400 <= 0.98


def test_constant_figures_have_no_correlation() -> None:
    found = spearman(np.arange(10), np.ones(10))
    assert np.isnan(found.value)
    assert np.isnan(found.low)
    assert str(spearman(np.arange(10), np.arange(10))) == "1.000 [1.000, 1.000]"


@pytest.mark.parametrize("pair", [(range(4), range(4)), (range(6), range(7)), (range(6), [1, 2, 3, 4, 5, np.nan])])
def test_too_little_to_correlate_is_refused(pair) -> None:
    with pytest.raises(ConfigError, match="at least 5 pairs"):
        spearman(*map(list, pair))


def test_reliability_is_the_correlation_with_further_repeats() -> None:
    rng = np.random.default_rng(2)
    truth = rng.standard_normal(3000)
    repeats = truth[:, None] + rng.standard_normal((3000, 6))
    measured = spearman(repeats[:, :3].mean(axis=1), repeats[:, 3:].mean(axis=1)).value
    assert reliability(repeats[:, :3]) == pytest.approx(measured, abs=0.02)
    with pytest.raises(ConfigError, match="at least two repeats"):
        reliability(repeats[:, :1])
