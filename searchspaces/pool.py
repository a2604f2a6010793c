"""Pools: a search space limited to given rows, such as those that a partial table of results holds."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import ArchitectureError
from searchspaces.genes import Mask, Rows
from searchspaces.network import Network
from searchspaces.space import Op, SearchSpace
from searchspaces.task import Task

_ENTRIES = 2**22  # distances held at a time


class RowIndex:
    """Finds rows among given ones by binary search.

    Args:
        rows: Rows `(n, genes)`; where one stands more than once, the first place counts.
    """

    def __init__(self, rows: Rows) -> None:
        keys = _packed(rows)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self.repeated = int((self._keys[1:] == self._keys[:-1]).sum())

    def positions(self, rows: Rows) -> NDArray[np.int64]:
        """Return the place of each of `rows (m, genes)`, shape `(m,)`; -1 for those that are not there."""
        if len(self._keys) == 0:
            return np.full(len(rows), -1, dtype=np.int64)
        keys = _packed(rows)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[places] == keys, self._order[places], -1)


class Pool(SearchSpace):
    """A search space limited to given rows, which keep their meaning.

    Name, genes, scale and fingerprint are the base's, so tables, predictors and studies of the base serve the pool.
    Few rows of a partial table have each other as neighbours (more than half of a sample of 20,000 cells of
    NAS-Bench-101 have none at one edit), so moves lead to the nearest rows of another class, however far.

    The distance of two rows is the number of genes in which they differ (Hamming), taken on the rows as they are. It
    depends on how a row writes its network: isomorphic cells, genes that do not matter. Canonical rows were tried and
    are no better: the rank correlation of a cell's accuracy with that of its nearest cell is 0.67 by raw and 0.66 by
    canonical rows on that sample of NAS-Bench-101, 0.62 and 0.56 on 1,500 cells of NAS-Bench-201. With raw rows, a
    pool of all rows has the neighbours of its base.

    Where rows are few, two can be nearest to each other alone. A strategy that may propose again what it has seen
    goes back and forth between them; deduplication, which every search has, widens the step.

    Args:
        base: The space, or a pool of it.
        rows: Its rows `(n, genes)`; checked and copied.

    Attributes:
        base: The space without the limit.
        rows: The pool's rows `(n, genes)`, read-only, in the given order.

    Raises:
        ArchitectureError: If a row does not belong to the base or stands twice, or all are of one canonical class.
    """

    def __init__(self, base: SearchSpace, rows: Any) -> None:
        self.rows: Rows = base.check(rows)
        self.rows.setflags(write=False)
        self.base: SearchSpace = base.base if isinstance(base, Pool) else base
        self.genes = self.base.genes
        self.scale = self.base.scale
        self._index = RowIndex(self.rows)
        if self._index.repeated:
            raise ArchitectureError(f"A pool holds distinct rows, but {self._index.repeated} stand twice. Drop them.")
        classes = self.base.canonical(self.rows)
        self._classes = RowIndex(classes)
        # A class is named by the position of its first row.
        self._class = self._classes.positions(classes).astype(np.int32)
        if len(np.unique(self._class)) < 2:
            raise ArchitectureError(
                f"A search moves from one architecture to another, so a pool needs rows of at least two canonical "
                f"classes, but the {len(self.rows)} rows given have {len(np.unique(self._class))}. Give more rows; of "
                "a table, those are left out that lack a figure."
            )

    def __len__(self) -> int:
        return len(self.rows)

    # -- what is the base's ------------------------------------------------------------------------------------

    @property
    def name(self) -> str:  # type: ignore[override]
        """The base's name."""
        return self.base.name

    @property
    def scale_arguments(self) -> dict[str, Any]:
        """The base's."""
        return self.base.scale_arguments

    @cached_property
    def fingerprint(self) -> str:
        """The base's: rows mean the same."""
        return self.base.fingerprint

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """The base's."""
        return self.base.ops

    def active(self, rows: Rows) -> Mask:
        """As in the base."""
        return self.base.active(rows)

    def keys(self, rows: Rows) -> list[bytes]:
        """Return the base's keys, so that classes can be compared across pools."""
        return self.base.keys(rows)

    def graph(self, rows: Rows) -> tuple[Mask, NDArray[np.int64]]:
        """As in the base."""
        return self.base.graph(rows)

    def network(self, row: NDArray[np.int64], task: Task) -> Network:
        """As in the base."""
        return self.base.network(row, task)

    def format(self, rows: Rows) -> list[str]:
        """As in the base."""
        return self.base.format(rows)

    def parse(self, texts: Sequence[str]) -> Rows:
        """As in the base: the rows read may lie outside the pool."""
        return self.base.parse(texts)

    # -- rows --------------------------------------------------------------------------------------------------

    def check(self, rows: Any) -> Rows:
        """Return `rows` as an integer array `(n, genes)`.

        Raises:
            ArchitectureError: If they are not rows of the base, or not in the pool.
        """
        array = self.base.check(rows)
        inside = self.is_valid(array)
        if not inside.all():
            first = self.format(array[~inside][:1])[0]
            raise ArchitectureError(
                f"{np.sum(~inside)} of {len(array)} architectures are outside the pool of {len(self)} that space "
                f"{self.name!r} is limited to; the first is {first}. Take rows of the pool, or the whole space."
            )
        return array

    def is_valid(self, rows: Rows) -> Mask:
        """Tell which rows are in the pool."""
        return self._index.positions(rows) >= 0

    def canonical(self, rows: Rows) -> Rows:
        """Map to the first row of the pool that is of the same class; classes outside the pool as in the base."""
        classes = self.base.canonical(rows)
        first = self._classes.positions(classes)
        return np.where((first >= 0)[:, None], self.rows[first], classes)

    def enumerate_classes(self) -> Rows:
        """Return the canonical rows of the pool's classes, in row order; shape `(classes, genes)`."""
        return np.unique(self.rows[np.unique(self._class)], axis=0)

    # -- moving about ------------------------------------------------------------------------------------------

    def sample(self, n: int, rng: np.random.Generator) -> Rows:
        """Draw `n` rows of the pool, uniformly and with replacement; shape `(n, genes)`."""
        return self.rows[rng.integers(len(self), size=n)]

    def mutate(self, rows: Rows, rng: np.random.Generator, edits: int = 1) -> Rows:
        """Draw for each row one of the pool's rows of another class at the smallest distance of at least `edits`.

        Where the whole pool is nearer than that, one of the farthest is drawn. No edits leave the rows as they are.
        Shape `(n, genes)`.
        """
        if edits == 0:
            return rows.copy()
        return self._draw(rows, self._own(rows), edits, rng)

    def neighbors(self, row: NDArray[np.int64]) -> Rows:
        """Return the pool's rows of another class that are one edit from `row`, else those at the smallest distance.

        Shape `(m, genes)`, at least one.
        """
        single = row[None]
        return self.rows[np.flatnonzero(self._nearest(single, self._own(single), 1))]

    def crossover(self, first: Rows, second: Rows, rng: np.random.Generator) -> Rows:
        """Cross as the base does, then take the nearest row of the pool; shape `(n, genes)`."""
        return self.nearest(self.base.crossover(first, second, rng), rng)

    def nearest(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """Draw for each of the base's `rows` one of the pool's at the smallest distance, 0 included; `(n, genes)`."""
        return self._draw(rows, np.full(len(rows), -1, dtype=np.int32), 0, rng)

    def _own(self, rows: Rows) -> NDArray[np.int32]:
        """Return the classes of rows, as the positions of their first rows in the pool, `(n,)`; -1 for others."""
        return self._classes.positions(self.base.canonical(rows)).astype(np.int32)

    def _draw(self, rows: Rows, own: NDArray[np.int32], least: int, rng: np.random.Generator) -> Rows:
        """Draw for each row one of its `_nearest`, uniformly; rows that stand more than once are compared once."""
        draws, picks = rng.random(len(rows)), np.zeros(len(rows), dtype=np.int64)
        _, where, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        inverse, size = inverse.ravel(), max(1, _ENTRIES // len(self))
        for start in range(0, len(where), size):
            part = where[start : start + size]
            nearest = self._nearest(rows[part], own[part], least)
            counts, members = nearest.sum(axis=1), np.nonzero(nearest)[1]
            todo = np.flatnonzero((inverse >= start) & (inverse < start + size))
            which = inverse[todo] - start
            picks[todo] = members[(np.cumsum(counts) - counts)[which] + (draws[todo] * counts[which]).astype(np.int64)]
        return self.rows[picks]

    def _nearest(self, rows: Rows, own: NDArray[np.int32], least: int) -> Mask:
        """Tell which rows of the pool are nearest to each row, shape `(n, pool)`, at least one for each.

        Args:
            rows: Rows `(n, genes)`.
            own: Their classes `(n,)`, whose rows do not count.
            least: Nearer rows do not count, unless there are no others; then the farthest do.
        """
        agreeing = self._one_hot(rows) @ self._members
        agreeing[self._class == own[:, None]] = -1
        most = agreeing.max(axis=1)
        limit = len(self.genes) - least
        if (most > limit).any():
            eligible = np.where(agreeing <= limit, agreeing, -1)
            most = eligible.max(axis=1)
            none = most < 0
            most[none] = np.where(agreeing[none] < 0, np.inf, agreeing[none]).min(axis=1)
        return np.asarray(agreeing == most[:, None])

    @cached_property
    def _members(self) -> NDArray[np.float32]:
        """The pool in one-hot form, shape `(choices, pool)`."""
        return np.ascontiguousarray(self._one_hot(self.rows).T)

    def _one_hot(self, rows: Rows) -> NDArray[np.float32]:
        """Return one column per choice of each gene, so that a product counts genes that agree; `(n, choices)`."""
        matrix = np.zeros((len(rows), int(self.sizes.sum())), dtype=np.float32)
        matrix[np.arange(len(rows))[:, None], rows + np.cumsum(self.sizes) - self.sizes] = 1
        return matrix


def _packed(rows: Rows) -> NDArray[np.void]:
    """Return each row as one item that can be sorted and compared, shape `(n,)`."""
    packed = np.ascontiguousarray(rows.astype(np.int16))
    return packed.view(np.dtype((np.void, packed.shape[1] * packed.itemsize))).ravel()
