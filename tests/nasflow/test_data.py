import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasflow.cli import main
from nasflow.config import composed
from nasflow.jobs import data
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, TableError
from searchspaces.nb201 import NB201
from searchspaces.nb201.dialects import to_naslib
from searchspaces.table import Column, Table

SPACE = NB201(scale="full")
IMPORT = ["action=import", "source=nb201_help", "path=x"]


def run(*overrides: str) -> None:
    data.run(composed("data", list(overrides)))


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """A small published file."""
    keys = to_naslib(SPACE.from_index(np.arange(30))).tolist()
    entries = {str(tuple(key)): {"synflow": {"score": i, "time": 1.0}} for i, key in enumerate(keys)}
    path = tmp_path / "zc_scores.json"
    path.write_text(json.dumps({"cifar10": entries, "cifar100": entries}))
    return path


@pytest.fixture
def store(scores: Path, tmp_path: Path) -> Path:
    run("action=import", "source=nb201_naslib", f"path={scores}", f"out={tmp_path / 'store'}")
    return tmp_path / "store"


def test_import_writes_a_table_for_each_data_set(store: Path) -> None:
    found = sorted(path.relative_to(store).as_posix() for path in store.rglob("*"))
    assert found == ["nb201", "nb201/naslib_cifar10.parquet", "nb201/naslib_cifar100.parquet"]
    table = Table.load(store / "nb201" / "naslib_cifar10.parquet", SPACE)
    assert table.lookup(ArchBatch(SPACE, SPACE.from_index([7])), "synflow").tolist() == [7]


def test_an_import_can_be_given_again(store: Path, scores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (store / "nb201" / "naslib_cifar10.parquet").read_bytes()
    run("action=import", "source=nb201_naslib", f"path={scores}", f"out={store}")
    assert (store / "nb201" / "naslib_cifar10.parquet").read_bytes() == before
    assert f"{store}/nb201/naslib_cifar100.parquet: 58 architectures" in capsys.readouterr().out


def test_list_shows_sources_and_tables(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    run("action=list", f"out={store}")
    shown = capsys.readouterr().out
    assert all(name in shown for name in data.sources())
    for part in ("https://github.com/HayeonLee/HELP", "MIT", "none stated", "nb201/naslib_cifar10", "synflow"):
        assert part in shown


def test_list_tells_of_damaged_tables(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / "nb201" / "naslib_cifar10.parquet").write_bytes(b"PAR1")
    run("action=list", f"out={store}")
    assert "cannot be used" in capsys.readouterr().out


def flipped(path: Path) -> None:
    """Change a figure the way nobody notices: the file is as readable as before."""
    table = Table.load(path, SPACE)
    table.values["synflow"] = table.values["synflow"] + 1
    table.save(path)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.parametrize(
    ("harm", "reason"), [(flipped, "other figures than when it was imported"), (truncated, "not a readable Parquet")]
)
def test_verify_finds_damage(store: Path, capsys: pytest.CaptureFixture[str], harm: Any, reason: str) -> None:
    run("action=verify", f"out={store}")
    assert f"2 tables in {store} are whole" in capsys.readouterr().out
    harm(store / "nb201" / "naslib_cifar10.parquet")
    with pytest.raises(TableError, match="1 of 2 tables cannot be used: nb201/naslib_cifar10. Import them again"):
        run("action=verify", f"out={store}")
    shown = capsys.readouterr().out
    assert "nb201/naslib_cifar100: OK" in shown
    assert f"nb201/naslib_cifar10: DAMAGED: {store}/nb201/naslib_cifar10.parquet" in shown
    assert reason in shown


def test_tables_of_ones_own_have_no_checksum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archs = ArchBatch(SPACE, SPACE.from_index([1, 2]))
    Table(archs, {"latency_ms": [1.0, 2.0]}, [Column("latency_ms", "ms")]).save(tmp_path / "mine.parquet")
    run("action=verify", f"out={tmp_path}")
    assert "mine: OK, 2 architectures, no checksum" in capsys.readouterr().out


def test_an_interrupted_import_leaves_no_table(tmp_path: Path) -> None:
    path = tmp_path / "cifar10_accuracy.csv.gz"
    path.write_bytes(gzip.compress(b"index,arch,params_m,valid_acc_12ep,valid_acc_200ep,test_acc_200ep\n" * 99)[:-9])
    with pytest.raises(TableError, match="cifar10_accuracy.csv.gz is not a CSV file of 15,625 records"):
        run("action=import", "source=nb201_accuracy", f"path={path}", f"out={tmp_path / 'store'}")
    assert not (tmp_path / "store").exists()


def anything(**values: Any) -> dict[str, Any]:
    return values


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["action=lst"], "Unknown action 'lst'. Did you mean 'list'"),
        (["action=import", "out=x"], "Give source=NAME and path=FILES"),
        (["action=import", "source=nb201_help", "out=x"], "Give source=NAME and path=FILES"),
        ([*IMPORT, "out=null"], "Set NASFLOW_DATA, or give out=FOLDER"),
        (["action=verify", "out=null"], "Set NASFLOW_DATA, or give out=FOLDER"),
        ([*IMPORT, "out=x", f"source._target_={__name__}.anything"], "must build a Source"),
    ],
)
def test_misuse_is_explained(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(*overrides)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["list"], 0, "nb201_help"),
        (["verify"], 0, "2 tables in"),
        (["lst"], 2, "Did you mean 'list'"),
        (["import", "source=nb201_hlep", "path=x"], 2, "Unknown source 'nb201_hlep'. Did you mean 'nb201_help'"),
        (["import", "source=nb201_help", "path=nowhere"], 1, "nowhere is no folder"),
    ],
)
def test_the_first_word_says_what_to_do(
    store: Path, words: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("NASFLOW_DATA", str(store))
    assert main(["data", *words]) == code
    told = capfd.readouterr()
    assert message in " ".join((told.out + told.err).split())


@pytest.mark.data
def test_a_search_looks_up_an_imported_table(data_dir: Path, tmp_path: Path) -> None:
    from nasflow import search

    path = data_dir / "nb201" / "cifar10_accuracy.csv.gz"
    run("action=import", "source=nb201_accuracy", f"path={path}", f"out={tmp_path}")
    columns = "evaluator.table.columns={accuracy: valid_acc_200ep, params_m: params_m}"
    table = f"evaluator.table.path={tmp_path}/nb201/cifar10_accuracy.parquet"
    found, _ = search(
        "space=nb201", "space.scale=full", "evaluator=table", table, columns, "objective=accuracy_params", "budget=60",
        "storage=memory", folder=tmp_path / "run",
    )  # fmt: skip
    best = max(record.metrics["accuracy"] for record in found.study.records())
    assert 85 < best <= 91.6067
