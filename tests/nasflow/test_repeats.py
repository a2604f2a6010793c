import json

import numpy as np
import pytest

from nasflow.repeats import Pairs, agreement
from searchspaces.errors import ConfigError


def repeated(noise: float, n: int = 200, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    true = np.exp(rng.uniform(-1, 1, n))
    first, second = (true * np.exp(noise * rng.standard_normal(n)) for _ in range(2))
    return first, shift * second


@pytest.mark.parametrize("noise", [0.005, 0.02, 0.05])
def test_spread_and_shift_are_found_again(noise: float) -> None:
    found = agreement(*repeated(noise, shift=1.1))
    assert found.spread_percent == pytest.approx(100 * noise, rel=0.15)
    assert found.shift_percent == pytest.approx(10, abs=120 * noise)
    assert found.kendall_tau.value < found.spearman.value < 1


def test_equal_figures_agree_fully() -> None:
    first, _ = repeated(0.0)
    found = agreement(first, 2 * first)
    assert found.kendall_tau.value == pytest.approx(1)
    assert found.spread_percent == pytest.approx(0, abs=1e-9)
    assert found.shift_percent == pytest.approx(100)
    assert [pair.alike for pair in found.pairs] == [1.0, 1.0]
    assert all("fit to rank" in line and "not" not in line for line in found.lines()[2:])


def test_pairs_are_those_about_the_gap_apart() -> None:
    times = np.array([1.0, 1.06, 1.2, 2.0, 4.0])  # 6 % and 13 % are the only small gaps
    (pair, wider) = agreement(times, times * 1.3, gaps=(0.05, 0.1)).pairs
    assert (pair.pairs, wider.pairs) == (1, 2)


def test_noise_decides_what_can_be_ranked() -> None:
    """With normal noise of 6 % a pair 5 to 10 % apart is often swapped, one 10 to 20 % apart seldom."""
    narrow, wide = agreement(*repeated(0.06)).pairs
    assert narrow.alike < 0.9 < wide.alike
    assert str(narrow).startswith("not fit to rank models 5% apart: both collections order 7")
    assert agreement(*repeated(0.3)).pairs[1].alike < 0.8


def test_few_pairs_say_nothing() -> None:
    assert "cannot be told from 3 such pairs" in str(Pairs(0.05, 3, 1.0))
    found = agreement(np.arange(1.0, 7.0) ** 3, np.arange(1.0, 7.0) ** 3)
    assert np.isnan(found.pairs[0].alike)
    assert json.loads(json.dumps(found.facts(), allow_nan=False))["pairs"][0]["alike"] is None
    with pytest.raises(ConfigError, match="at least 5 pairs"):
        agreement([1.0, 2.0], [1.0, 2.0])
