"""Latency predictors that are networks: many devices first, a new one after them."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import spearmanr
from torch.func import functional_call
from torch.nn.functional import mse_loss

from nasflow.testing import PredictorContract
from nasflow.testing.predictors import target
from predictors.base import Predictor, SourceError, SourceSamples
from predictors.encodings import Concatenation, Encoding, LayerCosts, OneHot
from predictors.graphs import graphs
from predictors.latency.gcn import LatencyGCN
from predictors.latency.help import HELP, Adapted, MetaNetwork, convolved
from predictors.latency.multi_predict import MultiPredict
from predictors.latency.nasflat import NASFLAT, NasflatNetwork
from predictors.latency.neural import DeviceSamples, LatencyNetwork
from searchspaces.arch import ArchBatch
from searchspaces.errors import ArchitectureError, ConfigError, PredictorError
from searchspaces.fbnet import FBNet
from searchspaces.nb201 import NB201
from searchspaces.space import SearchSpace
from searchspaces.unreduced import Unreduced
from tests.predictors.neural import Make, NeuralContract

CELLS = Unreduced(NB201("small"))
ENCODING = Concatenation([LayerCosts(), OneHot()])
SMALL = {"epochs": 15, "batch": 16, "lr": 5e-3, "finetune_lr": 5e-3, "folds": 0, "seed": 1}


def nasflat(**arguments: Any) -> NASFLAT:
    return NASFLAT(**({"layers": 2, "width": 32, "finetune_epochs": 20} | SMALL | arguments))


def multi_predict(**arguments: Any) -> MultiPredict:
    defaults = {"encoding": LayerCosts(), "layers": 2, "width": 32, "epochs": 40, "repeats": 2}
    return MultiPredict(**(SMALL | defaults | arguments))


def gcn(**arguments: Any) -> LatencyGCN:
    return LatencyGCN(**(SMALL | {"layers": 3, "width": 32, "epochs": 40, "finetune_lr": 1e-3} | arguments))


def help_(**arguments: Any) -> HELP:
    known = {name: arguments[name] for name in ("folds", "seed", "graph", "references") if name in arguments}
    defaults = {"width": 32, "episodes": 20 * arguments.get("epochs", 10), "lr": 3e-3, "folds": 0, "seed": 1}
    return HELP(ENCODING, **(defaults | known))


class OnLatencies(NeuralContract):
    positive = True


class TestNASFLAT(OnLatencies):
    @pytest.fixture
    def make(self) -> Make:
        return nasflat


class TestMultiPredict(OnLatencies):
    @pytest.fixture
    def make(self) -> Make:
        return multi_predict


class TestGCN(OnLatencies):
    @pytest.fixture
    def make(self) -> Make:
        return gcn


@pytest.mark.parametrize("graph", [False, True])
class TestHELP(PredictorContract):
    """With devices that take similar times, for it needs some."""

    positive = True

    @pytest.fixture
    def new(self, space: SearchSpace, graph: bool) -> Callable[[], Predictor]:
        archs = ArchBatch.sample(space, 100, np.random.default_rng(8)).unique()
        sources = [SourceSamples(archs, target(archs) ** power, f"to the {power}") for power in (0.5, 1.0, 2.0)]

        class Helped(HELP):
            def fit(self, archs: ArchBatch, y: Any, _: Sequence[SourceSamples] = ()) -> Predictor:
                return super().fit(archs, y, sources)

        return lambda: Helped(ENCODING, graph, 2, 32, episodes=60, lr=3e-3, folds=0, seed=1)

    @pytest.fixture
    def space(self) -> SearchSpace:
        return NB201("small")


# -- devices -------------------------------------------------------------------------------------------------------

CPU, GPU = np.array([0.1, 0.1, 1.0, 4.0, 0.6]), np.array([0.1, 0.2, 1.0, 1.1, 1.4])


def milliseconds(archs: ArchBatch, per_op: np.ndarray) -> np.ndarray:
    return 0.5 + (per_op[archs.rows] * np.linspace(0.9, 1.1, archs.rows.shape[1])).sum(axis=1)


@pytest.fixture(scope="module")
def cells() -> ArchBatch:
    """Rows taken as they are: 200 for sources, 12 for the target, the rest to test on."""
    return ArchBatch(CELLS, NB201("small").from_index(np.random.default_rng(5).permutation(15625)[:512]))


@pytest.fixture(scope="module")
def sources(cells: ArchBatch) -> list[SourceSamples]:
    return [
        SourceSamples(cells[:200], milliseconds(cells[:200], per_op), name)
        for name, per_op in (("cpu", CPU), ("both", (CPU + GPU) / 2), ("gpu", GPU))
    ]


def rho(predictor: LatencyNetwork, archs: ArchBatch, per_op: np.ndarray) -> float:
    return float(spearmanr(predictor.predict(archs).mean, milliseconds(archs, per_op)).statistic)


@pytest.mark.parametrize("make", [nasflat, multi_predict, gcn])
def test_other_devices_help(make: Make, cells: ArchBatch, sources: Sequence[SourceSamples]) -> None:
    archs, target = cells[200:206], 0.2 * CPU + 0.8 * GPU
    alone, helped = (rho(make().fit(archs, milliseconds(archs, target), s), cells[212:], target) for s in ([], sources))
    assert helped > max(0.8, alone + 0.02)


@pytest.mark.parametrize("make", [nasflat, multi_predict, gcn, help_])
def test_sources_are_learned_once_and_left_as_they_are(
    make: Make, cells: ArchBatch, sources: Sequence[SourceSamples], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitting to a second device after a first finds what fitting to it at once finds."""
    learned: list[int] = []
    kind = type(make())
    pretrained = kind._pretrained

    def counted(self: LatencyNetwork, sources: Sequence[SourceSamples]) -> Any:
        learned.append(len(sources))
        return pretrained(self, sources)

    monkeypatch.setattr(kind, "_pretrained", counted)
    archs, first, second = cells[200:212], milliseconds(cells[200:212], CPU), milliseconds(cells[200:212], GPU)
    warm = make(epochs=2).fit(archs, first, sources)
    torch.rand(7)
    copies = [SourceSamples(ArchBatch(s.archs.space, s.archs.rows), s.y.copy(), s.name) for s in sources]
    assert_array_equal(warm.fit(archs, second, copies).predict(cells).mean,
                       make(epochs=2).fit(archs, second, sources).predict(cells).mean)
    assert learned == [3, 3]
    warm.fit(archs, second, sources[:2])
    assert learned == [3, 3, 2]
    if make is help_:
        return
    assert_array_equal(warm.fit(archs, second).predict(cells).mean,
                       make(epochs=2).fit(archs, second).predict(cells).mean)


@pytest.mark.parametrize("make", [nasflat, multi_predict])
@pytest.mark.parametrize(("per_op", "name"), [(CPU, "cpu"), (GPU, "gpu")])
def test_a_new_device_begins_as_the_most_similar_one(
    make: Make, per_op: np.ndarray, name: str, cells: ArchBatch, sources: Sequence[SourceSamples]
) -> None:
    archs = cells[200:212]
    predictor = make(finetune_lr=1e-9).fit(archs, 9 * milliseconds(archs, per_op), sources)
    assert predictor.device == name
    assert rho(predictor, cells[212:], per_op) > 0.75
    np.testing.assert_allclose(
        np.median(predictor.predict(cells[212:]).mean / milliseconds(cells[212:], per_op)), 9, rtol=0.2
    )


def test_intervals_hold_what_they_say(cells: ArchBatch, sources: Sequence[SourceSamples]) -> None:
    """With noise that a network learns by heart, left-out samples tell what those learned from do not."""
    found: dict[int, list[float]] = {0: [], 4: []}
    for seed in range(3):
        noise = np.exp(0.25 * np.random.default_rng(seed).normal(size=len(cells)))
        y = milliseconds(cells, GPU) * noise
        predictor = nasflat(seed=seed, epochs=2, finetune_epochs=60)
        for folds, inside in found.items():
            predictor.folds = folds
            mean, std = predictor.fit(cells[200:212], y[200:212], sources).predict(cells[212:])
            inside.append(float(np.mean(np.abs(y[212:] - mean) < 1.645 * std)))
    assert 0.75 < np.mean(found[4]) < 0.99
    assert np.mean(found[0]) < np.mean(found[4]) - 0.1


@pytest.mark.parametrize("bad", [0.0, -3.0])
def test_latencies_are_positive(bad: float, cells: ArchBatch, sources: Sequence[SourceSamples]) -> None:
    y = milliseconds(cells[:20], CPU)
    y[3] = bad
    with pytest.raises(PredictorError, match="above 0 ms"):
        gcn(epochs=1).fit(cells[:20], y)
    predictor = gcn(epochs=1)
    for _ in range(2):  # what failed is not taken for known
        with pytest.raises(PredictorError, match="above 0 ms"):
            predictor.fit(cells[20:40], milliseconds(cells[20:40], CPU), [SourceSamples(cells[:20], y, "bad")])


# -- between spaces ------------------------------------------------------------------------------------------------


def work(archs: ArchBatch) -> np.ndarray:
    """What takes time anywhere: the multiply-accumulate operations."""
    return np.exp(LayerCosts().encode(archs)[:, 0]) + 0.1


@pytest.mark.parametrize(("make", "encoding"), [(nasflat, None), (gcn, LayerCosts())])
@pytest.mark.parametrize(("theirs", "ours"), [(NB201(), FBNet("small")), (FBNet("small"), NB201())])
def test_devices_of_another_space_help(
    make: Make, encoding: Encoding | None, theirs: SearchSpace, ours: SearchSpace
) -> None:
    far = ArchBatch.sample(theirs, 150, np.random.default_rng(1)).unique()
    near = ArchBatch.sample(ours, 150, np.random.default_rng(2)).unique()
    sources = [SourceSamples(far, work(far), "first"), SourceSamples(far[:100], work(far[:100]) ** 2, "second")]
    y = work(near)
    n, found = 12, []
    for seed in range(3):  # a single one hangs on rounding
        order = np.random.default_rng(seed).permutation(len(near))
        few, rest = order[:n], order[n:]
        made = (make(encoding=encoding, seed=seed).fit(near[few], y[few], s) for s in ([], sources))
        found.append([spearmanr(predictor.predict(near[rest]).mean, y[rest]).statistic for predictor in made])
    alone, helped = np.mean(found, axis=0)
    assert helped > max(0.6, alone - 0.05)  # MACs alone tell much, to a network that is given them


def test_sources_may_be_of_several_spaces(cells: ArchBatch, sources: Sequence[SourceSamples]) -> None:
    chains = ArchBatch.sample(FBNet("small"), 40, np.random.default_rng(0)).unique()
    predictor = nasflat(epochs=3, finetune_lr=1e-9)
    archs = cells[200:212]
    predictor.fit(archs, milliseconds(archs, GPU), [SourceSamples(chains, work(chains), "far"), *sources])
    assert predictor.device == "gpu"
    assert predictor.fit(archs, milliseconds(archs, GPU)).device is None


# -- NASFLAT -------------------------------------------------------------------------------------------------------


def test_every_operation_knows_the_device(cells: ArchBatch) -> None:
    torch.manual_seed(0)
    network = NasflatNetwork(0, 2, 2, 16)
    batch = graphs(cells[:6])
    first, second = (network.embed(batch, torch.full((6,), device)) for device in (0, 1))
    assert (first != second).any(1).all()
    torch.testing.assert_close(network.embed(batch), first)
    with torch.no_grad():
        network.hardware[1] = network.hardware[0]
    torch.testing.assert_close(network.embed(batch, torch.ones(6, dtype=torch.int64)), first)


def test_where_a_block_stands_in_a_chain_matters() -> None:
    torch.manual_seed(0)
    space = FBNet("small")
    rows = np.zeros((2, len(space.genes)), dtype=np.int64)
    rows[0, 5] = rows[1, 9] = 3
    first, second = NasflatNetwork(0, 1, 2, 16).embed(graphs(ArchBatch(space, rows)))
    assert (first - second).abs().max() > 1e-4


def test_every_weight_learns(cells: ArchBatch) -> None:
    network = NasflatNetwork(3, 1, 2, 16)
    network.score(network.embed(graphs(cells[:16])), torch.randn(16, 3)).pow(2).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_pairs_of_two_devices_are_left_out_on_demand(cells: ArchBatch, sources: Sequence[SourceSamples]) -> None:
    """A device whose latencies all are larger cannot pull those of another one down."""
    predictor = nasflat(epochs=1)
    predictor.fit(cells[200:212], milliseconds(cells[200:212], CPU), sources)
    (together,) = predictor._together(sources)
    generator = torch.Generator()
    network = predictor._fresh(3)
    two = together[torch.tensor([0, 200])]
    assert predictor._loss(network, two, generator) > 0
    predictor.across = False
    assert predictor._loss(network, two, generator) == 0


# -- HELP ----------------------------------------------------------------------------------------------------------


def test_devices_are_described_by_what_was_measured(cells: ArchBatch, sources: Sequence[SourceSamples]) -> None:
    predictor = help_(epochs=1).fit(cells[200:212], milliseconds(cells[200:212], CPU), sources)
    anchors = predictor._anchors
    known = {key: i for i, key in enumerate(cells[:200].keys())}
    assert len(anchors) == 10
    twice = [replace(s, archs=s.archs[np.r_[:40, : len(s.y)]], y=s.y[np.r_[:40, : len(s.y)]]) for s in sources]
    assert np.array_equal(predictor.references_of(twice).rows, anchors.rows)
    y = milliseconds(cells[[known[key] for key in anchors.keys()]], GPU)  # noqa: SIM118 (no dictionary)
    expected = (y - y.min()) / np.ptp(y)
    assert_allclose(predictor._before.hardware[2].numpy(), expected, rtol=1e-5)
    measured = predictor._described(SourceSamples(anchors, y, "new")).numpy()
    assert_allclose(measured, expected, rtol=1e-5)
    estimated = predictor._described(SourceSamples(cells[200:300], milliseconds(cells[200:300], GPU), "new")).numpy()
    assert np.corrcoef(estimated, expected)[0, 1] > 0.95
    assert (estimated != expected).any()


def test_references_may_be_given(cells: ArchBatch, sources: Sequence[SourceSamples]) -> None:
    """Also ones that sources were not measured on: they are estimated there."""
    archs = cells[200:212]
    given = cells[[3, 250, 7]]
    predictor = help_(epochs=1, references=given.format()).fit(archs, milliseconds(archs, CPU), sources)
    assert np.array_equal(predictor._anchors.rows, given.rows)
    assert predictor._before.hardware.shape == (len(sources), 3)
    assert np.isfinite(predictor.predict(cells[300:310]).mean).all()
    with pytest.raises(ConfigError, match=r"two references or more, but got \['a'\]"):
        help_(references=["a"])
    with pytest.raises(ArchitectureError):
        help_(epochs=1, references=["a", "b"]).fit(archs, milliseconds(archs, CPU), sources)


def test_an_adaptation_is_gradient_steps_with_a_rate_for_each_weight(
    cells: ArchBatch, sources: Sequence[SourceSamples]
) -> None:
    """As torch's own derivatives have it, outside of batches of functions."""
    predictor = help_(epochs=1).fit(cells[200:212], milliseconds(cells[200:212], CPU), sources)
    meta, hardware = predictor._before, predictor._before.hardware[0]
    network = deepcopy(meta.network)
    inputs, y, z = (torch.randn(6, len(predictor._columns)),), torch.rand(6), torch.randn(network.modulated)
    found = meta.adapted(2, hardware, z, inputs, y)
    for _ in range(2):
        network.zero_grad()
        (network(inputs, hardware, z) - y).pow(2).mean().backward()
        with torch.no_grad():
            for weight, rate in zip(network.parameters(), meta.rates, strict=True):
                weight -= rate * weight.grad
    for name, weight in network.named_parameters():
        torch.testing.assert_close(found[name], weight.detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("graph", [False, True])
def test_all_that_is_meta_learned_gets_a_gradient(
    graph: bool, cells: ArchBatch, sources: Sequence[SourceSamples]
) -> None:
    predictor = help_(epochs=1, graph=graph).fit(cells[200:212], milliseconds(cells[200:212], CPU), sources)
    meta = predictor._before
    meta.zero_grad()
    predictor._loss(meta, predictor._together(sources)[0], torch.Generator()).backward()
    assert [name for name, p in meta.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_a_few_steps_adapt(cells: ArchBatch, sources: Sequence[SourceSamples]) -> None:
    """The latencies of a device bring the network nearer to others of it than its description alone does."""
    archs, other, target = cells[200:220], cells[220:], 0.2 * CPU + 0.8 * GPU
    predictor = help_(epochs=10).fit(archs, milliseconds(archs, target), sources)
    own, unseen = (predictor._together([SourceSamples(a, milliseconds(a, target), "")])[0] for a in (archs, other))
    meta, hardware = predictor._before, predictor.network.hardware
    z = meta.modulators(hardware[None], torch.Generator().manual_seed(0))[0][0]
    errors = [
        float(mse_loss(functional_call(meta.network, weights, ((unseen.features,), hardware, z)), unseen.y).detach())
        for weights in (meta.adapted(steps, hardware, z, (own.features,), own.y) for steps in (0, 2))
    ]
    assert errors[1] < errors[0]
    assert rho(predictor, other, target) > 0.85


def test_weights_that_err_least_on_held_out_architectures_are_kept(
    cells: ArchBatch, sources: Sequence[SourceSamples], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors, seen = iter([3.0, 1.0, 2.0]), []

    def error(_: HELP, meta: MetaNetwork, held_out: DeviceSamples) -> float:
        seen.append({name: value.clone() for name, value in meta.state_dict().items()})
        assert len(held_out.y) == len(sources) * (200 // 8)
        return next(errors)

    monkeypatch.setattr(HELP, "_error", error)
    predictor = help_(epochs=6)  # 120 episodes: a look after 50, 100 and the last
    predictor.fit(cells[200:212], milliseconds(cells[200:212], CPU), sources)
    assert len(seen) == 3
    for name, value in predictor._before.state_dict().items():
        torch.testing.assert_close(value, seen[1][name])
        assert (seen[1][name] != seen[2][name]).any() or name == "hardware"


def test_few_architectures_of_sources_are_all_learned_from(cells: ArchBatch, sources: Sequence[SourceSamples]) -> None:
    few = [SourceSamples(source.archs[:100], source.y[:100], source.name) for source in sources]
    predictor = help_()
    (together,) = predictor.fit(cells[200:212], milliseconds(cells[200:212], CPU), few)._together(few)
    kept, held_out = predictor._apart(together)
    assert held_out is None
    assert len(kept) == len(together)


def test_graphs_are_read_as_they_are_wired(cells: ArchBatch) -> None:
    edges, ops = convolved(graphs(cells[:20]))
    assert ops.shape[1] == edges.shape[1] == graphs(cells[:1]).used.shape[1] + 1
    torch.testing.assert_close(edges[:, :-1, :-1], edges[:, :-1, :-1].mT)
    assert (edges[:, :-1, -1] == 0).all()
    unused = graphs(cells[:20]).used == 0
    assert (edges[:, -1, :-1][unused] == 0).all()


def test_scores_are_the_mean_over_modulators(cells: ArchBatch, sources: Sequence[SourceSamples]) -> None:
    predictor = help_().fit(cells[200:212], milliseconds(cells[200:212], CPU), sources)
    network = predictor.network
    assert isinstance(network, Adapted)
    features = predictor._features(cells[:30])
    alone = []
    for i in range(len(network.z)):
        one = Adapted(network._like[0], 1, predictor.described_by)
        state = network.state_dict()
        one.load_state_dict({name: value if name == "hardware" else value[[i]] for name, value in state.items()})
        alone.append(one.score(torch.zeros(30, 0), features))
    assert len(alone) == 10
    assert (alone[0] != alone[1]).any()
    torch.testing.assert_close(network.score(torch.zeros(30, 0), features), torch.stack(alone).mean(0))


def test_what_help_needs_is_told(cells: ArchBatch, sources: Sequence[SourceSamples]) -> None:
    archs, y = cells[200:212], milliseconds(cells[200:212], CPU)
    with pytest.raises(PredictorError, match="at least one other device"):
        help_().fit(archs, y)
    apart = SourceSamples(cells[300:360], milliseconds(cells[300:360], GPU), "apart")
    with pytest.raises(PredictorError, match="0 are common to all"):
        help_().fit(archs, y, [*sources, apart])
    few = SourceSamples(cells[:10], milliseconds(cells[:10], GPU), "few")
    with pytest.raises(PredictorError, match="one device has 10"):
        help_().fit(archs, y, [*sources, few])
    chains = ArchBatch.sample(FBNet("small"), 30, np.random.default_rng(0)).unique()
    predictor = HELP(LayerCosts(), episodes=2)
    with pytest.raises(SourceError, match="'far' is of fbnet"):
        predictor.fit(archs, y, [SourceSamples(chains, work(chains), "far")])
