import numpy as np
import pytest

from devices import check_latencies, latency_column, load_latencies
from searchspaces.arch import ArchBatch
from searchspaces.errors import TableError
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table

SPACE = NB201("small")
A, B = latency_column("a"), latency_column("b")


def _table(a=(1.0, 2.0, 3.0), b=(2.0, 1.0, 4.0), unit="ms", provenance=None, space=SPACE):
    archs = ArchBatch(space, space.from_index(range(3)))
    columns = [Column(A, unit, "minimize"), Column(B, "ms", "minimize"), Column("params_m")]
    return Table(archs, {A: a, B: b, "params_m": np.full(3, -1.0)}, columns, provenance)


def test_a_sound_dataset_passes(tmp_path):
    path = tmp_path / "table.parquet"
    _table(a=(1.0, np.nan, 2.0)).save(path)
    table = load_latencies(path, SPACE)
    assert np.isnan(table.column(A)[1])
    check_latencies(_table(), [A], complete=True)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"a": (1.0, -2.0, 3.0)}, rf"1 of column '{A}' are not: \|.* has -2 ms"),
        ({"a": (1.0, 0.0, 0.0)}, rf"2 of column '{A}' are not: .* has 0 ms"),
        ({"a": (1.0, np.inf, 3.0)}, "has inf ms"),
        ({"a": (np.nan,) * 3}, "lacks 3 of 3 latencies"),
        ({"unit": "s"}, rf"column '{A}' is in s\. Convert"),
        ({"unit": ""}, "is in no unit"),
        ({"a": (2.0, 1.0, 4.0)}, "hold the same figures"),
        ({"provenance": {"devices": {"a": {"identity": "x"}, "b": {"identity": "x"}}}}, "under two names"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(wrong, says, tmp_path):
    path = tmp_path / "table.parquet"
    _table(**wrong).save(path)
    with pytest.raises(TableError, match=says):
        load_latencies(path, SPACE)


def test_missing_figures_are_refused_where_all_are_needed():
    table = _table(a=(1.0, np.nan, 3.0))
    check_latencies(table)
    with pytest.raises(TableError, match=r"lacks 1 of 3 latencies, the first of \|"):
        check_latencies(table, complete=True)
    check_latencies(table, [B], complete=True)


def test_other_devices_spaces_and_scales_are_refused(tmp_path):
    path = tmp_path / "table.parquet"
    _table().save(path)
    with pytest.raises(TableError, match="Did you mean 'a_latency_ms'"):
        load_latencies(path, SPACE, ["aa"])
    for other in (NB201("full"), NB201("small", stem=3)):
        with pytest.raises(TableError, match="space and scale"):
            load_latencies(path, other)
    archs = ArchBatch(SPACE, SPACE.from_index(range(3)))
    with pytest.raises(TableError, match="named DEVICE_latency_ms"):
        check_latencies(Table(archs, {"x": np.ones(3)}, [Column("x")]))


def test_devices_measured_apart_may_have_unknown_identities():
    check_latencies(_table(provenance={"devices": {"a": {}, "b": {}}}))
    check_latencies(_table(provenance={"devices": ["a", "b"]}))
    check_latencies(_table(provenance={"devices": {"a": {"identity": "x"}, "b": {"identity": "y"}}}))
