"""The contract of zero-cost proxies, as tests to inherit.

Example:
    >>> class TestMyProxy(ProxyContract):
    ...     @pytest.fixture
    ...     def proxy(self):
    ...         return MyProxy()
"""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from proxies import Proxy, score
from proxies.engine import SHIPPED
from searchspaces.arch import ArchBatch
from searchspaces.errors import TaskError
from searchspaces.genes import Gene
from searchspaces.network import INPUT, Network, NetworkBuilder
from searchspaces.space import SearchSpace
from searchspaces.task import Task


class WidthsSpace(SearchSpace):
    """Chains of two convolutions of chosen widths: the smallest space that proxies can rank."""

    name = "widths"
    genes = (Gene("first", (4, 8, 16), ordered=True), Gene("second", (4, 8, 16), ordered=True))

    def network(self, row: NDArray[np.int64], task: Task) -> Network:
        """Two convolutions with batch normalisation and ReLU, then the classifier."""
        builder = NetworkBuilder(self.name, task.input_shape)
        x = INPUT
        for choice in row:
            x = builder.conv_bn(x, (4, 8, 16)[choice], 3)
        return builder.build(builder.classifier(x, task.classes))


class ProxyContract:
    """What every proxy must fulfil; a subclass gives the fixture `proxy`."""

    task = Task("contract", (1, 8, 8), 4)

    @pytest.fixture
    def proxy(self) -> Proxy:
        """The proxy under test."""
        raise NotImplementedError("A subclass of ProxyContract gives the fixture `proxy`.")

    @pytest.fixture
    def archs(self) -> ArchBatch:
        """All nine architectures of a small space."""
        return ArchBatch(WidthsSpace(), np.stack(np.meshgrid(range(3), range(3)), axis=-1).reshape(-1, 2))

    @pytest.fixture
    def data(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """A minibatch: images `(16, 1, 8, 8)` and labels `(16,)`."""
        rng = np.random.default_rng(0)
        return rng.standard_normal((16, *self.task.input_shape), dtype=np.float32), np.arange(16) % self.task.classes

    def test_declares_itself(self, proxy: Proxy) -> None:
        """A proxy says its name, its direction and how its scores are normalised."""
        assert proxy.name
        assert proxy.direction in ("maximize", "minimize")
        assert proxy.normalisation in ("linear", "log")

    def test_scores_are_finite_and_not_all_the_same(self, proxy: Proxy, archs: ArchBatch, data: object) -> None:
        """One finite number per architecture, and they differ."""
        scores = self._score(proxy, archs, data)
        assert scores.shape == (len(archs),)
        assert np.isfinite(scores).all()
        assert len(np.unique(scores)) > 1

    def test_scores_follow_from_the_seed(self, proxy: Proxy, archs: ArchBatch, data: object) -> None:
        """Equal seeds give equal scores, whatever torch's own generator has done."""
        first = self._score(proxy, archs, data)
        torch.manual_seed(99)
        before = torch.get_rng_state()
        np.testing.assert_array_equal(self._score(proxy, archs, data), first)
        assert torch.equal(torch.get_rng_state(), before)

    def test_scores_do_not_depend_on_the_rest_of_the_batch(self, proxy: Proxy, archs: ArchBatch, data: object) -> None:
        """An architecture scored alone has the score it has among others."""
        together = self._score(proxy, archs, data)
        np.testing.assert_array_equal(self._score(proxy, archs[4], data), together[4:5])

    def test_scores_do_not_depend_on_other_proxies(self, proxy: Proxy, archs: ArchBatch, data: object) -> None:
        """Proxies share a module and its passes: in company a proxy gives what it gives alone."""
        company = [name for name in SHIPPED if name != proxy.name]
        for order in ([*company, proxy], [proxy, *company]):
            scores = score(archs[:2], self.task, order, data, seed=7)  # type: ignore[arg-type]
            np.testing.assert_array_equal(scores[proxy.name], self._score(proxy, archs[:2], data))

    def test_splitting_networks_changes_nothing(self, proxy: Proxy, archs: ArchBatch, data: object) -> None:
        """Less memory for the same scores, to the bit."""
        split = score(archs[:2], self.task, [proxy], data, seed=7, split=3)  # type: ignore[arg-type]
        np.testing.assert_array_equal(split[proxy.name], self._score(proxy, archs[:2], data))

    def test_needs_what_it_declares(self, proxy: Proxy, archs: ArchBatch, data: Any) -> None:
        """Without a declared need of data, images and labels do not matter; without one of labels, labels do not."""
        images, labels = data
        whole = self._score(proxy, archs[:2], data)
        if not proxy.needs_labels:
            np.testing.assert_array_equal(self._score(proxy, archs[:2], (images, labels[::-1].copy())), whole)
        if proxy.needs_data:
            with pytest.raises(TaskError):
                self._score(proxy, archs[:2], None)
        else:
            np.testing.assert_array_equal(self._score(proxy, archs[:2], None), whole)

    def test_normalisation_keeps_the_order_and_survives_extremes(self, proxy: Proxy) -> None:
        """Normalised scores are finite and rank as the raw ones."""
        raw = np.array([-1e61, -1.0, 0.0, 1.0, 1e61])
        normal = proxy.normalise(raw)
        assert np.isfinite(normal).all()
        assert (np.diff(normal) > 0).all()

    def _score(self, proxy: Proxy, archs: ArchBatch, data: object) -> NDArray[np.float64]:
        return score(archs, self.task, [proxy], data, seed=7)[proxy.name]  # type: ignore[arg-type]
