import numpy as np
import pytest

from predictors.choosers import Cosine, KMeans, MostInformative, Random, Strata
from predictors.encodings import Encoding, LayerCosts, OneHot
from predictors.similarity import side_by_side, similarity
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, PredictorError
from searchspaces.nb201 import NB201

SPACE = NB201("small")
CHOOSERS = {
    "random": Random(),
    "strata": Strata(LayerCosts(), "log macs"),
    "kmeans": KMeans(OneHot()),
    "cosine": Cosine(OneHot()),
    "mutual_information": MostInformative(OneHot()),
    "variance": MostInformative(OneHot(), criterion="variance"),
}


class Constant(Encoding):
    """The same vector for all."""

    def __init__(self, value: float = 1.0) -> None:
        self.value = value

    def columns(self, space):
        return ["one", "two"]

    def encode(self, archs):
        return np.full((len(archs), 2), self.value)


class Position(Encoding):
    """One number, by index."""

    def columns(self, space):
        return ["index"]

    def encode(self, archs):
        return SPACE.index(archs.rows)[:, None] / 7812 - 1.0


@pytest.fixture(scope="module")
def candidates() -> ArchBatch:
    return ArchBatch.sample(SPACE, 400, np.random.default_rng(1))


@pytest.mark.parametrize("name", CHOOSERS)
class TestEach:
    def test_it_picks_different_classes_and_repeats_itself(self, name, candidates):
        for n in (1, 2, 17):
            places = CHOOSERS[name].choose(candidates, n, np.random.default_rng(3))
            assert places.shape == (n,)
            assert len(set(candidates[places].keys())) == n
            np.testing.assert_array_equal(places, CHOOSERS[name].choose(candidates, n, np.random.default_rng(3)))

    def test_other_seeds_pick_others(self, name, candidates):
        many = ArchBatch.sample(SPACE, 3000, np.random.default_rng(2))
        first, second = (CHOOSERS[name].choose(many, 10, np.random.default_rng(seed)) for seed in (1, 2))
        assert set(first) != set(second)

    def test_all_can_be_picked_but_no_more(self, name, candidates):
        few = candidates[:12].unique()
        assert sorted(CHOOSERS["random"].choose(few, len(few), np.random.default_rng(0))) == list(range(len(few)))
        for n in (0, len(few) + 1):
            with pytest.raises(PredictorError, match=f"was asked for {n} of {len(few)} different"):
                CHOOSERS[name].choose(few, n, np.random.default_rng(0))


def test_strata_hold_one_each(candidates):
    apart = candidates.unique()
    macs = LayerCosts().encode(apart)[:, 0]
    places = Strata(LayerCosts(), "log macs").choose(apart, 5, np.random.default_rng(0))
    bounds = np.quantile(macs, [0, 0.2, 0.4, 0.6, 0.8, 1])
    for place, low, high in zip(places, bounds, bounds[1:], strict=False):
        assert low - 0.05 <= macs[place] <= high + 0.05


@pytest.mark.parametrize("name", ["kmeans", "mutual_information", "variance"])
def test_what_is_picked_lies_closer_to_all_than_random_picks(name, candidates):
    vectors = side_by_side(OneHot(), candidates)

    def left(chooser, seed):
        """Mean variance that stays, given measurements of what was picked."""
        places = chooser.choose(candidates, 20, np.random.default_rng(seed))
        inner = similarity(vectors[places], vectors[places]) + 0.1 * np.eye(20)
        cross = similarity(vectors, vectors[places])
        explained = np.einsum("ka,ab,kb->k", cross, np.linalg.inv(inner), cross)
        return np.mean(np.diag(similarity(vectors, vectors)) - explained)

    chosen, drawn = ([left(chooser, seed) for seed in range(10)] for chooser in (CHOOSERS[name], Random()))
    assert np.mean(chosen) < np.mean(drawn) - np.std(drawn) / 3


def test_the_least_certain_lies_at_the_margin():
    line = ArchBatch(SPACE, SPACE.from_index(np.arange(0, 15625, 40))).unique()
    chooser = MostInformative(Position(), criterion="variance", noise=0.5)
    first = line[chooser.choose(line, 1, np.random.default_rng(0))]
    assert np.abs(Position().encode(first)[0, 0]) > 0.97


def test_greedy_variance_maximises_the_determinant_step_by_step(candidates):
    some = candidates[:40].unique()
    vectors = side_by_side(OneHot(), some)
    covariance = similarity(vectors, vectors) + 0.1 * np.eye(len(some))
    picked = list(MostInformative(OneHot(), criterion="variance").choose(some, 4, np.random.default_rng(0)))
    for step in range(1, 4):
        before = picked[:step]
        rest = [i for i in range(len(some)) if i not in before]
        gains = {i: np.linalg.slogdet(covariance[np.ix_([*before, i], [*before, i])])[1] for i in rest}
        assert gains[picked[step]] == pytest.approx(max(gains.values()))


def test_mutual_information_is_gained_step_by_step(candidates):
    some = candidates[:30].unique()
    vectors = side_by_side(OneHot(), some)
    covariance = similarity(vectors, vectors) + 0.1 * np.eye(len(some))
    picked = list(MostInformative(OneHot()).choose(some, 3, np.random.default_rng(0)))

    def variance(i, given):
        cross = covariance[i, given]
        return covariance[i, i] - cross @ np.linalg.solve(covariance[np.ix_(given, given)], cross)

    for step in range(3):
        before = picked[:step]
        rest = [i for i in range(len(some)) if i not in before]
        gains = {i: variance(i, before) / variance(i, [j for j in rest if j != i]) for i in rest}
        assert gains[picked[step]] == pytest.approx(max(gains.values()))


@pytest.mark.parametrize("chooser", [KMeans(Constant()), Cosine(Constant()), MostInformative(Constant())])
def test_what_cannot_be_told_apart_is_refused(chooser, candidates):
    with pytest.raises(PredictorError, match="cannot tell the .* candidates apart"):
        chooser.choose(candidates, 5, np.random.default_rng(0))


def test_other_ways_not_to_work_are_told(candidates):
    rng = np.random.default_rng(0)
    with pytest.raises(PredictorError, match="need an encoding with that column, but it has: one, two"):
        Strata(Constant(), "macs").choose(candidates, 5, rng)
    with pytest.raises(PredictorError, match="have the same one: take chooser=random"):
        Strata(Constant(), "one").choose(candidates, 5, rng)
    with pytest.raises(PredictorError, match="fewer than 30 different vectors"):
        KMeans(Halves()).choose(candidates, 30, rng)
    with pytest.raises(PredictorError, match="vector of zeros"):
        Cosine(Halves()).choose(candidates, 5, rng)
    with pytest.raises(ConfigError, match="criterion of mutual_information, variance"):
        MostInformative(OneHot(), criterion="entropy")
    with pytest.raises(ConfigError, match="positive noise"):
        MostInformative(OneHot(), noise=0)


class Halves(Constant):
    """Two vectors, one of them zero."""

    def encode(self, archs):
        return np.repeat(archs.rows[:, :1] > 2, 2, axis=1).astype(float)
