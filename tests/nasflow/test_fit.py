"""`nasflow fit`."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from nasflow.config import composed, instantiate
from nasflow.jobs import fit
from predictors.base import saved_facts
from predictors.encodings.arch2vec import Arch2Vec
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table
from tests.nasflow.test_cli import in_this_process

SPACE = NB201("small")
TINY = ["encoding=arch2vec", "encoding.latent=4", "encoding.hidden=8", "encoding.layers=1", "encoding.epochs=3"]


def nasflow_fit(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run the job in this process and return what it says, in one line."""
    done = in_this_process("fit", *arguments, f"hydra.run.dir={folder}")
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == code, told
    return told


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 200 cells, some of one class: how many convolutions they have, known of all but 20."""
    archs = ArchBatch(SPACE, np.unique(SPACE.sample(220, np.random.default_rng(3)), axis=0)[:200])
    convs = (SPACE.canonical(archs.rows) >= 2).sum(axis=1) + 0.01 * np.arange(200)
    convs[::10] = np.nan
    path = tmp_path_factory.mktemp("table") / "table.parquet"
    Table(archs, {"convs": convs}, [Column("convs")]).save(path)
    return path


def assert_same(one: Arch2Vec, other: Arch2Vec) -> None:
    archs = ArchBatch.sample(SPACE, 20, np.random.default_rng(0))
    np.testing.assert_array_equal(one.encode(archs), other.encode(archs))
    assert one.facts["identity"] == other.facts["identity"]


# -- encodings ---------------------------------------------------------------------------------------------------------


def test_an_encoding_is_trained_once(tmp_path: Path) -> None:
    command = (*TINY, "n=60", "seed=2")
    told = nasflow_fit(tmp_path, *command)
    assert "restores" in told
    path = tmp_path / "encoding.safetensors"
    assert f"Encoding: {path}" in told
    assert not (tmp_path / "checkpoint.safetensors").exists()
    encoding = Arch2Vec(path)
    assert encoding.settings["latent"] == 4
    assert encoding.facts["spaces"] == [SPACE.fingerprint]
    assert encoding.facts["identity"]["seed"] == 2
    assert "packages" in encoding.facts["environment"]

    before = path.read_bytes()
    again = nasflow_fit(tmp_path, *command)
    assert "nothing is left to do" in again
    assert re.findall("restores .* held out", again) == re.findall("restores .* held out", told)
    assert path.read_bytes() == before
    other = nasflow_fit(tmp_path, *TINY, "n=61", "seed=2", code=2)
    assert "fitted with other settings (n: was 60, is now 61)" in other
    assert "Give another hydra.run.dir" in other

    path.write_bytes(before[:-3])
    nasflow_fit(tmp_path, *command)
    assert_same(encoding, Arch2Vec(path))  # for a damaged file is made anew


def test_a_stopped_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (*TINY, "n=60")
    nasflow_fit(tmp_path / "whole", *command)
    real, epochs = fit.heavy_work, []

    def stop_at_third():
        epochs.append(1)
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return real()

    monkeypatch.setattr(fit, "heavy_work", stop_at_third)
    told = nasflow_fit(tmp_path / "stopped", *command, code=130)
    assert "Give the same command again" in told
    assert not (tmp_path / "stopped" / "encoding.safetensors").exists()
    nasflow_fit(tmp_path / "stopped", *command)
    assert len(epochs) == 4, "the third epoch alone was left"
    assert_same(*(Arch2Vec(tmp_path / name / "encoding.safetensors") for name in ("whole", "stopped")))


def test_several_spaces_are_named_in_a_list(tmp_path: Path) -> None:
    told = nasflow_fit(tmp_path, *TINY, "spaces=[nb201,fbnet]", "n=50", "task=digits")
    assert re.search(r"nb201-\w+: restores .* fbnet-\w+: restores", told)
    assert "Unknown space 'nb210'. Did you mean 'nb201'?" in nasflow_fit(tmp_path, *TINY, "spaces=[nb210]", code=2)
    assert "not both" in nasflow_fit(tmp_path, *TINY, "spaces=[nb201]", "space=nb101", code=2)


def test_architectures_are_drawn_by_class() -> None:
    archs = fit._draw(SPACE, 300, np.random.default_rng(0))
    assert len(archs) == len(archs.unique()) == 300
    assert not np.array_equal(archs.rows, fit._draw(SPACE, 300, np.random.default_rng(1)).rows)
    for everything in ("all", 20_000):
        assert len(fit._draw(SPACE, everything, np.random.default_rng(0)).unique()) == 4930
    large = instantiate(composed("fit", ["space=fbnet"]).space)
    assert len(fit._draw(large, 30, np.random.default_rng(0)).unique()) == 30


# -- predictors --------------------------------------------------------------------------------------------------------


def test_a_predictor_is_fitted_and_tested_on_the_rest(table: Path, tmp_path: Path) -> None:
    command = ("predictor=ridge", "encoding=onehot", f"table={table}", "column=convs", "samples=50", "seed=1")
    told = nasflow_fit(tmp_path, *command)
    path = tmp_path / "predictor.safetensors"
    assert f"Predictor: {path}" in told
    facts = saved_facts(path)["facts"]
    assert facts["identity"]["column"] == "convs"
    assert facts["identity"]["predictor"]["_target_"] == "predictors.accuracy.regression.Regression"
    tau = facts["results"]["Kendall tau-b"]
    assert tau["value"] > 0.5
    assert f"held-out Kendall tau-b: {tau['value']:.3f}" in told
    assert facts["results"]["Spearman"]["value"] > tau["value"]

    # What was printed is what a reader of the file finds on architectures that were not fitted to.
    known = Table.load(table, SPACE)
    figures = known.column("convs")
    archs, figures = known.archs[~np.isnan(figures)], figures[~np.isnan(figures)]
    rest = fit.split(archs, 50, np.random.default_rng(1))[1]
    encoding = instantiate(composed("fit", ["encoding=onehot"]).encoding)
    predictor = instantiate(composed("fit", ["predictor=ridge"]).predictor, encoding=encoding, seed=1)
    predictor.load(path, SPACE)
    assert fit._results(predictor, archs[rest], figures[rest])["Kendall tau-b"] == pytest.approx(tau)
    assert tau["n"] == len(rest) < 180 - 50

    again = nasflow_fit(tmp_path, *command)
    assert "nothing is left to do" in again
    assert f"held-out Kendall tau-b: {tau['value']:.3f}" in again
    other = nasflow_fit(tmp_path, *command[:-1], "seed=2", code=2)
    assert "fitted with other settings (seed: was 1, is now 2)" in other


def test_a_changed_table_is_noticed(table: Path, tmp_path: Path) -> None:
    copy = tmp_path / "table.parquet"
    known = Table.load(table, SPACE)
    known.save(copy)
    command = ("predictor=ridge", "encoding=onehot", f"table={copy}", "column=convs", "samples=50")
    nasflow_fit(tmp_path / "out", *command)
    assert "nothing is left to do" in nasflow_fit(tmp_path / "out", *command)
    Table(known.archs, {"convs": -known.column("convs")}, [Column("convs")]).save(copy)
    assert "fitted with other settings (files: was" in nasflow_fit(tmp_path / "out", *command, code=2)


def test_samples_and_tests_share_no_class(table: Path) -> None:
    archs = Table.load(table, SPACE).archs
    keys = archs.keys()
    assert len(set(keys)) < len(keys)
    chosen, rest = fit.split(archs, 60, np.random.default_rng(0))
    trained = {keys[i] for i in chosen}
    assert len(trained) == len(chosen) == 60
    assert set(rest) == {i for i, key in enumerate(keys) if key not in trained}
    assert set(chosen) != set(fit.split(archs, 60, np.random.default_rng(1))[0])
    with pytest.raises(ConfigError, match=rf"figures of {len(set(keys))} different architectures, but samples=500"):
        fit.split(archs, 500, np.random.default_rng(0))


def test_a_predictor_takes_a_trained_encoding(table: Path, tmp_path: Path) -> None:
    nasflow_fit(tmp_path / "encoding", *TINY, "n=60")
    path = f"encoding.path={tmp_path / 'encoding' / 'encoding.safetensors'}"
    rest = ("predictor=ridge", f"table={table}", "column=convs", "samples=60")
    told = nasflow_fit(tmp_path / "predictor", "encoding=arch2vec", path, *rest)
    assert "held-out Kendall tau-b" in told
    with safe_open(tmp_path / "predictor" / "predictor.safetensors", "numpy") as file:
        facts = json.loads(file.metadata()["nasflow"])["facts"]
    assert facts["identity"]["encoding"]["path"] == path.partition("=")[2]
    missing = nasflow_fit(tmp_path / "other", "encoding=arch2vec", "encoding.path=nowhere", *rest, code=1)
    assert "There is no encoding" in missing
    assert "was not trained yet" in nasflow_fit(tmp_path / "other", "encoding=arch2vec", *rest, code=1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Give predictor=NAME to fit a predictor, or encoding=NAME to train an encoding"),
        (["encoding=onehot"], "OneHot has nothing to learn. Take encoding=arch2vec or encoding=cate"),
        ([*TINY, "encoding.path=a.safetensors"], "There is no encoding"),
        ([*TINY, "n=0"], "n is a whole number, at least 1"),
        (["predictor=ridge", "encoding=onehot"], "give table=FILE and column=NAME"),
        (["predictor=ridge", "table=TABLE", "column=convs"], "needs the arguments encoding"),
        (["predictor=ridge", "encoding=onehot", "table=TABLE", "column=convs", "samples=1"], "samples is a whole"),
        (["predictor=ridge", "encoding=onehot", "table=TABLE", "column=conv"], "Did you mean 'convs'"),
        (["predictor=rigde"], "Did you mean 'ridge'"),
    ],
)
def test_mistakes_are_told(arguments: list[str], says: str, table: Path, tmp_path: Path) -> None:
    given = [text.replace("TABLE", str(table)) for text in arguments]
    done = in_this_process("fit", *given, f"hydra.run.dir={tmp_path}")
    assert done.returncode in (1, 2)
    assert says in " ".join(done.stderr.split())
    assert not list(tmp_path.glob("*.safetensors"))


def test_few_architectures_left_are_no_test(table: Path, tmp_path: Path) -> None:
    known = Table.load(table, SPACE)
    archs = known.archs[~np.isnan(known.column("convs"))].unique()
    Table(archs[:12], {"a": np.arange(12.0)}, [Column("a")]).save(tmp_path / "small.parquet")
    told = nasflow_fit(
        tmp_path / "out", "predictor=ridge", "encoding=onehot", f"table={tmp_path / 'small.parquet'}", "column=a",
        "samples=9",
    )
    assert "Fewer than 5 architectures of the table are left to test on" in told


def test_a_table_of_another_scale_is_told(table: Path, tmp_path: Path) -> None:
    rest = (f"table={table}", "column=convs", "space.scale=full")
    assert "Choose the space and scale" in nasflow_fit(tmp_path, "predictor=ridge", "encoding=onehot", *rest, code=1)
