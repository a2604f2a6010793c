"""The contract of search strategies, as tests to inherit.

Example:
    >>> class TestMyStrategy(StrategyContract):
    ...     @pytest.fixture
    ...     def strategy(self):
    ...         return lambda: MyStrategy(population=10)
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from nasflow.pareto import hypervolume
from nasflow.strategies.base import Strategy
from nasflow.study.log import Log
from searchspaces.genes import Gene, GeneSpace, JointSpace, Mask, Rows

Make = Callable[[], Strategy]
Loss = Callable[[Rows], NDArray[np.float64]]


class ToySpace(GeneSpace):
    """A depth and a width for each of up to seven layers; layers beyond the depth are idle.

    Widths next to each other differ by at most two steps, so not every row is valid.
    """

    name = "toy"
    genes = (Gene("depth", (4, 5, 6, 7), ordered=True), *(Gene(f"width{i}", (8, 16, 32, 64), True) for i in range(7)))

    def is_valid(self, rows: Rows) -> Mask:
        """No step of three between neighbours."""
        return np.asarray((np.abs(np.diff(rows[:, 1:], axis=1)) < 3).all(axis=1))

    def active(self, rows: Rows) -> Mask:
        """The depth, and the layers that it reaches."""
        layers = np.arange(rows.shape[1] - 1) < rows[:, :1] + 4
        return np.concatenate([np.ones((len(rows), 1), dtype=np.bool_), layers], axis=1)

    def canonical(self, rows: Rows) -> Rows:
        """Idle layers are as wide as the last one in use."""
        last = np.take_along_axis(rows, rows[:, :1] + 4, axis=1)
        return np.where(self.active(rows), rows, last)


def toy_error(rows: Rows) -> NDArray[np.float64]:
    """Mean distance of a network's layers from a profile, and of its depth from the largest; 0 at best; `(n,)`."""
    active = ToySpace().active(rows)[:, 1:]
    missed = np.abs(rows[:, 1:] - np.array([0, 1, 1, 2, 3, 2, 3])) * active
    return np.asarray(missed.sum(axis=1) / active.sum(axis=1) + 0.3 * (3 - rows[:, 0]))


def toy_cost(rows: Rows) -> NDArray[np.float64]:
    """Mean width of all layers, idle ones counting nothing, relative to the largest; `(n,)`."""
    return np.asarray((2.0 ** rows[:, 1:] * ToySpace().active(rows)[:, 1:]).sum(axis=1) / 56)


def make_log(
    space: GeneSpace,
    rows: Rows,
    losses: NDArray[np.float64],
    violation: NDArray[np.float64] | None = None,
    pending: Rows | None = None,
) -> Log:
    """Return a log of `rows (n, genes)` with `losses (n, k)` that nobody can write to."""
    n = len(rows)
    arrays = (
        np.arange(n),
        np.array(rows),
        np.array(losses, dtype=np.float64),
        np.zeros(n) if violation is None else np.array(violation, dtype=np.float64),
        np.full(n, np.nan),
        rows[:0].copy() if pending is None else np.array(pending),
    )
    for array in arrays:
        array.setflags(write=False)
    return Log(space, *arrays)


def random_log(space: GeneSpace, n: int, objectives: int = 1, seed: int = 0) -> Log:
    """Return a log of `n` random architectures with random losses; some are pending, failed or miss a bound."""
    rng = np.random.default_rng(seed)
    losses = rng.random((n, objectives))
    violation = np.where(rng.random(n) < 0.3, rng.random(n), 0.0)
    failed, ruled_out = rng.random(n) < 0.1, (violation > 0) & (rng.random(n) < 0.5)
    losses[failed | ruled_out] = np.inf
    violation[failed] = np.inf
    return make_log(space, space.sample(n, rng), losses, violation, space.sample(2, rng))


def first(log: Log, n: int) -> Log:
    """Return the log as it was after `n` trials, with nothing under way."""
    return make_log(log.space, log.rows[:n], log.losses[:n], log.violation[:n])


def search(strategy: Strategy, space: GeneSpace, losses: Sequence[Loss], budget: int, seed: int) -> Log:
    """Let a strategy spend a budget on losses that are known in closed form, and return the log."""
    log = make_log(space, np.zeros((0, len(space.genes)), dtype=np.int64), np.zeros((0, len(losses))))
    for slot in range(budget):
        rows, _ = strategy.propose(log, 1, np.random.default_rng([seed, slot]))
        if len(rows) == 0:
            break
        found = np.stack([loss(rows) for loss in losses], axis=1)
        log = make_log(space, np.concatenate([log.rows, rows]), np.concatenate([log.losses, found]))
    return log


class StrategyContract:
    """What every strategy must fulfil; a subclass gives the fixture `strategy`.

    Attributes:
        beats_random: Whether the strategy has to find better architectures than random sampling does.
        multi_objective: Whether the strategy takes several objectives.
        budget: Trials of one search when strategies are compared.
        seeds: Searches that each side gets.
    """

    beats_random = True
    multi_objective = True
    budget = 120
    seeds = 20

    @pytest.fixture
    def strategy(self) -> Make:
        """Makes the strategy under test, anew with each call."""
        raise NotImplementedError("A subclass of StrategyContract gives the fixture `strategy`.")

    @pytest.fixture
    def space(self) -> GeneSpace:
        """The space that is searched: some rows are not valid, some genes are idle."""
        return ToySpace()

    def _check(self, log: Log, rows: Rows, k: int) -> None:
        assert rows.shape == (k, len(log.space.genes))
        assert rows.dtype == np.int64
        assert (log.space.check(rows) == rows).all()

    def test_is_a_strategy(self, strategy: Make) -> None:
        """It has the interface."""
        assert isinstance(strategy(), Strategy)

    @pytest.mark.parametrize("k", [1, 5])
    @pytest.mark.parametrize("n", [0, 1, 60])
    def test_proposes_valid_rows(self, strategy: Make, space: GeneSpace, n: int, k: int) -> None:
        """As many valid rows as asked for come back, whether the log is empty, short or long."""
        log = random_log(space, n)
        rows, fidelity = strategy().propose(log, k, np.random.default_rng(0))
        self._check(log, rows, k)
        assert fidelity is None or fidelity > 0

    @pytest.mark.parametrize("objectives", [2, 3])
    def test_takes_several_objectives(self, strategy: Make, space: GeneSpace, objectives: int) -> None:
        """Losses may have several columns."""
        if not self.multi_objective:
            pytest.skip("the strategy takes one objective only")
        log = random_log(space, 60, objectives)
        self._check(log, strategy().propose(log, 3, np.random.default_rng(0))[0], 3)

    @pytest.mark.parametrize("violation", [np.inf, 0.5, 0.0])
    def test_goes_on_without_a_single_good_trial(self, strategy: Make, space: GeneSpace, violation: float) -> None:
        """All trials may have failed, or missed a bound, or tie."""
        rows = space.sample(60, np.random.default_rng(0))
        losses = np.full((60, 1), 1.0 if violation == 0 else np.inf)
        log = make_log(space, rows, losses, np.full(60, violation))
        self._check(log, strategy().propose(log, 2, np.random.default_rng(0))[0], 2)

    def test_leaves_frozen_parts_alone(self, strategy: Make) -> None:
        """In a joint space, the genes of a frozen part keep their row."""
        frozen = np.array([1, 2, 1, 0, 1, 2, 3, 2])
        space = JointSpace(architecture=ToySpace(), other=ToySpace()).freeze("other", frozen)
        log = random_log(space, 60)
        rows, _ = strategy().propose(log, 5, np.random.default_rng(0))
        self._check(log, rows, 5)
        assert (rows[:, space.part("other")] == frozen).all()
        assert len(np.unique(rows, axis=0)) > 1

    @pytest.mark.parametrize("n", [0, 60])
    def test_follows_from_log_and_generator(self, strategy: Make, space: GeneSpace, n: int) -> None:
        """Equal logs and generators give equal proposals; the log is not written to."""
        rows = [strategy().propose(random_log(space, n), 4, np.random.default_rng(7))[0] for _ in range(2)]
        assert (rows[0] == rows[1]).all()
        other, _ = strategy().propose(random_log(space, n), 4, np.random.default_rng(8))
        assert (rows[0] != other).any()

    def test_has_no_memory(self, strategy: Make, space: GeneSpace) -> None:
        """A used strategy proposes what a new one does: the log having grown, shrunk, or being another one."""
        whole, other = random_log(space, 60), random_log(space, 50, seed=1)
        late = np.delete(np.arange(60), 30)  # a slot that another worker finished late
        without = make_log(space, whole.rows[late], whole.losses[late], whole.violation[late])
        turned = np.where(np.isfinite(whole.losses), -whole.losses, np.inf)
        worse = make_log(space, whole.rows, turned, whole.violation, whole.pending)
        joint = random_log(JointSpace(architecture=ToySpace()), 60)
        used = strategy()
        for log in (first(whole, 40), without, whole, worse, first(whole, 45), other, joint, whole):
            by_used, _ = used.propose(log, 3, np.random.default_rng(5))
            by_new, _ = strategy().propose(log, 3, np.random.default_rng(5))
            assert (by_used == by_new).all()

    def test_any_worker_can_ask(self, strategy: Make, space: GeneSpace) -> None:
        """Two instances that take turns, one of them made anew half-way, search as one does."""
        alone = search(strategy(), space, [toy_error], 40, seed=3)
        workers = [strategy(), strategy()]
        for slot in range(0, 40, 3):
            if slot == 21:
                workers[0] = strategy()
            rows, _ = workers[slot % 2].propose(first(alone, slot), 1, np.random.default_rng([3, slot]))
            assert (rows[0] == alone.rows[slot]).all()

    def test_takes_what_is_under_way_into_account(self, strategy: Make, space: GeneSpace) -> None:
        """Any number of architectures may be pending."""
        log = random_log(space, 60)
        for pending in (log.rows[:0], log.rows[:1], space.sample(20, np.random.default_rng(1))):
            seen = replace(log, pending=pending)
            self._check(seen, strategy().propose(seen, 2, np.random.default_rng(0))[0], 2)

    def test_beats_random(self, strategy: Make, space: GeneSpace) -> None:
        """Within the budget it finds better architectures than random sampling (Mann-Whitney, p < 0.05)."""
        if not self.beats_random:
            pytest.skip("the strategy does not claim it")
        found = [search(strategy(), space, [toy_error], self.budget, s).losses.min() for s in range(self.seeds)]
        rows = [space.sample(self.budget, np.random.default_rng([99, s])) for s in range(self.seeds)]
        assert mannwhitneyu(found, [toy_error(r).min() for r in rows], alternative="less").pvalue < 0.05

    def test_beats_random_on_two_objectives(self, strategy: Make, space: GeneSpace) -> None:
        """Within the budget it finds a front of larger hypervolume than random sampling (Mann-Whitney, p < 0.05)."""
        if not (self.beats_random and self.multi_objective):
            pytest.skip("the strategy does not claim it")
        both: list[Loss] = [toy_error, toy_cost]
        logs = [search(strategy(), space, both, self.budget, s).losses for s in range(self.seeds)]
        rows = [space.sample(self.budget, np.random.default_rng([99, s])) for s in range(self.seeds)]
        random = [np.stack([loss(r) for loss in both], axis=1) for r in rows]
        found, drawn = ([hypervolume(losses, (2.0, 1.0)) for losses in side] for side in (logs, random))
        assert mannwhitneyu(found, drawn, alternative="greater").pvalue < 0.05
