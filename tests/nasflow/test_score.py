"""`nasflow score`, started as users start it."""

import json
from pathlib import Path

import numpy as np
import pytest

from searchspaces.arch import ArchBatch
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table
from tests.nasflow.test_cli import in_this_process, nasflow

PROXIES = "evaluator.proxies.proxies=[params,synflow]"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 60 cells: their parameters, and a figure that is not known everywhere."""
    space = NB201(scale="small")
    archs = ArchBatch.sample(space, 60, np.random.default_rng(3))
    archs = ArchBatch(space, np.unique(archs.rows, axis=0))
    params = np.array([float((row >= 2).sum()) for row in archs.rows])
    half = np.where(np.arange(len(archs)) % 2 == 0, params, np.nan)
    path = tmp_path_factory.mktemp("known") / "known.parquet"
    Table(archs, {"convs": params, "half": half}, [Column("convs"), Column("half")]).save(path)
    return path


def test_scores_go_into_a_table_and_are_correlated(known: Path, tmp_path: Path) -> None:
    out = f"hydra.run.dir={tmp_path / 'out'}"
    done = nasflow("score", PROXIES, f"table={known}", "n=40", out)
    assert "Spearman" in done.stdout
    assert "40 architectures, 0 evaluations failed" in done.stdout
    table = Table.load(tmp_path / "out" / "table.parquet", NB201(scale="small"))
    assert len(table) == 40
    assert set(table.columns) == {"params", "synflow"}
    found = {(entry["figure"], entry["column"]): entry for entry in json.loads(
        (tmp_path / "out" / "correlations.json").read_text())}
    assert len(found) == 4
    assert found["params", "convs"]["n"] == 40 > found["params", "half"]["n"] > 5
    pair = found["params", "convs"]["spearman"]
    assert -1 < pair["low"] < pair["value"] < pair["high"] < 1

    again = nasflow("score", PROXIES, f"table={known}", "n=all", "workers=2", out)  # goes on with the rest
    assert f"{len(Table.load(known, NB201(scale='small')))} architectures, 0 evaluations failed" in again.stdout
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(lines) == 1 + len(Table.load(known, NB201(scale="small")))

    other = in_this_process("score", "evaluator.proxies.proxies=[nwot]", f"table={known}", "n=40", out)
    assert other.returncode == 1
    assert "proxies" in other.stderr
    assert "or another hydra.run.dir" in " ".join(other.stderr.split())


def test_any_evaluator_and_several_seeds(tmp_path: Path) -> None:
    command = ("score", "evaluator=[train]", "trainer.epochs=1", "trainer.copies=2", "seeds=2", "n=5")
    done = nasflow(*command, f"hydra.run.dir={tmp_path}")
    assert "reliability of the mean accuracy of 2 seeds" in done.stdout
    table = Table.load(tmp_path / "table.parquet", NB201(scale="small"))
    assert {"accuracy.seed0", "accuracy.seed1", "test_accuracy", "loss", "test_loss"} <= set(table.columns)
    assert not np.array_equal(table.column("accuracy.seed0"), table.column("accuracy.seed1"))
    assert len(set(table.archs.space.keys(table.archs.rows))) == 5


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("n=0", "n is a whole number, at least 1"),
        ("n=61", "ask for at most these, or n=all"),
        ("columns=[accuracy]", "column of the table"),
        ("workers=0", "workers is a whole number"),
    ],
)
def test_mistakes_are_told(known: Path, tmp_path: Path, argument: str, says: str) -> None:
    rest = [] if argument.startswith("n=") else ["n=6"]
    done = nasflow("score", PROXIES, f"table={known}", f"hydra.run.dir={tmp_path}", argument, *rest, code=2)
    assert says in " ".join(done.stderr.split())
    log = tmp_path / "results.jsonl"
    assert not log.exists() or len(log.read_text().splitlines()) == 1, "nothing was evaluated in vain"
