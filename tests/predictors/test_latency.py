"""Latency predictors on made-up devices whose times are known to the last digit."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV

from predictors.base import SourceError, SourceSamples
from predictors.encodings import Concatenation, LayerCosts, OneHot, OpCounts
from predictors.latency.additive import Additive
from predictors.latency.gaussian import LatencyGaussianProcess
from predictors.latency.lines import CostLine, SourceCopy
from predictors.latency.sources import SourceDevices
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, PredictorError
from searchspaces.fbnet import FBNet
from searchspaces.nb201 import NB201
from searchspaces.unreduced import Unreduced

SPACE = NB201("small")
ENCODING = Concatenation([LayerCosts(), OneHot(), OpCounts()])
CPU, GPU = np.array([0.1, 0.1, 1.0, 4.0, 0.6]), np.array([0.1, 0.2, 1.0, 1.1, 1.4])


def milliseconds(archs: ArchBatch, per_op: np.ndarray, seed: int = 0, noise: float = 0.0) -> np.ndarray:
    """Each operation takes its time, a little more on later edges; multiplicative noise."""
    times = 0.5 + (per_op[archs.rows] * np.linspace(0.9, 1.1, archs.rows.shape[1])).sum(axis=1)
    return times * np.exp(noise * np.random.default_rng(seed).normal(size=len(archs)))


@pytest.fixture(scope="module")
def cells() -> ArchBatch:
    """Rows taken as they are: 200 for sources, 20 for the target, the rest to test on."""
    order = np.random.default_rng(5).permutation(15625)[:620]
    return ArchBatch(Unreduced(SPACE), SPACE.from_index(order))


@pytest.fixture(scope="module")
def sources(cells: ArchBatch) -> list[SourceSamples]:
    mixed = 0.5 * CPU + 0.5 * GPU
    return [
        SourceSamples(cells[:200], milliseconds(cells[:200], per_op, i, 0.02), f"device{i}")
        for i, per_op in enumerate((CPU, mixed, GPU))
    ]


def rho(predictor, archs: ArchBatch, per_op: np.ndarray) -> float:
    return float(spearmanr(predictor.predict(archs).mean, milliseconds(archs, per_op)).statistic)


# -- models of source devices --------------------------------------------------------------------------------------


def test_models_of_sources_rank_and_measure_what_they_have_not_seen(cells, sources):
    devices = SourceDevices(ENCODING).fit(sources)
    truth = milliseconds(cells[220:], CPU)
    assert spearmanr(devices.predict(cells[220:])[:, 0], truth).statistic > 0.98
    error = np.abs(np.log(devices.milliseconds(cells[220:])[:, 0] / truth))
    assert np.median(error) < 0.05
    assert np.abs(devices.predict(cells[:200]).mean(axis=0)).max() < 0.05
    np.testing.assert_allclose(devices.predict(cells[:200]).std(axis=0), 1, atol=0.1)


def test_what_was_measured_is_told_as_it_was(cells, sources):
    devices = SourceDevices(ENCODING).fit(sources)
    found = devices.milliseconds(cells[190:210])
    np.testing.assert_array_equal(found[:10, 1], sources[1].y[190:200])
    assert (found[10:, 1] != sources[1].y[:10]).all()


def test_devices_with_samples_of_their_own_are_modelled_apart(cells, sources):
    other = SourceSamples(cells[100:220], milliseconds(cells[100:220], GPU), "apart")
    together = SourceDevices(ENCODING).fit([sources[0], other, sources[2]])
    alone = SourceDevices(ENCODING).fit([other])
    np.testing.assert_allclose(together.predict(cells[300:])[:, 1], alone.predict(cells[300:])[:, 0], atol=1e-8)
    first = SourceDevices(ENCODING).fit(sources[:1])
    np.testing.assert_allclose(together.predict(cells[300:])[:, 0], first.predict(cells[300:])[:, 0], atol=1e-8)


@pytest.mark.parametrize("make", [SourceCopy, LatencyGaussianProcess])
def test_the_same_sources_are_learned_once(cells, sources, make, monkeypatch):
    predictor, y = make(ENCODING), milliseconds(cells[200:210], GPU)
    fits, fitted = [], predictor._devices._fitted
    monkeypatch.setattr(predictor._devices, "_fitted", lambda *given: fits.append(1) or fitted(*given))
    again = [SourceSamples(ArchBatch(s.archs.space, s.archs.rows), s.y.copy(), s.name) for s in sources]
    changed = [*again[:2], SourceSamples(again[2].archs, again[2].y[::-1], "device2")]
    for given, times in ((sources, 1), (again, 1), (changed, 2)):
        predictor.fit(cells[200:210], y, given)
        assert len(fits) == times
    expected = make(ENCODING).fit(cells[200:210], y, changed).predict(cells[300:]).mean
    np.testing.assert_array_equal(predictor.predict(cells[300:]).mean, expected)


# -- the Gaussian process ------------------------------------------------------------------------------------------


def test_other_devices_help(cells, sources):
    archs = cells[200:208]
    target = 0.2 * CPU + 0.8 * GPU
    y = milliseconds(archs, target, 9, 0.02)
    alone = LatencyGaussianProcess(ENCODING).fit(archs, y)
    helped = LatencyGaussianProcess(ENCODING).fit(archs, y, sources)
    assert rho(helped, cells[220:], target) > max(0.95, rho(alone, cells[220:], target) + 0.02)


def test_latencies_rise_with_costs_and_with_those_of_other_devices(cells, sources):
    predictor = LatencyGaussianProcess(ENCODING).fit(cells[200:205], milliseconds(cells[200:205], CPU), sources)
    parts = predictor._parts(cells[:50])
    rising = predictor._rising(parts)
    assert rising.shape == (50, 5 + 5), "five costs, and the sources' mean as often"
    costs = LayerCosts().encode(cells[:50])[:, :5]
    np.testing.assert_array_equal(rising[:, :5], costs)
    np.testing.assert_array_equal(rising[:, 5:], parts[-1].mean(axis=1)[:, None].repeat(5, axis=1))
    predictor.fit(cells[200:205], milliseconds(cells[200:205], CPU))
    assert predictor._rising(predictor._parts(cells[:50])).shape == (50, 5)
    genes = LatencyGaussianProcess(OneHot()).fit(cells[200:205], milliseconds(cells[200:205], CPU))
    assert genes._rising(genes._parts(cells[:50])) is None
    genes.fit(cells[200:205], milliseconds(cells[200:205], CPU), sources)
    assert genes._rising(genes._parts(cells[:50])).shape == (50, 1)


def test_five_samples_are_ranked_by_what_costs_and_sources_let_expect(cells, sources, monkeypatch):
    def found() -> list[float]:
        found = []
        for seed in range(8):
            archs, target = cells[200 + 5 * seed : 205 + 5 * seed], 0.3 * CPU + 0.7 * GPU
            predictor = LatencyGaussianProcess(ENCODING, folds=0, seed=seed)
            predictor.fit(archs, milliseconds(archs, target), sources)
            found.append(rho(predictor, cells[240:], target))
        return found

    rising = found()
    monkeypatch.setattr(LatencyGaussianProcess, "_rising", lambda *_: None)
    plain = found()
    assert min(rising) > min(plain) + 0.05
    assert np.mean(rising) > max(0.85, np.mean(plain) + 0.02)


def test_intervals_hold_what_they_say(cells, sources):
    inside = []
    for seed in range(5):
        y = milliseconds(cells[200:], GPU, seed, 0.1)
        predictor = LatencyGaussianProcess(ENCODING, seed=seed).fit(cells[200:230], y[:30], sources)
        mean, std = predictor.predict(cells[230:])
        inside.append(np.mean(np.abs(y[30:] - mean) < 1.645 * std))
    assert 0.8 < np.mean(inside) < 0.98


def test_a_throttled_measurement_misleads_less(cells, sources):
    robust, trusting = [], []
    for seed in range(4):
        archs, y = cells[200:220], milliseconds(cells[200:220], GPU, seed, 0.02)
        y[np.random.default_rng(seed).choice(20, 2, replace=False)] *= 4
        for found, outliers in ((robust, 2.0), (trusting, None)):
            predictor = LatencyGaussianProcess(ENCODING, outliers=outliers).fit(archs, y, sources)
            found.append(rho(predictor, cells[220:], GPU))
    assert np.mean(robust) > np.mean(trusting) + 0.05
    assert np.mean(robust) > 0.93


def test_it_forgets_sources_and_keeps_them_on_disk(cells, sources, tmp_path):
    archs, y = cells[200:220], milliseconds(cells[200:220], GPU)
    predictor = LatencyGaussianProcess(ENCODING).fit(archs, y, sources)
    predictor.save(tmp_path / "p.safetensors")
    read = LatencyGaussianProcess(ENCODING).load(tmp_path / "p.safetensors", cells.space)
    for before, after in zip(predictor.predict(cells[220:]), read.predict(cells[220:]), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-6)
    predictor.fit(archs, y)
    alone = LatencyGaussianProcess(ENCODING).fit(archs, y)
    np.testing.assert_array_equal(predictor.predict(cells[220:]).mean, alone.predict(cells[220:]).mean)


def test_sources_of_another_space_are_refused(cells, sources):
    chains = ArchBatch.sample(FBNet("small"), 10, np.random.default_rng(0))
    foreign = SourceSamples(chains, np.arange(1.0, 11.0), "far")
    with pytest.raises(SourceError, match="'far' is of"):
        LatencyGaussianProcess(ENCODING).fit(cells[:5], milliseconds(cells[:5], CPU), [foreign])


@pytest.mark.parametrize("bad", [0.0, -3.0])
def test_latencies_are_positive(cells, sources, bad):
    y = milliseconds(cells[:20], CPU)
    y[3] = bad
    with pytest.raises(PredictorError, match=r"above 0 ms, but 1 of 20 are not; the smallest is"):
        LatencyGaussianProcess(ENCODING).fit(cells[:20], y)
    predictor = LatencyGaussianProcess(ENCODING)
    for _ in range(2):  # what failed is not taken for known
        with pytest.raises(PredictorError, match="above 0 ms"):
            predictor.fit(cells[20:40], milliseconds(cells[20:40], CPU), [SourceSamples(cells[:20], y, "bad")])


# -- baselines -----------------------------------------------------------------------------------------------------


def test_a_line_over_one_cost_is_the_power_law(cells):
    macs = LayerCosts().encode(cells)[:, 0]
    y = 3.0 * np.exp(0.7 * macs)
    mean, std = CostLine(LayerCosts(), "log macs").fit(cells[:20], y[:20]).predict(cells[20:])
    np.testing.assert_allclose(mean, y[20:], rtol=1e-6)
    assert (std < 0.25 * mean).all(), "the guess of the noise counts as four samples"


def test_a_line_rises_even_where_samples_say_otherwise(cells):
    macs = LayerCosts().encode(cells)[:, 0]
    found = CostLine(LayerCosts(), "log macs").fit(cells[:20], np.exp(-macs[:20])).predict(cells[20:]).mean
    assert spearmanr(found, macs[20:]).statistic == pytest.approx(1)


def test_a_column_that_is_not_there_is_told(cells):
    with pytest.raises(ConfigError, match="no column 'joules'. Take one of: log macs, "):
        CostLine(LayerCosts(), "joules").fit(cells[:3], [1.0, 2.0, 3.0])


def test_the_most_similar_device_is_copied(cells, sources):
    predictor = SourceCopy(ENCODING).fit(cells[200:220], 7 * milliseconds(cells[200:220], GPU), sources)
    assert predictor.device == "device2"
    assert rho(predictor, cells[220:], GPU) > 0.98
    mean = predictor.predict(cells[220:]).mean
    assert np.median(mean / (7 * milliseconds(cells[220:], GPU))) == pytest.approx(1, abs=0.05)


def test_there_must_be_something_to_copy(cells):
    with pytest.raises(PredictorError, match="needs sources"):
        SourceCopy(ENCODING).fit(cells[:3], [1.0, 2.0, 3.0])


def test_a_sum_of_blocks_is_found(cells):
    additive = Additive(OneHot(), RidgeCV([1e-6, 1e-3, 1]))
    found = additive.fit(cells[:150], milliseconds(cells[:150], CPU)).predict(cells[220:])
    np.testing.assert_allclose(found.mean, milliseconds(cells[220:], CPU), rtol=1e-2)
