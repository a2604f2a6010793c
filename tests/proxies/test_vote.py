"""The vote of several proxies."""

from itertools import product

import numpy as np
import pytest

from proxies import VOTERS, vote
from proxies.engine import SHIPPED


def test_one_beats_another_by_the_majority_of_scores() -> None:
    scores = [[3.0, 30.0, 1.0], [2.0, 20.0, 3.0], [1.0, 10.0, 2.0]]
    np.testing.assert_array_equal(vote(scores), [2, 0, -2])


def test_a_cycle_of_majorities_is_a_tie() -> None:
    np.testing.assert_array_equal(vote([[1, 2, 3], [2, 3, 1], [3, 1, 2]]), [0, 0, 0])


def test_equal_scores_do_not_decide() -> None:
    np.testing.assert_array_equal(vote([[1, 1, 2], [1, 1, 1], [1, 0, 9]]), [1, -1, 0])
    np.testing.assert_array_equal(vote([[1, 2], [1, 1]]), [1, -1])


def test_only_ranks_matter() -> None:
    scores = np.random.default_rng(0).standard_normal((40, 3))
    bent = np.stack([scores[:, 0], np.exp(scores[:, 1]), 9 * scores[:, 2]], axis=1)
    np.testing.assert_array_equal(vote(scores), vote(bent))


def test_agrees_with_counting_pairs_beyond_one_block() -> None:
    scores = np.random.default_rng(1).integers(0, 20, (600, 3)).astype(float)
    margins = np.zeros(600)
    for i, j in product(range(0, 600, 37), range(600)):
        margins[i] += np.sign(sum(np.sign(a - b) for a, b in zip(scores[i], scores[j], strict=True)))
    np.testing.assert_array_equal(vote(scores)[::37], margins[::37])


def test_missing_scores_lose() -> None:
    nan = float("nan")
    np.testing.assert_array_equal(vote([[nan, 1, 1], [5, 2, 0], [nan, nan, nan]]), [0, 2, nan])


def test_a_single_score_stands() -> None:
    np.testing.assert_array_equal(vote([[0.5], [2.0], [-1.0]]), [0.5, 2.0, -1.0])
    assert vote(np.empty((0, 3))).shape == (0,)


@pytest.mark.parametrize("name", VOTERS)
def test_voters_are_shipped_and_maximised(name: str) -> None:
    assert SHIPPED[name].direction == "maximize"
