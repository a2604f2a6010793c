"""Scores of untrained networks, and other columns of a table, as an encoding."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from predictors.encodings.base import Encoding, Features, search_space
from predictors.normalisation import NormalScores
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, TableError
from searchspaces.files import located
from searchspaces.pool import RowIndex
from searchspaces.space import SearchSpace
from searchspaces.table import Table
from searchspaces.unreduced import Unreduced

# What a summary should rest on where it is there: params and MACs rival nearly all other scores, and of those nwot,
# synflow and jacov are the ones that add to them (arXiv 2101.08134, 2210.03230).
VOTERS = ("params", "nwot", "synflow", "jacov")


class ZeroCost(Encoding):
    """Columns of a table of zero-cost scores, looked up by canonical class, and their vote.

    Each column enters by the normal scores of its ranks in the table, for scores reach from 1e-5 to 1e61. A network
    without a score counts as the worst: below all others, or above them where a column is to be minimised. The vote is
    the mean of some columns, scaled to a standard deviation of 1; it is a part of its own, so that kernels can rely on
    it when samples are few.

    Args:
        table: The table, or the path of one.
        columns: Which columns; None for all, which must not be figures of trained networks then.
        voters: Columns of the vote. Those that are not among the columns are left out, and the vote too if none is.
    """

    def __init__(
        self, table: Table | str | Path, columns: Sequence[str] | None = None, voters: Sequence[str] = VOTERS
    ) -> None:
        self._source = table
        self._chosen = columns
        self.voters = tuple(voters)
        self._read: _Scores | None = None

    def columns(self, space: SearchSpace) -> list[str]:
        """Return the names of the columns, then `vote`."""
        return [name for part in self.parts for name in part.columns(space)]

    def encode(self, archs: ArchBatch) -> Features:
        """Return the normal scores `(n, columns)`, then the vote.

        Raises:
            TableError: If the table is of another space or lacks an architecture's class.
        """
        return np.concatenate([part.encode(archs) for part in self.parts], axis=1)

    @property
    def parts(self) -> tuple[Encoding, ...]:
        """The columns, and the vote."""
        return _Part(self, vote=False), _Part(self, vote=True)

    def scores(self, space: SearchSpace) -> "_Scores":
        """Return the table's scores, read once; for a space taken row by row those of the networks without idle parts.

        Raises:
            TableError: If the table is missing, of another space, or lacks a column.
            ConfigError: If no column is named.
        """
        space = space.base if isinstance(space, Unreduced) else space
        if self._read is None:
            table = self._source if isinstance(self._source, Table) else Table.load(located(str(self._source)), space)
            names = list(table.columns) if self._chosen is None else list(self._chosen)
            if not names:
                raise ConfigError("An encoding by scores needs at least one column of the table.")
            classes = table.archs.space.canonical(table.archs.rows)
            index = RowIndex(classes)
            once = np.unique(index.positions(classes))
            features = np.stack([_normal_scores(table, name, once) for name in names], axis=1)
            voting = [names.index(name) for name in self.voters if name in names]
            vote = features[:, voting].mean(axis=1, keepdims=True) if voting else features[:, :0]
            self._read = _Scores(table, names, features, vote / (vote[once].std() if voting else 1.0), index)
        self._read.table.check_space(space)
        return self._read


class _Scores(NamedTuple):
    """A table's columns as normal scores `(n, columns)`, their vote `(n, 1)` or `(n, 0)`, and where classes stand."""

    table: Table
    names: list[str]
    features: Features
    vote: Features
    places: RowIndex


class _Part(Encoding):
    """The columns of a `ZeroCost`, or its vote."""

    def __init__(self, whole: ZeroCost, vote: bool) -> None:
        self.whole = whole
        self.vote = vote

    def columns(self, space: SearchSpace) -> list[str]:
        scores = self.whole.scores(space)
        return ["vote"] * scores.vote.shape[1] if self.vote else scores.names

    def encode(self, archs: ArchBatch) -> Features:
        scores = self.whole.scores(search_space(archs))
        positions = scores.places.positions(scores.table.archs.space.canonical(archs.rows))
        if (positions < 0).any():
            first = archs[int(np.argmax(positions < 0))].format()[0]
            raise TableError(
                f"The table of scores lacks {int((positions < 0).sum())} of {len(archs)} architectures, the first is "
                f"{first}. Score them first (nasflow score), or take an encoding that needs no table."
            )
        return (scores.vote if self.vote else scores.features)[positions]


def _normal_scores(table: Table, name: str, once: NDArray[np.int64]) -> NDArray[np.float64]:
    """Normal scores of a column among the table's classes; the unknown are the worst."""
    figures = table.column(name)
    worst = np.inf if table.columns[name].direction == "minimize" else -np.inf
    figures = np.where(np.isnan(figures), worst, figures)
    return NormalScores(figures[once])(figures)
