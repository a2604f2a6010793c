import gc
from collections.abc import Callable

import numpy as np
import pytest

from devices.protocol import Plan, Sampler, collect, drift, estimate, pace, trimmed_mean
from searchspaces.errors import DeviceError

EXACT = Plan(rounds=6, runs_per_round=3, sample_ms=0.0)


class Machine:
    """Models that take a given time on a clock that only they advance; `slowdown` gives the factor at a time in ms."""

    def __init__(self, slowdown: Callable[[float], float] = lambda now: 1.0) -> None:
        self.now = 0.0
        self.slowdown = slowdown
        self.log: list[str] = []

    def clock(self) -> int:
        return round(self.now * 1e6)

    def model(self, name: str, ms: float) -> Callable[[], None]:
        def run() -> None:
            self.log.append(name)
            self.now += ms * self.slowdown(self.now)

        return run


def _visits(log: list[str]) -> list[str]:
    return [name for i, name in enumerate(log) if i == 0 or log[i - 1] != name]


def test_trimmed_mean_drops_the_given_shares_on_each_side():
    assert trimmed_mean(np.array([10.0, 9, 8, 7, 6, 5, 4, 3, 2, 1])) == 5.0
    assert trimmed_mean(np.array([[1.0, 2.0], [3.0, 1000.0]]), (0.0, 0.25)) == 2.0
    assert trimmed_mean(np.array([7.0])) == 7.0


def test_pace_is_a_geometric_mean_over_anchors_of_time_by_known_time():
    anchors = np.ones((2, 2, 2, 5)) * np.array([2.0, 27.0])[:, None]
    anchors[1] *= 3
    known = np.array([1.0, 9.0])  # one ran at half its speed, the other at a third, then both three times slower
    np.testing.assert_allclose(pace(anchors, known, 3.0), [6**0.5, 3 * 6**0.5], err_msg="halfway between them")
    np.testing.assert_allclose(pace(anchors[:, :, :1], np.array([4.0]), 3.0), [0.5, 1.5])


def test_pace_is_that_of_the_anchors_near_the_models_time():
    anchors = np.ones((1, 2, 2, 5)) * np.array([2.0, 27.0])[:, None]
    known = np.array([1.0, 9.0])
    paces = [pace(anchors, known, latency)[0] for latency in (0.1, 1.0, 3.0, 9.0, 90.0)]
    assert 2 < paces[1] < paces[0] < paces[2] < paces[4] < paces[3] < 3
    assert paces[1] == pytest.approx(2, abs=0.04)
    assert paces[3] == pytest.approx(3, abs=0.06)


def test_pace_ignores_single_slow_runs():
    anchors = np.ones((1, 2, 1, 5))
    anchors[0, 0, 0, 0] = 100.0
    np.testing.assert_allclose(pace(anchors, np.array([1.0]), 1.0), [1.0])


def test_drift_is_the_largest_deviation_of_a_visit_from_the_anchors_median():
    anchors = np.full((5, 2, 2, 3), 2.0)
    anchors[1, 0, 1] = 2.2
    anchors[3, 1, 0] = 1.8
    np.testing.assert_allclose(drift(anchors), [0, 0.1, 0, 0.1, 0])


def test_estimate_divides_by_the_pace_and_reports_the_spread_over_rounds():
    paces = np.array([1.0, 2.0, 0.5, 1.5])
    steady = estimate(3.0 * paces[:, None] * np.ones((1, 5)), paces)
    assert (steady.mean, steady.std, steady.iqr) == pytest.approx((3.0, 0.0, 0.0))
    rounds = estimate(np.repeat([[1.0], [2.0], [3.0], [4.0]], 5, axis=1), np.ones(4), (0.0, 0.0))
    assert (rounds.mean, rounds.std, rounds.iqr) == pytest.approx((2.5, np.std([1, 2, 3, 4], ddof=1), 1.5))
    assert estimate(np.array([[1.0, 1.0]]), np.ones(1)).std == 0.0


def test_collect_returns_the_times_of_each_model_in_its_own_column():
    machine = Machine()
    times = [0.5, 3.0, 1.0]
    models = [machine.model(str(ms), ms) for ms in times]
    rounds = collect(models, [machine.model("a", 2.0)], EXACT, np.random.default_rng(0), machine.clock)
    assert rounds.samples.shape == (6, 3, 3)
    assert rounds.anchors.shape == (6, 2, 1, 3)
    np.testing.assert_allclose(rounds.samples, np.broadcast_to(np.array(times)[:, None], (6, 3, 3)))
    np.testing.assert_allclose(rounds.anchors, 2.0)
    assert rounds.redone == 0
    assert not rounds.drifted.any()


def test_rounds_visit_all_models_in_changing_order_between_visits_of_the_anchor():
    machine = Machine()
    models = [machine.model(name, 1.0) for name in "xyz"]
    collect(models, [machine.model("a", 1.0)], EXACT, np.random.default_rng(0), machine.clock)
    visits = "".join(_visits(machine.log)).removeprefix("xyz")
    # The anchor that ends a round and the one that opens the next follow each other, so they show as one visit.
    orders = visits.strip("a").split("a")
    assert len(orders) == EXACT.rounds
    assert all(sorted(order) == ["x", "y", "z"] for order in orders)
    assert len(set(orders)) > 1
    assert visits[0] == visits[-1] == "a"


def test_equal_generators_give_equal_orders():
    logs = []
    for _ in range(2):
        machine = Machine()
        models = [machine.model(name, 1.0) for name in "xyz"]
        collect(models, [machine.model("a", 1.0)], EXACT, np.random.default_rng(7), machine.clock)
        logs.append(machine.log)
    assert logs[0] == logs[1]


def test_a_machine_that_slows_down_steadily_changes_raw_times_but_not_the_estimate():
    machine = Machine(lambda now: 1 + now / 20_000)
    plan = Plan(rounds=20, runs_per_round=3, drift_limit=1.0)
    models = [machine.model("x", 5.0), machine.model("y", 10.0)]
    rounds = collect(models, [machine.model("a", 1.0)], plan, np.random.default_rng(0), machine.clock)
    paces = pace(rounds.anchors, np.array([1.0]), 5.0)
    assert rounds.samples[-1, 0].mean() > 1.05 * rounds.samples[0, 0].mean()
    for i, ms in enumerate((5.0, 10.0)):
        assert estimate(rounds.samples[:, i], paces).mean == pytest.approx(ms, rel=2e-3)


def test_a_round_with_a_short_disturbance_is_done_again():
    machine = Machine(lambda now: 1.5 if 50 <= now < 60 else 1.0)
    rounds = collect(
        [machine.model("x", 1.0)], [machine.model("a", 1.0)], EXACT, np.random.default_rng(0), machine.clock
    )
    assert rounds.redone == 1
    assert not rounds.drifted.any()
    np.testing.assert_allclose(rounds.samples, 1.0)


def test_rounds_that_keep_drifting_are_kept_and_flagged_after_a_bounded_number_of_retries():
    machine = Machine(lambda now: 1.0 if int(now / 7) % 2 else 1.6)
    plan = Plan(rounds=6, runs_per_round=3, sample_ms=0.0, retries=2)
    rounds = collect(
        [machine.model("x", 1.0)], [machine.model("a", 1.0)], plan, np.random.default_rng(0), machine.clock
    )
    assert rounds.drifted.any()
    assert 1 <= rounds.redone <= plan.retries * plan.rounds


def test_warming_up_runs_until_windows_agree():
    machine = Machine()
    cost = iter(1.0 + 10.0 * 0.7**i for i in range(1000))

    def run() -> None:
        machine.now += next(cost)

    settling = Sampler(run, Plan(), machine.clock)
    assert 6 < settling.warmup < 50
    assert Sampler(machine.model("x", 1.0), Plan(), machine.clock).warmup == 6


def test_warming_up_ends_at_its_limit():
    machine = Machine()
    cost = iter(1.1**i for i in range(1000))

    def run() -> None:
        machine.now += next(cost)

    assert Sampler(run, Plan(warmup_limit=33), machine.clock).warmup == 33


def test_short_runs_are_timed_several_at_a_time():
    machine = Machine()
    sampler = Sampler(machine.model("x", 0.02), Plan(sample_ms=0.2), machine.clock)
    assert sampler.repeats == 10
    machine.log.clear()
    assert sampler.visit() == pytest.approx([0.02] * 5)
    assert len(machine.log) == 10 * (2 + 5)
    assert Sampler(machine.model("y", 5.0), Plan(sample_ms=0.2), machine.clock).repeats == 1


def test_the_first_samples_of_a_visit_are_thrown_away():
    machine = Machine()
    machine.log.append("")

    def run() -> None:
        machine.now += 1.0 if machine.log[-1] == "x" else 5.0
        machine.log.append("x")

    rounds = collect([run], [machine.model("a", 1.0)], EXACT, np.random.default_rng(0), machine.clock)
    np.testing.assert_allclose(rounds.samples, 1.0)


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_pauses_and_comes_back_as_it_was(enabled):
    before = gc.isenabled()
    states = []

    def run() -> None:
        states.append(gc.isenabled())
        if len(states) > 30:
            raise RuntimeError("stop")

    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(RuntimeError, match="stop"):
            collect([run], [run], EXACT, np.random.default_rng(0))
        assert gc.isenabled() == enabled
        assert not any(states)
    finally:
        (gc.enable if before else gc.disable)()


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"runs_per_round": 0}, {"restarts": 0}, {"retries": -1}, {"drift_limit": 0.0}]
)
def test_a_plan_that_measures_nothing_is_refused(wrong):
    with pytest.raises(DeviceError, match=rf"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        Plan(**wrong)


def test_a_plan_that_trims_everything_is_refused():
    with pytest.raises(DeviceError, match="sum to less than 1"):
        Plan(trim=(0.5, 0.5))
