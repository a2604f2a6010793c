"""The shipped strategies: their contract, and what is particular to each."""

from dataclasses import replace
from functools import cache
from importlib.resources import files

import numpy as np
import optuna
import pytest

from nasflow.config import composed, instantiate, plain
from nasflow.objectives import Objectives
from nasflow.pareto import best_first, non_dominated
from nasflow.strategies import NSGA2, Deduplicate, Filter, OptunaSampler, Random, RegularizedEvolution
from nasflow.strategies.optuna_sampler import SAMPLERS, repair
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
from searchspaces.errors import ConfigError
from searchspaces.genes import Gene, GeneSpace, JointSpace
from tests.nasflow.test_guided import GuidedContract
from tests.nasflow.test_guided import quick as quick_predictor
from tests.nasflow.test_warmup import WarmupContract
from tests.registry import leaves


def rng(seed=0):
    return np.random.default_rng(seed)


def toy_score(archs):
    """Takes the place of scores by networks, which the toy space does not have."""
    return -toy_error(archs.rows[:, : len(ToySpace.genes)])


def scorer():
    return toy_score


@cache
def configured(name):
    config = plain(composed("search", [f"strategy={name}"]).strategy)
    return config | ({"score": {"_target_": f"{__name__}.scorer"}} if "score" in config else {})


def shipped(name):
    """The strategy of a yaml in conf/strategy, as a search builds it."""
    objectives = Objectives(error={"direction": "minimize"})
    parts = {"space": ToySpace(), "task": None, "objectives": objectives, "seed": 0, "keep": None}
    return instantiate(configured(name), **parts, predictor=quick_predictor())


class RandomContract(StrategyContract):
    beats_random = False


class TPEContract(StrategyContract):
    budget = 40


class RoundsContract(GuidedContract):
    budget = 60


# What a yaml's contract differs in; one that does not stand here must fulfil the contract as it is.
DIFFERENT = {"random": RandomContract, "tpe": TPEContract, "warmup": WarmupContract, "guided": GuidedContract}
DIFFERENT |= dict.fromkeys(("bananas", "brpnas", "flan"), RoundsContract)


def contract(name):
    class Shipped(DIFFERENT.get(name, StrategyContract)):
        @pytest.fixture
        def strategy(self):
            return lambda: shipped(name)

    return Shipped


globals().update({f"TestShipped{name.title()}": contract(name) for name in leaves("strategy")})


def test_every_shipped_strategy_has_its_contract():
    assert set(DIFFERENT) < set(leaves("strategy"))
    for name in leaves("strategy"):
        assert issubclass(globals()[f"TestShipped{name.title()}"], StrategyContract)


class TestGenerationalNSGA2(StrategyContract):
    @pytest.fixture
    def strategy(self):
        return lambda: NSGA2(population=16, offspring=None, mutation=0.2)


class TestDeduplicate(StrategyContract):
    @pytest.fixture
    def strategy(self):
        return lambda: Deduplicate(RegularizedEvolution())


class TestFilterAndDeduplicate(StrategyContract):
    seeds = 10

    @pytest.fixture
    def strategy(self):
        return lambda: Filter(Deduplicate(NSGA2()), lambda rows: np.maximum(toy_cost(rows) - 0.7, 0))


class Tiny(GeneSpace):
    """27 rows in 12 classes: the first gene has two names for one choice, the order of the others does not matter."""

    name = "tiny"
    genes = tuple(Gene(f"g{i}", ("a", "b", "c")) for i in range(3))

    def canonical(self, rows):
        return np.concatenate([np.minimum(rows[:, :1], 1), np.sort(rows[:, 1:], axis=1)], axis=1)


class Recorded:
    """A strategy that proposes a fixed row and counts how often it is asked."""

    def __init__(self, *rows):
        self.rows, self.asked, self.pending = np.array(rows, dtype=np.int64), 0, []

    def propose(self, log, k, rng):
        self.asked += 1
        self.pending.append(log.pending)
        return self.rows[np.arange(k) % len(self.rows)] if len(self.rows) else log.rows[:0], 3.0


# -- populations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [RegularizedEvolution, NSGA2])
def test_failed_trials_do_not_fill_the_population(make):
    space, strategy = ToySpace(), make(population=10)
    rows = space.sample(30, rng())
    losses = np.where(np.arange(30)[:, None] < 9, 1.0, np.inf)
    failed = np.where(np.arange(30) < 9, 0.0, np.inf)
    drawn, _ = strategy.propose(make_log(space, rows, losses, failed), 50, rng(1))
    assert (drawn == space.sample(50, rng(1))).all()
    losses[9], failed[9] = 1.0, 0.0
    bred, _ = strategy.propose(make_log(space, rows, losses, failed), 50, rng(1))
    assert (bred != drawn).any()


def test_evolution_breeds_from_the_best_of_the_youngest():
    space = ToySpace()
    rows = space.sample(40, rng())
    losses = np.arange(40.0)[:, None]
    log = make_log(space, rows, losses)
    children, _ = RegularizedEvolution(population=10, tournament=200).propose(log, 50, rng(1))
    assert ((children != rows[30]).sum(axis=1) == 1).all()


def test_evolution_without_selection_breeds_from_all_of_the_youngest():
    space = ToySpace()
    rows = space.sample(40, rng())
    children, _ = RegularizedEvolution(10, 1).propose(make_log(space, rows, np.arange(40.0)[:, None]), 500, rng(1))
    distance = (children[:, None] != rows).sum(axis=2)
    parents = {int(i) for i in np.argwhere(distance == 1)[:, 1] if i >= 30}
    assert parents == set(range(30, 40))
    assert (distance[:, 30:].min(axis=1) == 1).all()


@pytest.mark.parametrize("make", [lambda: RegularizedEvolution(20, 100), lambda: NSGA2(4, crossover=0, mutation=0)])
def test_least_violation_leads_where_nothing_is_feasible(make):
    space = ToySpace()
    rows = space.sample(20, rng())
    violation = np.linspace(1, 2, 20)[::-1]
    log = make_log(space, rows, np.full((20, 2), np.inf), violation)
    children, _ = make().propose(log, 30, rng(1))
    best = rows[-4:] if isinstance(make(), NSGA2) else rows[-1:]
    assert ((children[:, None] != best).sum(axis=2).min(axis=1) == 1).all()


def generations(losses, violation, population, offspring):
    """NSGA-II's survivors, computed from the beginning."""
    survivors = np.arange(population)
    for start in range(population, len(losses) - offspring + 1, offspring):
        pool = np.concatenate([survivors, np.arange(start, start + offspring)])
        survivors = pool[best_first(losses[pool], violation[pool])[:population]]
    return set(survivors.tolist())


@pytest.mark.parametrize("offspring", [None, 1, 3])
def test_nsga2_breeds_from_the_survivors_of_all_generations(offspring):
    space, strategy = ToySpace(), NSGA2(population=6, offspring=offspring, crossover=0.0, mutation=0.0)
    whole = random_log(space, 50, objectives=2)
    members = np.flatnonzero(whole.violation < np.inf)
    for n in (20, 21, 29, 50):
        log = first(whole, n)
        used = members[members < n]
        survivors = generations(log.losses[used], log.violation[used], 6, offspring or 6)
        children, _ = strategy.propose(log, 300, rng(n))
        distance = (children[:, None] != log.rows[used]).sum(axis=2)
        inside = distance[:, sorted(survivors)]
        assert (inside.min(axis=1) == 1).all()
        assert (inside == 1).any(axis=0).all()


def test_nsga2_children_mix_two_parents():
    space = JointSpace(part=ToySpace())
    rows = np.array([[0] * 8, [3] * 8], dtype=np.int64)
    log = make_log(space, rows, np.array([[0.0, 1], [1, 0]]))
    children, _ = NSGA2(2, crossover=1.0, mutation=0.0).propose(log, 200, rng())
    assert space.is_valid(children).all()
    assert not np.isin(np.unique(children, axis=0), rows).all(axis=1).all() or len(np.unique(children, axis=0)) > 2
    assert not (children[:, None] == rows).all(axis=2).any()  # a copy is mutated instead


@pytest.mark.parametrize(
    "make",
    [
        lambda: RegularizedEvolution(population=0),
        lambda: RegularizedEvolution(tournament=1.5),
        lambda: NSGA2(population=1),
        lambda: NSGA2(offspring=0),
        lambda: NSGA2(crossover=1.5),
        lambda: NSGA2(mutation=-0.1),
        lambda: Deduplicate(Random(), tries=0),
        lambda: OptunaSampler("TPEsampler"),
        lambda: OptunaSampler("TPESampler", startup=3),
        lambda: OptunaSampler("NSGAIISampler"),
        lambda: OptunaSampler("TPESampler", group=True, multivariate=False),
    ],
)
def test_wrong_arguments_are_refused_in_words(make):
    with pytest.raises(ConfigError, match=r"\w+ \w+ \w+"):
        make()


# -- Optuna ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_named_sampler_proposes(sampler):
    log = random_log(ToySpace(), 14, objectives=2)
    rows, fidelity = OptunaSampler(sampler).propose(log, 2, rng())
    assert (log.space.check(rows) == rows).all()
    assert fidelity is None


def test_optuna_sees_the_log():
    seen = []

    class Spy(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, name, distribution):
            if name == "depth":
                seen.append([t for t in study.get_trials() if t.number != trial.number])
            return super().sample_independent(study, trial, name, distribution)

    log = random_log(ToySpace(), 30, objectives=2)
    strategy = OptunaSampler(Spy)
    strategy.propose(first(log, 20), 1, rng())
    strategy.propose(log, 2, rng())
    states = optuna.trial.TrialState
    trials = [t for t in seen[1] if t.state in (states.COMPLETE, states.PRUNED)]
    known = np.flatnonzero(log.violation < np.inf)
    assert [t.params["depth"] for t in trials] == [4 + log.rows[i, 0] for i in known]
    assert [t.constraints["violation"] for t in trials] == log.violation[known].tolist()
    assert [t.values for t in trials if t.state == states.COMPLETE] == log.losses[log.succeeded].tolist()
    running = [t for t in seen[1] if t.state == states.RUNNING]
    assert [t.params["width0"] for t in running] == [8 * 2**width for width in log.pending[:, 1]]
    assert sum(t.state == states.RUNNING for t in seen[2]) == len(running) + 1  # the first proposal is under way too


def test_the_first_missed_bound_turns_all_trials_into_constrained_ones():
    log = random_log(ToySpace(), 24)
    good = np.flatnonzero(log.violation == 0)
    free = make_log(log.space, log.rows[good], log.losses[good])
    grown = np.concatenate([good, np.flatnonzero((log.violation > 0) & log.succeeded)])
    bounded = make_log(log.space, log.rows[grown], log.losses[grown], log.violation[grown])
    assert len(grown) > len(good)
    strategy = OptunaSampler("GPSampler")
    strategy.propose(free, 1, rng())
    by_used, _ = strategy.propose(bounded, 1, rng())
    assert (by_used == OptunaSampler("GPSampler").propose(bounded, 1, rng())[0]).all()


def test_a_proposal_that_failed_leaves_nothing_behind():
    running = []

    class Fragile(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, name, distribution):
            states = [t.state for t in study.get_trials() if t.number != trial.number]
            running.append(states.count(optuna.trial.TrialState.RUNNING))
            if len(running) == 3:
                raise RuntimeError("interrupted")
            return super().sample_independent(study, trial, name, distribution)

    log, strategy = random_log(ToySpace(), 20), OptunaSampler(Fragile)
    strategy.propose(first(log, 20), 0, rng())
    with pytest.raises(RuntimeError):
        strategy.propose(log, 1, rng())
    strategy.propose(log, 1, rng())
    assert set(running) == {len(log.pending)}


def test_proposals_leave_no_trials_that_slow_optuna_down():
    log, strategy = random_log(ToySpace(), 20), OptunaSampler("RandomSampler")
    for i in range(200):
        strategy.propose(log, 1, rng(i))
    assert len(strategy._cache[0].get_trials(deepcopy=False)) < 100


def test_a_repaired_row_stays_close_and_valid():
    space = JointSpace(a=ToySpace(), b=ToySpace()).freeze("b", np.array([1, 2, 1, 0, 1, 2, 3, 2]))
    rows = rng().integers(0, space.sizes, size=(100, 16))
    assert not space.is_valid(rows).any()
    mended = repair(space, rows, rng(1))
    assert space.is_valid(mended).all()
    good = ToySpace().is_valid(rows[:, :8])
    assert (mended[good, :8] == rows[good, :8]).mean() > 0.9
    assert (repair(space, mended, rng(2)) == mended).all()


# -- wrappers ----------------------------------------------------------------------------------------------------


def test_deduplicate_exhausts_a_space_and_says_so():
    space, strategy = Tiny(), Deduplicate(Random())
    log = search(strategy, space, [lambda rows: rows.sum(axis=1)], 40, seed=0)
    assert len(log) == 12 == len(set(space.keys(log.rows)))
    assert strategy.propose(log, 3, rng())[0].shape == (0, 3)
    assert strategy.propose(first(log, 10), 5, rng())[0].shape == (2, 3)


def test_deduplicate_avoids_log_pending_and_repeats():
    space = Tiny()
    rows = space.sample(27, rng())
    log = make_log(space, rows[:3], np.zeros((3, 1)), pending=rows[3:5])
    known = set(space.keys(rows[:5]))
    for seed in range(20):
        keys = space.keys(Deduplicate(Random()).propose(log, 4, rng(seed))[0])
        assert len(keys) == 4 == len(set(keys) - known)


def test_deduplicate_asks_again_then_mutates_then_samples():
    space = ToySpace()
    row = space.sample(1, rng())[0]
    stubborn = Recorded(row)
    log = make_log(space, row[None], np.zeros((1, 1)))
    rows, fidelity = Deduplicate(stubborn, tries=4).propose(log, 1, rng())
    assert stubborn.asked == 4
    assert fidelity == 3.0
    assert ((rows != row).sum(axis=1) == 1).all()
    near = np.concatenate([row[None], space.neighbors(row)])
    near = np.concatenate([near, *(space.neighbors(n) for n in near)])
    near = np.concatenate([near, *(space.neighbors(n) for n in np.unique(near, axis=0))])
    log = make_log(space, near, np.zeros((len(near), 1)))
    rows, _ = Deduplicate(stubborn).propose(log, 1, rng())
    assert len(rows) == 1
    assert (near != rows[0]).any(axis=1).all()


def test_deduplicate_prefers_what_the_strategy_proposes():
    space = ToySpace()
    rows = space.sample(3, rng())
    log = make_log(space, rows[:1], np.zeros((1, 1)))
    proposed, _ = Deduplicate(Recorded(*rows)).propose(log, 3, rng())
    assert (proposed[:2] == rows[1:]).all()
    assert ((proposed[2] != rows).sum(axis=1) == 1).any()


def test_an_exhausted_strategy_is_not_replaced():
    log = random_log(ToySpace(), 5)
    exhausted = Recorded()
    for strategy in (Deduplicate(exhausted), Filter(exhausted, toy_cost), Filter(Deduplicate(exhausted), toy_cost)):
        assert strategy.propose(log, 2, rng())[0].shape == (0, 8)
    assert exhausted.asked == 3


def test_deduplicate_tells_spaces_apart():
    strategy, tiny = Deduplicate(Random()), Tiny()

    class Plain(Tiny):
        name = "plain"

        def canonical(self, rows):
            return rows

    for space, classes in ((tiny, 12), (Plain(), 27), (tiny, 12)):
        assert len(search(strategy, space, [lambda rows: rows.sum(axis=1)], 40, seed=0)) == classes


def test_filter_keeps_the_bound_where_it_can():
    space = ToySpace()
    log = random_log(space, 20)
    over = lambda rows: np.maximum(toy_cost(rows) - 0.25, 0)  # noqa: E731
    assert (over(space.sample(200, rng())) > 0).mean() > 0.7
    rows, _ = Filter(Random(), over).propose(log, 5, rng())
    assert rows.shape == (5, 8)
    assert (over(rows) == 0).all()


def test_filter_takes_the_least_violating_where_it_cannot():
    space = ToySpace()
    log = random_log(space, 20)
    offered = space.sample(30, rng())
    strategy = Recorded(*offered)
    violation = lambda rows: 1 + toy_cost(rows)  # noqa: E731
    rows, _ = Filter(strategy, violation, tries=3).propose(log, 30, rng())
    costs = toy_cost(rows)
    assert strategy.asked == 3
    assert (np.diff(costs) >= 0).all()
    assert len(set(space.keys(rows))) == len(rows) == len(set(space.keys(offered)))
    unknown = lambda rows: np.where((rows == offered[0]).all(axis=1), np.nan, violation(rows))  # noqa: E731
    few, _ = Filter(strategy, unknown, tries=1).propose(log, 2, rng())
    assert (few == offered[[1, 0]]).all()


def test_filter_tells_the_strategy_what_it_holds():
    space = ToySpace()
    log = random_log(space, 20)
    rows = space.sample(2, rng())
    inner = Recorded(*rows)
    Filter(inner, lambda r: (r != rows[0]).any(axis=1).astype(float), tries=2).propose(log, 2, rng())
    assert len(inner.pending[0]) == len(log.pending)
    assert (inner.pending[1][-1] == rows[0]).all()


def test_wrapped_searches_do_not_repeat_and_keep_the_bound():
    space, bound = ToySpace(), 0.4
    strategy = Filter(Deduplicate(NSGA2()), lambda rows: np.maximum(toy_cost(rows) - bound, 0))
    log = search(strategy, space, [toy_error, toy_cost], 100, seed=0)
    assert len(set(space.keys(log.rows))) == len(log) == 100
    assert (toy_cost(log.rows) <= bound).all()
    assert non_dominated(log.losses).sum() > 3


def test_pending_work_does_not_change_what_a_population_is():
    log = random_log(ToySpace(), 40, objectives=2)
    alone = replace(log, pending=log.rows[:0])
    for make in (Random, RegularizedEvolution, NSGA2):
        assert (make().propose(log, 3, rng())[0] == make().propose(alone, 3, rng())[0]).all()


# -- configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", leaves("strategy"))
def test_shipped_configurations_name_themselves(name):
    text = files("nasflow.conf").joinpath(f"strategy/{name}.yaml").read_text()
    assert text.startswith(f"# nasflow search strategy={name}")
