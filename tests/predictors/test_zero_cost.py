from pathlib import Path

import numpy as np
import pytest

from predictors.encodings import ZeroCost
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, TableError
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table
from searchspaces.unreduced import Unreduced

COLUMNS = [Column("synflow", direction="maximize"), Column("loss", direction="minimize"), Column("params")]


@pytest.fixture
def table() -> Table:
    space = NB201()
    archs = ArchBatch.sample(space, 300, np.random.default_rng(0)).unique()
    n = len(archs)
    params = np.arange(n, dtype=float)
    synflow, loss = 10.0 ** np.linspace(-3, 61, n), params[::-1].copy()
    synflow[5] = loss[5] = np.nan
    return Table(archs, {"synflow": synflow, "loss": loss, "params": params}, COLUMNS)


def test_columns_become_normal_scores_and_the_vote_their_mean(table: Table) -> None:
    encoding = ZeroCost(table, voters=["params", "synflow", "absent"])
    found = encoding.encode(table.archs)
    assert encoding.columns(table.archs.space) == ["synflow", "loss", "params", "vote"]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.std(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=0.03)
    both = found[:, 0] + found[:, 2]
    np.testing.assert_allclose(found[:, 3], both / both.std())
    assert [len(part.columns(table.archs.space)) for part in encoding.parts] == [3, 1]


def test_a_network_without_a_score_counts_as_the_worst(table: Table) -> None:
    found = ZeroCost(table).encode(table.archs)
    assert found[5, 0] == found[:, 0].min()
    assert found[5, 1] == found[:, 1].max(), "a loss is to be minimised"


def test_scores_are_found_by_class_and_must_be_there(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    table.save(path)
    encoding = ZeroCost(str(path), columns=["params"])
    np.testing.assert_allclose(encoding.encode(table.archs.canonical()), encoding.encode(table.archs))
    pooled = ArchBatch(table.pool(["params"]), table.archs.rows)
    np.testing.assert_array_equal(encoding.encode(pooled), encoding.encode(table.archs))
    row_by_row = ArchBatch(Unreduced(table.archs.space), table.archs.rows)
    np.testing.assert_array_equal(encoding.encode(row_by_row), encoding.encode(table.archs))
    rest = ArchBatch.sample(table.archs.space, 500, np.random.default_rng(9))
    with pytest.raises(TableError, match=r"lacks \d+ of 500 architectures, the first is \|.*nasflow score"):
        encoding.encode(rest)
    with pytest.raises(TableError, match="figures of another space"):
        encoding.encode(ArchBatch(NB201("small"), table.archs.rows))


def test_bad_columns_are_told(table: Table) -> None:
    with pytest.raises(TableError, match="Unknown column 'sinflow'. Did you mean 'synflow'"):
        ZeroCost(table, columns=["sinflow"]).encode(table.archs)
    with pytest.raises(ConfigError, match="at least one column"):
        ZeroCost(table, columns=[]).encode(table.archs)
    with pytest.raises(TableError, match="There is no table"):
        ZeroCost("/nowhere.parquet").encode(table.archs)
    without = ZeroCost(table, voters=["absent"])
    assert without.encode(table.archs).shape == (len(table), 3)
