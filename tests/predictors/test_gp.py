import numpy as np
import pytest
from scipy.stats import multivariate_normal

from predictors.accuracy.gaussian import Kernels
from predictors.gp import GaussianProcess, _ascended, _evidence, _read
from searchspaces.errors import PredictorError


def _grams(x, z=None):
    z = x if z is None else z
    distance = ((x[:, None] - z[None]) ** 2).sum(axis=2)
    return np.stack([x @ z.T, np.exp(-distance / 2)])


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def test_evidence_is_the_density_of_the_samples(rng):
    grams, y = _grams(rng.normal(size=(7, 2))), rng.normal(size=7)
    theta = np.log([0.5, 0.8, 0.3])
    covariance = 0.5 * grams[0] + 0.8 * grams[1] + 0.3 * np.eye(7)
    assert _evidence(grams, y, theta)[0] == pytest.approx(multivariate_normal(np.zeros(7), covariance).logpdf(y))


def test_an_ascent_finds_what_made_the_samples(rng):
    x = rng.normal(size=(150, 2))
    grams = _grams(x)
    y = rng.multivariate_normal(np.zeros(150), 2.0 * grams[0] + 0.25 * np.eye(150))
    start = np.log([0.3, 0.3, 0.6])
    end = _ascended(grams, y, start)
    weights, noise = _read(end)
    assert _evidence(grams, y, end)[0] > _evidence(grams, y, start)[0] + 10
    assert weights[0] > 10 * weights[1]
    assert noise == pytest.approx(0.25, rel=0.3)


def test_posterior_of_one_setting_is_the_textbook_one(rng):
    x, z = rng.normal(size=(9, 2)), rng.normal(size=(4, 2))
    y = rng.normal(size=9)
    process = next(p for p in (GaussianProcess(1, 0, seed).fit(_grams(x), y) for seed in range(50)) if p.used.all())
    weights, noise = _read(process._settings[0])
    target = (y - y.mean()) / y.std()
    inverse = np.linalg.inv(np.tensordot(weights, _grams(x), 1) + noise * np.eye(9))
    cross = np.tensordot(weights, _grams(z, x), 1)
    diagonal = np.stack([(z**2).sum(axis=1), np.ones(4)])
    mean, std = process.predict(_grams(z, x), diagonal)
    np.testing.assert_allclose(mean, cross @ inverse @ target * y.std() + y.mean(), rtol=1e-5)
    variance = weights @ diagonal - np.einsum("ka,ab,kb->k", cross, inverse, cross) + noise
    np.testing.assert_allclose(std / process._calibration, np.sqrt(variance) * y.std(), rtol=1e-5)


def test_stated_intervals_hold_what_they_say(rng):
    inside, n = [], 60
    for _ in range(20):
        x, z = rng.normal(size=(n, 3)), rng.normal(size=(200, 3))
        truth = np.array([1.0, -2.0, 0.5])
        y, there = x @ truth + rng.normal(size=n), z @ truth + rng.normal(size=200)
        process = GaussianProcess(draws=32, ascents=1).fit(_grams(x), y)
        diagonal = np.stack([(z**2).sum(axis=1), np.ones(200)])
        mean, std = process.predict(_grams(z, x)[process.used], diagonal[process.used])
        inside.append(np.mean(np.abs(there - mean) < 1.645 * std))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize(("n", "least"), [(6, 0.85), (12, 0.85), (24, 0.86)])
def test_intervals_of_few_samples_hold_what_they_say_where_folds_are_left_out(rng, n, least):
    inside = {folds: [] for folds in (0, 5)}
    for _ in range(60):
        x, z = rng.normal(size=(n, 6)), rng.normal(size=(100, 6))
        truth = rng.normal(size=6)
        y, there = x @ truth + rng.normal(size=n), z @ truth + rng.normal(size=100)
        grams = np.concatenate([_grams(x[:, part], x[:, part]) for part in np.eye(6, dtype=bool)])
        cross = np.concatenate([_grams(z[:, part], x[:, part]) for part in np.eye(6, dtype=bool)])
        diagonal = np.concatenate([np.stack([z[:, i] ** 2, np.ones(100)]) for i in range(6)])
        for folds, shares in inside.items():
            process = GaussianProcess(16, 1, folds=folds).fit(grams, y)
            mean, std = process.predict(cross[process.used], diagonal[process.used])
            shares.append(np.mean(np.abs(mean - there) < 1.645 * std))
    assert least < np.mean(inside[5]) < 0.96
    assert np.mean(inside[0]) < np.mean(inside[5])


def test_uncertainty_grows_away_from_the_samples(rng):
    x = rng.normal(size=(30, 2))
    y = np.sin(x[:, 0])
    process = GaussianProcess(draws=64, ascents=2).fit(_grams(x), y)
    far = np.array([[6.0, 6.0]])
    stds = []
    for z in (x, far):
        diagonal = np.stack([(z**2).sum(axis=1), np.ones(len(z))])
        stds.append(process.predict(_grams(z, x)[process.used], diagonal[process.used])[1])
    assert stds[1][0] > 2 * np.median(stds[0])


def test_restored_processes_predict_the_same(rng):
    x, y = rng.normal(size=(20, 2)), rng.normal(size=20)
    process = GaussianProcess().fit(_grams(x), y)
    again = GaussianProcess().restore(_grams(x), y, process.state())
    diagonal = np.stack([(x**2).sum(axis=1), np.ones(20)])
    given = _grams(x)[process.used], diagonal[process.used]
    for a, b in zip(process.predict(*given), again.predict(*given), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_posterior_of_a_setting_with_a_trend_is_the_textbook_one(rng):
    x, z, y = rng.normal(size=(9, 2)), rng.normal(size=(4, 2)), rng.normal(size=9)
    rising, there = rng.normal(size=(9, 3)), rng.normal(size=(4, 3))
    fitted = (GaussianProcess(1, 0, seed).fit(_grams(x), y, rising) for seed in range(50))
    process = next(p for p in fitted if p.used.all() and p._slopes.any())
    (slope,) = process._slopes
    assert (slope >= 0).all()
    assert 0.5 <= slope.sum() * (rising @ slope / slope.sum()).std() <= 1
    weights, noise = _read(process._settings[0])
    target = (y - y.mean()) / y.std() - (rising - rising.mean(axis=0)) @ slope
    inverse = np.linalg.inv(np.tensordot(weights, _grams(x), 1) + noise * np.eye(9))
    expected = np.tensordot(weights, _grams(z, x), 1) @ inverse @ target + (there - rising.mean(axis=0)) @ slope
    mean, _ = process.predict(_grams(z, x), np.stack([(z**2).sum(axis=1), np.ones(4)]), there)
    np.testing.assert_allclose(mean, expected * y.std() + y.mean(), rtol=1e-5)


@pytest.mark.parametrize("folds", [0, 3])
def test_what_the_target_rises_with_is_told_by_few_samples(folds, rng):
    """Five figures in forty columns, of which the target rises with one; restored processes know of it, too."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(12):
        x, z = rng.normal(size=(5, 40)), rng.normal(size=(200, 40))
        y, truth = (part[:, 0] + 0.1 * part[:, 5:].sum(axis=1) for part in (x, z))
        grams, cross = (np.stack([part @ x.T / 40, np.exp(part @ x.T / 40)]) for part in (x, z))
        diagonal = np.stack([(z**2).sum(axis=1) / 40, np.exp((z**2).sum(axis=1) / 40)])
        for known in found:
            rising, there = (x[:, :5], z[:, :5]) if known else (None, None)
            process = GaussianProcess(64, 1, seed, folds=folds).fit(grams, y, rising)
            mean, std = process.predict(cross[process.used], diagonal[process.used], there)
            found[known].append(float(np.corrcoef(mean, truth)[0, 1]))
            again = GaussianProcess(64, 1, seed, folds=folds).restore(grams, y, process.state(), rising)
            np.testing.assert_allclose(again.predict(cross[again.used], diagonal[again.used], there), [mean, std])
    assert np.mean(found[True]) > np.mean(found[False]) + 0.1
    assert min(found[True]) > min(found[False])


def test_figures_that_do_not_vary_make_no_trend(rng):
    x = rng.normal(size=(8, 2))
    diagonal = np.stack([(x**2).sum(axis=1), np.ones(8)])
    process = GaussianProcess().fit(_grams(x), x[:, 0], np.ones((8, 1)))
    mean, _ = process.predict(_grams(x)[process.used], diagonal[process.used], np.ones((8, 1)))
    assert np.corrcoef(mean, x[:, 0])[0, 1] > 0.9


def test_more_samples_than_it_can_take_are_refused():
    with pytest.raises(PredictorError, match="at most 1000 samples, but got 1001"):
        GaussianProcess().fit(np.zeros((1, 1001, 1001)), np.zeros(1001))


def test_kernels_without_weight_are_left_out(rng):
    x, z = rng.normal(size=(60, 2)), rng.normal(size=(5, 2))
    grams = np.concatenate([_grams(x), [1e-3 * np.eye(60)]])
    process = GaussianProcess(draws=32, ascents=2).fit(grams, x @ [1.0, 2.0])
    used = process.used
    assert used[0]
    assert not used.all()
    diagonal = np.stack([(z**2).sum(axis=1), np.ones(5), np.ones(5)])
    cross = np.concatenate([_grams(z, x), [np.zeros((5, 60))]])
    mean, _ = process.predict(cross[used], diagonal[used])
    np.testing.assert_allclose(mean, z @ [1.0, 2.0], atol=0.1)
    parts = [rng.normal(size=(40, 6)), rng.normal(size=(40, 3))]
    kernels = Kernels(parts)
    for _ in range(10):
        some = rng.random(kernels.number) < 0.4
        if some.any():
            np.testing.assert_array_equal(kernels(parts, some), kernels(parts)[some])


def test_kernels_are_positive_and_of_unit_diagonal(rng):
    parts = [rng.normal(size=(40, 6)), rng.normal(size=(40, 3))]
    kernels = Kernels(parts)
    grams = kernels(parts)
    assert grams.shape == (2 * 3 + 2, 40, 40)
    np.testing.assert_allclose(kernels.diagonal(parts), np.diagonal(grams, axis1=1, axis2=2), atol=1e-9)
    assert np.diagonal(grams, axis1=1, axis2=2).mean(axis=1) == pytest.approx(np.ones(8), abs=0.35)
    assert min(np.linalg.eigvalsh(gram).min() for gram in grams) > -1e-8


def test_outliers_are_cut_to_what_the_others_let_expect(rng):
    x = rng.normal(size=(30, 2))
    truth = x @ [1.0, -1.0]
    y = truth + 0.05 * rng.normal(size=30)
    y[4] += 8
    z = rng.normal(size=(50, 2))
    diagonal = np.stack([(z**2).sum(axis=1), np.ones(50)])
    errors = {}
    for outliers in (None, 2.0):
        process = GaussianProcess(32, 1, outliers=outliers).fit(_grams(x), y)
        mean, std = process.predict(_grams(z, x)[process.used], diagonal[process.used])
        errors[outliers] = np.abs(mean - z @ [1.0, -1.0]).mean()
        again = GaussianProcess(32, 1, outliers=outliers).restore(_grams(x), y, process.state())
        np.testing.assert_allclose(again.predict(_grams(z, x)[again.used], diagonal[again.used]), [mean, std])
    assert errors[2.0] < errors[None] / 4
    np.testing.assert_allclose(np.delete(process._cut - y, 4), 0, atol=0.2)


def test_kernels_of_parts_have_the_lengths_that_are_asked_for(rng):
    parts = [rng.normal(size=(6, 1)), rng.normal(size=(6, 3))]
    kernels = Kernels(parts, lengths=(1.5,), common_lengths=(), single_lengths=())
    grams = kernels(parts)
    distance = ((parts[1][:, None] - parts[1][None]) ** 2).sum(axis=2) / 3
    np.testing.assert_allclose(grams[2], np.exp(-distance / (2 * 1.5**2)))
    assert grams.shape == (*kernels.diagonal(parts).shape, 6) == (3, 6, 6)
