"""Searches guided by predictors."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from sklearn.linear_model import Ridge

from nasflow.config import composed
from nasflow.flow import Search, search
from nasflow.pareto import best_first
from nasflow.strategies import Deduplicate, Filter, Guided, Random, Warmup
from nasflow.strategies.guided_acquisition import Expectation, ranking, tchebycheff
from nasflow.testing.strategies import (
    StrategyContract,
    ToySpace,
    first,
    make_log,
    random_log,
    toy_cost,
    toy_error,
)
from nasflow.testing.strategies import search as searched
from predictors.accuracy.gaussian import GaussianProcessPredictor
from predictors.accuracy.regression import Regression
from predictors.base import Prediction, Predictor
from predictors.encodings import Encoding, OneHot, Topology
from searchspaces.arch import ArchBatch
from searchspaces.errors import NasflowError
from searchspaces.files import located
from searchspaces.genes import JointSpace
from searchspaces.nb201 import NB201
from searchspaces.pool import Pool
from searchspaces.table import Table
from tests.registry import leaves

GENES = len(ToySpace().genes)
TABLE = "pkg://searchspaces.nb201/digits.parquet"


def rng(seed=0):
    return np.random.default_rng(seed)


class Genes(Encoding):
    """One entry per choice of each active gene of any space of genes, which need not be architectures."""

    def columns(self, space):
        return [f"{gene.name}={choice}" for gene in space.genes for choice in gene.choices]

    def encode(self, archs):
        space, rows = archs.space, archs.space.canonical(archs.rows)
        hot = [
            (rows[:, i, None] == np.arange(size)) & space.active(rows)[:, i, None] for i, size in enumerate(space.sizes)
        ]
        return np.concatenate(hot, axis=1).astype(float)


def quick(seed=0):
    """A predictor for the toy space that takes milliseconds."""
    return GaussianProcessPredictor(Genes(), draws=8, ascents=0, seed=seed)


def good(archs):
    """What architectures are worth, in joint spaces that of the first part."""
    return -toy_error(archs.rows[:, :GENES])


class Oracle(Predictor):
    """Knows what architectures are worth, and notes what it was fitted to."""

    def __init__(self):
        self.fits = []

    def _fit(self, archs, y, sources):
        self.fits.append(archs.rows.tolist())

    def _predict(self, archs):
        return Prediction(good(archs), np.full(len(archs), 0.1))

    def _state(self):
        raise NotImplementedError

    def _restore(self, space, arrays, facts):
        raise NotImplementedError


class GuidedContract(StrategyContract):
    budget = 24
    seeds = 6

    def test_follows_from_log_and_generator(self, strategy, space):
        """As for others, but what is the best candidate may follow from the log alone."""
        for n in (0, 60):
            same = [strategy().propose(random_log(space, n), 4, rng(7))[0] for _ in range(2)]
            assert (same[0] == same[1]).all()
        other, _ = strategy().propose(random_log(space, 0), 4, rng(8))
        assert (other != strategy().propose(random_log(space, 0), 4, rng(7))[0]).any()


class TestGuided(GuidedContract):
    @pytest.fixture
    def strategy(self):
        return lambda: Guided(quick(), initial=6, whole=0, candidates=300)


class TestInRounds(GuidedContract):
    budget = 36

    @pytest.fixture
    def strategy(self):
        return lambda: Guided(quick(), [(2, 2), (4, 4)], 4, "mean", least=30, whole=0, candidates=300)


@pytest.mark.parametrize("acquisition", ["ucb", "thompson"])
class TestDrawing(GuidedContract):
    """Acquisitions that draw; that they beat random sampling is tested below on a table."""

    beats_random = False

    @pytest.fixture
    def strategy(self, acquisition):
        return lambda: Guided(quick(), acquisition=acquisition, whole=0, candidates=200)


# -- what is proposed ----------------------------------------------------------------------------------------------


def grown(n=20, space=None, seed=5):
    space = space or ToySpace()
    rows = Deduplicate(Random()).propose(random_log(space, 0), n, rng(seed))[0]
    return make_log(space, rows, toy_error(rows[:, :GENES])[:, None])


def ranked(space):
    """All classes of the space, best first."""
    rows = space.enumerate_classes()
    return rows[np.argsort(toy_error(rows), kind="stable")]


def everything(predictor, **given):
    """A strategy whose candidates are all classes of the toy space."""
    return Guided(predictor, **{"acquisition": "mean", "whole": 100_000, "initial": 4} | given)


def test_the_best_new_candidates_are_proposed_best_first():
    space = ToySpace()
    log, best = grown(), ranked(space)
    rows, _ = everything(Oracle(), rounds=[(20, 0)]).propose(log, 3, rng())
    assert toy_error(rows).tolist() == toy_error(best[:3]).tolist()
    known = replace(log, pending=rows[:2])
    again, _ = everything(Oracle()).propose(known, 2, rng())
    assert not set(space.keys(again)) & set(space.keys(rows[:2]))
    assert toy_error(again).tolist() == toy_error(best[2:4]).tolist()


def test_rounds_draw_their_second_half_from_a_part_that_halves():
    space = ToySpace()
    best = ranked(space)
    place = {key: i for i, key in enumerate(space.keys(best))}
    strategy = everything(Oracle(), rounds=[(2, 2), (2, 30)], least=10)
    drawn = []
    for n, k in ((4, 4), (8, 32), (40, 32)):
        rows, _ = strategy.propose(grown(n), k, rng(1))
        places = [place[key] for key in space.keys(rows)]
        assert max(places[:2]) < 2 + 72  # what the log and the call hold is passed over
        drawn.append(places[2:])
    size = len(best)
    assert size / 16 < max(drawn[1]) < size / 4
    assert size / 32 < max(drawn[2]) < size / 8
    late, _ = strategy.propose(grown(4 + 4 + 32 * 30), 32, rng(1))
    assert max(place[key] for key in space.keys(late[2:])) < 10 + 1000


def test_a_round_rests_on_the_trials_before_it():
    oracle = Oracle()
    strategy = Guided(oracle, [(2, 2), (3, 0)], initial=4, candidates=50)
    log = grown(12)
    for n in (3, 4, 5, 7, 8, 10, 11, 12):
        strategy.propose(first(log, n), 1, rng())
    assert [len(rows) for rows in oracle.fits] == [4, 8, 11]
    assert oracle.fits[1] == log.rows[:8].tolist()
    strategy.propose(replace(first(log, 6), pending=log.rows[6:9]), 1, rng())
    assert oracle.fits[3] == log.rows[:6].tolist(), "two of the round before are still under way"


def test_the_first_trials_are_random_and_those_of_a_warmup_count():
    space, oracle = ToySpace(), Oracle()
    strategy = Warmup(Guided(oracle, initial=5, candidates=50), good, n=50, top=2)
    for n in range(7):
        strategy.propose(first(grown(), n), 1, rng(n))
        assert len(oracle.fits) == max(0, n - 4)
    rows, _ = Guided(oracle, initial=5).propose(random_log(space, 0), 5, rng(3))
    assert len(np.unique(rows, axis=0)) == 5


def test_trials_that_tell_nothing_are_followed_by_random_ones():
    space = ToySpace()
    rows = space.sample(20, rng())
    equal = np.full((20, 1), 0.5)
    one = np.where(np.arange(20)[:, None] < 1, 1.0, np.inf)
    for losses in (equal, one):
        log = make_log(space, rows, losses, np.where(np.isfinite(losses[:, 0]), 0.0, np.inf))
        oracle = Oracle()
        proposals = [Guided(oracle).propose(log, 1, rng(seed))[0].tolist() for seed in (1, 2)]
        assert oracle.fits == []
        assert proposals[0] != proposals[1]


def test_candidates_of_a_large_space_are_mutations_of_the_best_and_random_ones():
    space, asked = ToySpace(), []

    class Asked(Oracle):
        def _predict(self, archs):
            asked.append(archs.rows)
            return super()._predict(archs)

    log = grown(40)
    for mutated in (1.0, 0.0):
        Guided(Asked(), whole=0, candidates=300, mutated=mutated).propose(log, 1, rng())
    best = log.rows[best_first(log.losses, log.violation)[:10]]
    edits = [(rows[:, None] != best).sum(axis=2).min(axis=1) for rows in asked]
    assert set(edits[0]) == {1, 2, 3}
    assert edits[1].mean() > 3
    assert len(asked[0]) == len(set(space.keys(asked[0])))


def test_a_proposal_of_a_round_among_all_classes_is_never_given_twice():
    space = NB201(scale="small")
    pool = Pool(space, space.sample(25, rng()))
    log = make_log(pool, pool.rows[:4], np.arange(4.0)[:, None])
    rows, _ = Deduplicate(Guided(Regression(OneHot(), Ridge()), [(5, 5)], 4)).propose(log, 30, rng())
    left = set(pool.keys(pool.rows)) - set(pool.keys(log.rows))
    assert set(pool.keys(rows)) == left
    assert len(rows) == len(left)


# -- bounds and objectives -----------------------------------------------------------------------------------------


def test_cheap_bounds_are_kept():
    asked = []

    def keep(rows):
        asked.extend(row.tobytes() for row in rows)
        return np.maximum(toy_cost(rows) - 0.3, 0)

    strategy = everything(Oracle(), keep=keep, rounds=[(1, 1)])
    rows, _ = Filter(Deduplicate(strategy), keep).propose(grown(), 6, rng())
    assert (toy_cost(rows) <= 0.3).all()
    best = ranked(ToySpace())
    assert toy_error(rows[:1]) == toy_error(best[toy_cost(best) <= 0.3][:1])
    before = len(asked)
    strategy.propose(grown(), 1, rng())
    assert len(asked) == before, "what is known of a candidate is not asked again"


def bounded(rows, bound, known_only=False):
    """A log in which trials beyond the bound have missed it, with their objectives known or not."""
    missed = np.maximum(toy_cost(rows) - bound, 0)
    losses = np.where((missed[:, None] > 0) & known_only, np.inf, toy_error(rows)[:, None])
    return make_log(ToySpace(), rows, losses, missed)


@pytest.mark.parametrize("acquisition", ["mean", "ei", "ucb", "thompson"])
@pytest.mark.parametrize("known_only", [False, True])
def test_bounds_on_what_is_expensive_are_learned(acquisition, known_only):
    rows = ToySpace().sample(50, rng())
    log = bounded(rows, 0.35, known_only)
    assert 0.3 < (log.violation <= 0).mean() < 0.6
    strategy = Guided(quick(), [(20, 0)], acquisition=acquisition, candidates=500, mutated=0.0)
    proposed, _ = strategy.propose(log, 20, rng(1))
    free, _ = strategy.propose(make_log(ToySpace(), rows, toy_error(rows)[:, None]), 20, rng(1))
    within = [(toy_cost(found) <= 0.35).mean() for found in (proposed, free)]
    assert within[0] >= (0.7 if acquisition in ("mean", "ei") else 0.35)
    assert within[0] > within[1] + 0.15


def test_without_a_feasible_trial_the_violation_is_lowered():
    rows = ToySpace().sample(200, rng())
    rows = rows[toy_cost(rows) > 0.5][:40]
    log = bounded(rows, 0.2, known_only=True)
    assert (log.violation > 0).all()
    proposed, _ = Guided(quick(), [(10, 0)], candidates=500).propose(log, 10, rng(1))
    assert toy_cost(proposed).mean() < np.quantile(toy_cost(rows), 0.05)


def test_several_objectives_are_weighted_anew_for_each_proposal():
    rows = ToySpace().sample(80, rng())
    losses = np.stack([toy_error(rows), toy_cost(rows)], axis=1)
    log = make_log(ToySpace(), rows, losses)
    proposed, _ = Guided(quick(), [(12, 0)], acquisition="mean", candidates=600).propose(log, 12, rng(1))
    found = np.stack([toy_error(proposed), toy_cost(proposed)], axis=1)
    assert (found[:, 0] < np.quantile(losses[:, 0], 0.1)).any()
    assert (found[:, 1] < np.quantile(losses[:, 1], 0.1)).any()
    better = [(losses <= one).all(axis=1).sum() for one in found]
    assert np.median(better) <= 1


# -- acquisition ---------------------------------------------------------------------------------------------------


def expectation(n=200, objectives=1, seed=0, violation=None):
    draws = rng(seed)
    mean, std = draws.normal(size=(objectives, n)), draws.uniform(0.1, 1, size=(objectives, n))
    return Expectation(mean, std, draws.normal(size=(objectives, 5)), violation)


def test_expected_improvement_is_that_of_draws():
    expected = expectation(30)
    order = ranking("ei", expected, np.ones(1), 1.0, rng())
    draws = expected.mean[0] + expected.std[0] * rng(1).normal(size=(200_000, 30))
    gains = np.maximum(expected.known.min() - draws, 0).mean(axis=0)
    assert (np.diff(gains[order]) < 1e-2 * gains.max()).all()


def test_acquisitions_trade_the_mean_against_doubt():
    mean, std = np.array([[0.0, 0.5, 0.6]]), np.array([[0.1, 0.1, 1.0]])
    expected = Expectation(mean, std, np.zeros((1, 1)), None)
    assert ranking("mean", expected, np.ones(1), 1.0, rng()).tolist() == [0, 1, 2]
    assert ranking("ucb", expected, np.ones(1), 0.0, rng()).tolist() == [0, 1, 2]
    assert ranking("ei", expected, np.ones(1), 1.0, rng())[0] == 2
    for kind in ("ucb", "thompson"):
        winners = {int(ranking(kind, expected, np.ones(1), 1.0, rng(seed))[0]) for seed in range(30)}
        assert winners == {0, 2}


@pytest.mark.parametrize("kind", ["mean", "ei", "ucb"])
def test_what_is_expected_to_miss_bounds_comes_last(kind):
    violation = np.stack([rng(3).normal(size=200), np.full(200, 1e-9)])
    order = ranking(kind, expectation(violation=violation), np.ones(1), 1.0, rng())
    ahead = violation[0][order] <= 0
    assert (np.diff(ahead.astype(int)) <= 0).all()
    assert (np.diff(violation[0][order][~ahead]) >= 0).all()
    free = ranking(kind, expectation(), np.ones(1), 1.0, rng())
    assert order[ahead].tolist() == [i for i in free if violation[0][i] <= 0]


def test_slopes_of_the_tchebycheff_norm_are_its_derivatives():
    losses, weights = rng().normal(size=(3, 50)), np.array([0.5, 0.3, 0.2])
    norm, slopes = tchebycheff(losses, weights)
    assert norm == pytest.approx((weights[:, None] * losses).max(axis=0) + 0.05 * weights @ losses)
    for i in range(3):
        step = np.zeros((3, 1))
        step[i] = 1e-7
        assert (tchebycheff(losses + step, weights)[0] - norm) / 1e-7 == pytest.approx(slopes[i], abs=1e-5)


# -- on architectures ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cells():
    """A pool of 300 trained cells, and how often each is wrong."""
    space = NB201(scale="small")
    table = Table.load(located(TABLE), space)
    rows = table.archs.rows[rng(4).permutation(len(table))[:300]]
    pool = Pool(space, rows)
    return pool, lambda rows: 1 - table.lookup(ArchBatch(space, rows), "accuracy")


@pytest.mark.parametrize(
    ("rounds", "acquisition"), [([(1, 0)], "ei"), ([(2, 0)], "ucb"), ([(2, 0)], "thompson"), ([(2, 2)], "mean")]
)
def test_it_finds_better_cells_than_random_search(cells, rounds, acquisition):
    pool, error = cells
    encoding = OneHot() + Topology()
    found = []
    for seed in range(8):
        predictor = Regression(encoding, Ridge(3.0), seed)
        strategy = Deduplicate(Guided(predictor, rounds, 6, acquisition, seed=seed))
        found.append(searched(strategy, pool, [error], 22, seed).losses.min())
    random = [searched(Deduplicate(Random()), pool, [error], 22, seed).losses.min() for seed in range(40)]
    assert mannwhitneyu(found, random, alternative="less").pvalue < 0.05


@pytest.mark.parametrize("space", leaves("space"))
def test_it_proposes_in_every_shipped_space(space, tmp_path):
    overrides = [f"space={space}", "strategy=guided", "strategy.candidates=200", "storage=memory"]
    made = Search(composed("search", [*overrides, "objective=accuracy_latency"]), tmp_path)
    log = random_log(made.space, 12, objectives=2)
    rows, _ = made.strategy.propose(log, 3, rng())
    assert made.space.is_valid(rows).all()
    assert len(set(made.space.keys(rows)) - set(made.space.keys(log.rows))) == 3


def test_it_proposes_in_joint_spaces():
    space = JointSpace(architecture=ToySpace(), other=ToySpace())
    rows, _ = Guided(quick(), candidates=200).propose(random_log(space, 20), 3, rng())
    assert space.is_valid(rows).all()


SEARCH = [
    "strategy=guided",
    "strategy.initial=4",
    "predictor=ridge",
    "encoding=onehot",
    "evaluator=table",
    "evaluator.table.pool=true",
    f"evaluator.table.path={TABLE}",
    "objective=accuracy",
    "+objective.params_m.at_most=0.08",
]


def test_a_resumed_search_equals_an_uninterrupted_one(tmp_path):
    whole, _ = search(*SEARCH, "budget=14", folder=tmp_path / "whole")
    for budget in (3, 7, 14):
        parts, _ = search(*SEARCH, f"budget={budget}", folder=tmp_path / "parts")
    rows = [[record.row.tolist() for record in run.study.records()] for run in (whole, parts)]
    assert rows[0] == rows[1]
    assert len({record.row.tobytes() for record in whole.study.records()}) == 14
    assert all(record.metrics["params_m"] <= 0.08 for record in whole.study.records()[4:])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["space=fbnet", "encoding=paths"], "too many different paths"),
        (["encoding=full", "encoding.encodings.zero_cost.table=nowhere.parquet"], "nowhere.parquet"),
        (["~encoding"], "needs the arguments encoding"),
        (["strategy.acquisition=eu"], "acquisition 'eu'"),
        (["strategy.rounds=[[1,0],[0,0]]"], r"as in \[\[2,2\],\[4,4\]\], but is"),
        (["strategy.rounds=[]"], "strategy.rounds lists"),
        (["strategy.rounds=[3]"], "strategy.rounds lists"),
        (["strategy.width=-1"], "strategy.width"),
        (["strategy.initial=-1"], "strategy.initial is an integer of at least 0"),
        (["strategy.mutated=2"], "strategy.mutated is a probability"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(overrides, message, tmp_path):
    made = Search(composed("search", ["strategy=guided", *overrides]), tmp_path)
    with pytest.raises(NasflowError, match=message):
        _ = made.strategy


def test_other_strategies_have_no_predictor(tmp_path):
    made = Search(composed("search", ["strategy=random"]), tmp_path)
    assert made.predictor is None
    assert not {"predictor", "encoding"} & set(made.config)
