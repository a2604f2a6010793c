"""Scores of architectures, and what strategies make of them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kendalltau, mannwhitneyu

from nasflow.config import composed, instantiate
from nasflow.evaluators.base import Context
from nasflow.evaluators.proxies import Proxies
from nasflow.flow import Search
from nasflow.strategies import (
    NSGA2,
    ColumnScore,
    Deduplicate,
    Filter,
    MoveProposal,
    OptunaSampler,
    ProxyScore,
    Random,
    RegularizedEvolution,
    Warmup,
)
from nasflow.tasks import Digits
from nasflow.testing.strategies import (
    StrategyContract,
    ToySpace,
    first,
    make_log,
    random_log,
    search,
    toy_cost,
    toy_error,
)
from proxies import Params, vote
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, TableError
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table

GENES = len(ToySpace().genes)


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(rows):
    """A number for each canonical class that has nothing to do with what it is good for."""
    return np.sin(ToySpace().canonical(rows) @ np.arange(11, 11 + GENES) * 12.9898)


def good(archs):
    """What architectures are worth, in joint spaces that of the first part."""
    return -toy_error(archs.rows[:, :GENES])


def noisy(archs):
    """About as telling as the proxies of the field are: a rank correlation of 0.5."""
    return good(archs) + 0.7 * noise(archs.rows[:, :GENES])


def empty(space):
    return make_log(space, np.zeros((0, len(space.genes)), dtype=np.int64), np.zeros((0, 1)))


class Counted:
    """A score that notes what it is asked about."""

    def __init__(self, score=good):
        self.score, self.asked = score, []

    def __call__(self, archs):
        self.asked.append(archs)
        return self.score(archs)


# -- contracts -----------------------------------------------------------------------------------------------------


class WarmupContract(StrategyContract):
    def test_follows_from_log_and_generator(self, strategy, space):
        """As for others, but what comes first follows from the seed, so that all workers begin with the same."""
        for n in (0, 60):
            log = random_log(space, n)
            same = [strategy().propose(log, 4, rng(7))[0] for _ in range(2)]
            other, _ = strategy().propose(log, 4, rng(8))
            assert (same[0] == same[1]).all()
            assert (same[0] == other).all() == (n == 0)


class TestWarmup(WarmupContract):
    @pytest.fixture
    def strategy(self):
        return lambda: Warmup(RegularizedEvolution(), noisy, n=300)


class TestWarmupOfNSGA2(WarmupContract):
    @pytest.fixture
    def strategy(self):
        return lambda: Filter(Deduplicate(Warmup(NSGA2(), noisy, n=200, top=30)), lambda rows: np.zeros(len(rows)))


class TestMoveProposal(StrategyContract):
    @pytest.fixture
    def strategy(self):
        return lambda: MoveProposal(RegularizedEvolution(), noisy)


class TestBoth(WarmupContract):
    seeds = 10

    @pytest.fixture
    def strategy(self):
        return lambda: Deduplicate(Warmup(MoveProposal(RegularizedEvolution(), noisy), noisy, n=300))


# -- that it helps -------------------------------------------------------------------------------------------------


def errors(make, budget, seeds=30):
    return [search(make(seed), ToySpace(), [toy_error], budget, seed).losses.min() for seed in range(seeds)]


def test_the_noisy_score_is_as_telling_as_it_says():
    rows = ToySpace().sample(2000, rng())
    assert 0.4 < kendalltau(noisy(ArchBatch(ToySpace(), rows)), -toy_error(rows)).statistic < 0.6


def test_a_warmup_finds_better_architectures_with_the_same_budget():
    with_score = errors(lambda seed: Warmup(RegularizedEvolution(), noisy, n=500, seed=seed), 40)
    without = errors(lambda seed: RegularizedEvolution(), 40)
    assert mannwhitneyu(with_score, without, alternative="less").pvalue < 0.01


def test_scored_mutations_find_better_architectures_with_the_same_budget():
    scored = errors(lambda seed: MoveProposal(RegularizedEvolution(), noisy), 40)
    random = errors(lambda seed: RegularizedEvolution(), 40)
    assert mannwhitneyu(scored, random, alternative="less").pvalue < 0.01


# -- warm-up -------------------------------------------------------------------------------------------------------


def test_the_best_scored_are_proposed_best_first_and_then_the_strategy_goes_on():
    space, score = ToySpace(), Counted()
    strategy = Warmup(RegularizedEvolution(population=8), score, n=400)
    log = search(strategy, space, [toy_error], 30, seed=0)
    (asked,) = score.asked
    assert 300 < len(asked) <= 400
    assert len(set(asked.keys())) == len(asked)
    assert (log.losses[:8, 0] == np.sort(toy_error(asked.rows))[:8]).all()
    children = log.rows[8:]
    nearest = np.abs(children[:, None] - log.rows[None, :8]).astype(bool).sum(axis=2).min(axis=1)
    assert nearest[0] == 1


def test_what_is_scored_follows_from_the_seed():
    asked = []
    for seed in (0, 0, 1):
        score = Counted()
        Warmup(Random(), score, n=50, top=10, seed=seed).propose(empty(ToySpace()), 1, rng())
        asked.append(score.asked[0].rows.tolist())
    assert asked[0] == asked[1] != asked[2]


def test_nothing_is_scored_when_the_warmup_is_over():
    score = Counted()
    Warmup(Random(), score, n=50, top=10).propose(random_log(ToySpace(), 8), 3, rng())  # two are under way
    assert score.asked == []


def test_known_and_pending_architectures_are_not_proposed_again():
    space = ToySpace()
    best = Warmup(Random(), good, n=200, top=6).propose(empty(space), 6, rng())[0]
    log = replace(make_log(space, best[[0, 2]], np.full((2, 1), np.inf), np.full(2, np.inf)), pending=best[[1]])
    rows, _ = Warmup(Random(), good, n=200, top=6).propose(log, 3, rng())
    assert (rows == best[3:]).all()


def test_more_than_the_warmup_holds_comes_from_the_strategy():
    space = ToySpace()
    best = Warmup(Random(), good, n=200, top=6).propose(empty(space), 6, rng())[0]
    rows, _ = Warmup(Random(), good, n=200, top=6).propose(empty(space), 9, rng(3))
    assert (rows[:6] == best).all()
    assert (rows[6:] == space.sample(3, rng(3))).all()


def test_bounds_are_kept_before_anything_is_scored():
    space, score = ToySpace(), Counted(lambda archs: toy_cost(archs.rows))  # would lead beyond the bound
    keep = lambda rows: np.maximum(toy_cost(rows) - 0.4, 0)  # noqa: E731
    strategy = Filter(Deduplicate(Warmup(Random(), score, n=300, top=20, keep=keep)), keep)
    log = search(strategy, space, [toy_error], 20, seed=0)
    assert (toy_cost(score.asked[0].rows) <= 0.4).all()
    assert (toy_cost(log.rows) <= 0.4).all()
    assert (np.diff(toy_cost(log.rows)) <= 0).all()


def test_bounds_that_no_sample_keeps_leave_it_to_the_strategy():
    keep = lambda rows: np.ones(len(rows))  # noqa: E731
    rows, _ = Warmup(Random(), good, n=20, top=5, keep=keep).propose(empty(ToySpace()), 2, rng(1))
    assert (rows == ToySpace().sample(2, rng(1))).all()


def test_what_cannot_be_scored_comes_last():
    partly = lambda archs: np.where(archs.rows[:, 0] == 3, np.nan, good(archs))  # noqa: E731
    rows, _ = Warmup(Random(), partly, n=200, top=50).propose(empty(ToySpace()), 50, rng())
    assert (rows[:, 0] < 3).all()
    with pytest.raises(ConfigError, match="not defined for any"):
        Warmup(Random(), lambda archs: np.full(len(archs), np.nan), n=9, top=5).propose(empty(ToySpace()), 1, rng())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Warmup(Random(), good), "Random has no population: give strategy.top"),
        (lambda: Warmup(RegularizedEvolution(), good, n=19), "n=19 random architectures are too few"),
        (lambda: Warmup(RegularizedEvolution(), good, n=0), "strategy.n is an integer of at least 1"),
        (lambda: MoveProposal(Random(), good), "mutates parents, such as evolution, but Random does not"),
        (lambda: MoveProposal(Warmup(RegularizedEvolution(), good), good), "belongs around them"),
        (lambda: MoveProposal(RegularizedEvolution(), good, share=1.5), "strategy.share is a probability"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


# -- scored mutations ----------------------------------------------------------------------------------------------


def grown(space, n=40):
    rows = space.sample(n, rng(5))
    return make_log(space, rows, toy_error(rows)[:, None])


def test_the_best_new_neighbour_of_the_parent_is_proposed():
    space, log = ToySpace(), grown(ToySpace())
    inner = RegularizedEvolution()
    for seed in range(5):
        parent = inner.parents(log, 1, rng(seed))[0]
        neighbors = space.neighbors(parent)
        known = set(space.keys(log.rows))
        new = neighbors[[key not in known for key in space.keys(neighbors)]]
        rows, _ = MoveProposal(inner, good, share=1.0).propose(log, 1, rng(seed))
        assert toy_error(rows)[0] == toy_error(new).min()
        assert (rows != parent).sum() == 1


def test_one_neighbour_is_not_proposed_twice_and_exhausted_parents_mutate_at_random():
    space = ToySpace()
    parent = np.array([3, 0, 1, 1, 2, 3, 2, 2])
    neighbors = space.neighbors(parent)
    classes = len(set(space.keys(neighbors)))
    log = make_log(space, parent[None], np.zeros((1, 1)))
    strategy = MoveProposal(RegularizedEvolution(population=1), good, share=1.0)
    rows, _ = strategy.propose(log, classes + 3, rng())
    assert len(set(space.keys(rows[:classes]))) == classes
    assert (np.diff(toy_error(rows[:classes])) >= 0).all()
    assert ((rows != parent).sum(axis=1) == 1).all()


def test_a_share_of_the_mutations_stays_random():
    log, score = grown(ToySpace()), Counted()
    for seed in range(400):
        MoveProposal(RegularizedEvolution(), score, share=0.75).propose(log, 1, rng(seed))
    assert 270 < len(score.asked) < 330
    score = Counted()
    rows, _ = MoveProposal(RegularizedEvolution(), score, share=0.0).propose(log, 5, rng(2))
    assert score.asked == []
    assert (rows == RegularizedEvolution().propose(log, 5, rng(2))[0]).all()


def test_neighbours_beyond_a_bound_are_not_scored():
    log = grown(ToySpace())
    score = Counted(lambda archs: toy_cost(archs.rows))
    keep = lambda rows: np.maximum(toy_cost(rows) - 0.5, 0)  # noqa: E731
    MoveProposal(RegularizedEvolution(), score, share=1.0, keep=keep).propose(log, 10, rng())
    assert score.asked
    assert all((toy_cost(archs.rows) <= 0.5).all() for archs in score.asked)


def test_the_first_population_of_scored_mutations_is_the_strategys():
    log = first(grown(ToySpace()), 10)
    expected, _ = RegularizedEvolution().propose(log, 2, rng(4))
    assert (MoveProposal(RegularizedEvolution(), good).propose(log, 2, rng(4))[0] == expected).all()


# -- scores --------------------------------------------------------------------------------------------------------


SPACE, TASK = NB201(scale="small"), Digits()


def test_proxies_score_each_class_once_and_alike():
    archs = ArchBatch.sample(SPACE, 6, rng(1))
    proxies, asked = ["synflow", "nwot"], []
    score = ProxyScore(SPACE, TASK, proxies, batch_size=8)
    evaluate = score._evaluator.evaluate
    score._evaluator.evaluate = lambda archs, context: asked.append(archs) or evaluate(archs, context)
    found = score(archs)
    columns = Proxies(SPACE, TASK, proxies, batch_size=8).evaluate(archs.canonical(), Context([0] * 6)).columns
    assert (found == vote(np.stack([columns[name] for name in proxies], axis=1))).all()
    assert (score(archs[::-1])[::-1] == found).all()
    assert len(asked) == len(set(archs.keys()))


def test_what_a_proxy_does_not_define_is_unknown():
    archs = ArchBatch(SPACE, np.array([[0, 0, 0, 0, 0, 0], [3, 0, 0, 0, 1, 0]]))
    sizes = Proxies(SPACE, TASK, ["params"]).evaluate(archs, Context([0, 0])).columns["params"]

    class Fewer(Params):
        name = "fewer"
        direction = "minimize"

        def score(self, probe):
            value = super().score(probe)
            return float("inf") if value == sizes[0] else value

    found = ProxyScore(SPACE, TASK, [Fewer()])(archs)
    assert np.isnan(found[0])
    assert found[1] == -sizes[1]


def table(values, rows):
    return Table(ArchBatch(SPACE, rows), values, [Column(name) for name in values])


def test_columns_score_through_the_canonical_class():
    dead_free = SPACE.canonical(SPACE.sample(30, rng(2)))
    rows = np.unique(dead_free, axis=0)
    values = {"up": np.arange(len(rows), dtype=float), "down": np.arange(len(rows), dtype=float) ** 2}
    writings = SPACE.sample(3000, rng(3))
    known = set(SPACE.keys(rows))
    archs = ArchBatch(SPACE, writings[[key in known for key in SPACE.keys(writings)]])
    assert (archs.rows != SPACE.canonical(archs.rows)).any()
    place = {key: i for i, key in enumerate(SPACE.keys(rows))}
    expected = np.array([place[key] for key in SPACE.keys(archs.rows)], dtype=float)
    assert (ColumnScore(table(values, rows), {"up": "maximize"})(archs) == expected).all()
    assert (ColumnScore(table(values, rows), {"down": "minimize"})(archs) == -(expected**2)).all()
    assert (ColumnScore(table(values, rows), {"up": "maximize", "down": "minimize"})(archs) == 0).all()


def test_columns_say_what_is_missing():
    rows = SPACE.from_index([3])
    with pytest.raises(TableError, match="holds no architecture of the class of .*, nor of 1 others of 3"):
        ColumnScore(table({"up": [1.0]}, rows), {"up": "maximize"})(ArchBatch(SPACE, SPACE.from_index([3, 4, 7])))
    with pytest.raises(TableError, match="Unknown column 'upp'"):
        ColumnScore(table({"up": [1.0]}, rows), {"upp": "maximize"})
    with pytest.raises(ConfigError, match="to maximize or to minimize, not 'max'"):
        ColumnScore(table({"up": [1.0]}, rows), {"up": "max"})
    with pytest.raises(ConfigError, match="at least one"):
        ColumnScore(table({"up": [1.0]}, rows), {})
    with pytest.raises(ConfigError, match="at least one"):
        ProxyScore(SPACE, TASK, [])
    with pytest.raises(ConfigError, match="Did you mean 'synflow'"):
        ProxyScore(SPACE, TASK, ["sinflow"])


# -- configuration -------------------------------------------------------------------------------------------------


def built(*overrides):
    config = composed("search", overrides)
    return instantiate(config.strategy, space=SPACE, task=TASK, seed=3, keep=None)


def test_the_leaves_nest():
    warmup = built("strategy=warmup", "strategy.score.proxies=[params,macs]")
    assert (warmup.top, warmup.n, warmup.seed) == (20, 3000, 3)
    assert isinstance(warmup.strategy, RegularizedEvolution)
    both = built("strategy=warmup", "strategy@strategy.strategy=moves", "strategy.strategy.strategy.population=64")
    assert both.top == 64
    assert isinstance(both.strategy, MoveProposal)
    assert built("strategy=warmup", "strategy@strategy.strategy=nsga2").top == 12
    tpe = built("strategy=warmup", "strategy@strategy.strategy=tpe", "strategy.top=9")
    assert isinstance(tpe.strategy, OptunaSampler)


def test_a_search_hands_over_seed_task_and_cheap_bounds(tmp_path):
    overrides = ["strategy=warmup", "strategy.n=40", "objective=accuracy", "+objective.params_m.at_most=0.03", "seed=5"]
    config = composed("search", [*overrides, "strategy.score.proxies=[params]", "storage=memory", "budget=1"])
    run = Search(config, tmp_path)
    warmup = run.strategy.strategy.strategy
    assert isinstance(warmup, Warmup)
    assert warmup.seed == 5
    rows = run.space.sample(40, rng())
    assert ((warmup.keep(rows) > 0) == (parameters(run, rows) > 0.03e6)).all()
    assert 0 < (warmup.keep(rows) > 0).sum() < 40
    best, _ = warmup.propose(empty(run.space), 3, rng())
    assert (parameters(run, best) <= 0.03e6).all()


def parameters(run, rows):
    proxies = Proxies(run.space, run.task, ["params"])
    return proxies.evaluate(ArchBatch(run.space, rows), Context([0] * len(rows))).columns["params"]
