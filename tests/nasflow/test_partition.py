import itertools

import numpy as np
import pytest

from nasflow.suites.partition import weakly_correlated
from searchspaces.errors import ConfigError

NAMES = [f"d{i}" for i in range(8)]


def latencies(seed=0):
    """Devices 0, 3, 4 and 6 go by one hidden cost, the others by another; noise tells them apart."""
    rng = np.random.default_rng(seed)
    costs = rng.lognormal(size=(2, 300))
    kinds = [0, 1, 1, 0, 0, 1, 0, 1]
    return costs[kinds] * np.exp(0.2 * rng.normal(size=(8, 300)))


def between(figures, sources, targets):
    alike = np.corrcoef(np.argsort(np.argsort(figures, axis=1), axis=1))
    return alike[np.ix_([NAMES.index(s) for s in sources], [NAMES.index(t) for t in targets])].mean()


@pytest.mark.parametrize("seed", range(5))
def test_devices_of_one_kind_stay_on_one_side(seed):
    halves = weakly_correlated(latencies(seed), NAMES, seed=seed)
    assert sorted(halves) == [["d0", "d3", "d4", "d6"], ["d1", "d2", "d5", "d7"]]


@pytest.mark.parametrize(("sources", "targets"), [(3, 2), (5, 3), (2, 6), (1, 1)])
def test_no_other_choice_of_that_size_agrees_less(sources, targets):
    figures = np.random.default_rng(3).normal(size=(8, 4)) @ np.random.default_rng(4).lognormal(size=(4, 200))
    chosen = weakly_correlated(figures, NAMES, sources, targets)
    assert (len(chosen[0]), len(chosen[1])) == (sources, targets)
    assert not set(chosen[0]) & set(chosen[1])
    best = min(
        between(figures, first, second)
        for first in itertools.combinations(NAMES, sources)
        for second in itertools.combinations([name for name in NAMES if name not in first], targets)
    )
    assert between(figures, *chosen) == pytest.approx(best)


def test_numbers_that_are_left_out_follow_from_the_others():
    figures = latencies()
    assert [len(part) for part in weakly_correlated(figures, NAMES, sources=6)] == [6, 2]
    assert [len(part) for part in weakly_correlated(figures, NAMES, targets=3)] == [5, 3]
    assert [len(part) for part in weakly_correlated(figures[:5], NAMES[:5])] == [3, 2]
    assert weakly_correlated(figures, NAMES, 2, 2, seed=1) == weakly_correlated(figures, NAMES, 2, 2, seed=1)


@pytest.mark.parametrize(("sources", "targets"), [(8, None), (0, 2), (5, 4), (None, 9)])
def test_too_few_devices_are_told(sources, targets):
    with pytest.raises(ConfigError, match=r"8 devices \(d0, d1, .*cannot give"):
        weakly_correlated(latencies(), NAMES, sources, targets)
    with pytest.raises(ConfigError, match="1 devices"):
        weakly_correlated(latencies()[:1], NAMES[:1])
