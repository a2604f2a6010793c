"""What a run's folder keeps of its configuration: paths, passwords, the record of its command."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

import nasflow.study.storage
from nasflow import Search, search
from nasflow.portable import opened, portable, refuse_passwords, with_absolute_paths, without_passwords
from nasflow.study.storage import journal
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, StudyError, TableError
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table

BUDGET = 3
SECRET = "hunter/2:x"


def make_table(path: Path, shift: float = 0.0) -> Path:
    """Made-up figures of every architecture, all larger by `shift`."""
    space, rng = NB201(scale="small"), np.random.default_rng(0)
    archs = ArchBatch(space, space.from_index(np.arange(15625)))
    Table(archs, {"accuracy": rng.random(len(archs)) + shift}, [Column("accuracy")]).save(path)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_table(tmp_path_factory.mktemp("table") / "table.parquet")


def looked_up(folder: Path, path: str | Path, *overrides: str) -> Search:
    """A search in a table, which writes neither report nor models."""
    from nasflow.config import composed

    given = ["evaluator=table", f"evaluator.table.path={path}", "objective=accuracy", f"budget={BUDGET}", *overrides]
    config = composed("search", given)
    text = str(config.storage._get_node("path")._value())
    config.storage.path = text.replace("${hydra:runtime.output_dir}", str(folder))
    found = Search(config, folder)
    found.start(given)
    return found


def accuracies(found: Search) -> list[float]:
    return [record.metrics["accuracy"] for record in found.run(progress=False)]


# -- paths -------------------------------------------------------------------------------------------------------


def test_worker_started_elsewhere_finds_the_same_file(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, elsewhere, folder = tmp_path / "there", tmp_path / "elsewhere", tmp_path / "run"
    for place in (there, elsewhere):
        place.mkdir()
    shutil.copy(table, there / "table.parquet")
    make_table(elsewhere / "table.parquet", shift=5.0)
    monkeypatch.chdir(there)
    looked_up(folder, "table.parquet")
    monkeypatch.chdir(elsewhere)
    found = accuracies(Search.load(folder))
    assert len(found) == BUDGET
    assert max(found) < 1, "not the file of that name where the worker was started"
    assert accuracies(looked_up(folder, "../there/table.parquet")) == found, "the same file under another name"
    with pytest.raises((StudyError, TableError)):
        looked_up(folder, "table.parquet")


def test_relative_journal_is_found_from_elsewhere(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    config = looked_up(folder, table).config.copy()
    shutil.rmtree(folder)
    config.storage.path = "logs/study.journal"
    Search(config, folder).start()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(accuracies(Search.load(folder))) == BUDGET
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_moved_folder_keeps_what_lies_inside(table: Path, tmp_path: Path) -> None:
    former, folder = tmp_path / "run", tmp_path / "moved" / "run"
    former.mkdir()
    shutil.copy(table, former / "table.parquet")
    found = accuracies(looked_up(former, former / "table.parquet"))
    folder.parent.mkdir()
    former.rename(folder)
    assert accuracies(Search.load(folder)) == found
    assert accuracies(looked_up(folder, folder / "table.parquet")) == found, "and it is the same study"
    assert not former.exists()


def test_only_what_lies_in_the_folder_moves_with_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    texts = {
        "inside": f"{run}/a/b.npz",
        "itself": str(run),
        "sqlite": f"sqlite:///{run}/study.db?timeout=3",
        "beside": f"{run}2/a.npz",
        "below": f"/mnt{run}/a.npz",
        "other": "{folder",
    }
    kept = portable(OmegaConf.create({**texts, "list": [f"{run}/c", 3, None]}), run)
    assert kept["inside"] == "{folder}/a/b.npz"
    assert kept["sqlite"] == "sqlite:///{folder}/study.db?timeout=3"
    assert {key: kept[key] for key in ("beside", "below", "other")} == {
        key: texts[key] for key in ("beside", "below", "other")
    }
    moved = OmegaConf.to_container(opened(OmegaConf.create(kept), tmp_path / "new"))
    assert moved == {
        **texts,
        "inside": f"{tmp_path}/new/a/b.npz",
        "itself": f"{tmp_path}/new",
        "sqlite": f"sqlite:///{tmp_path}/new/study.db?timeout=3",
        "list": [f"{tmp_path}/new/c", 3, None],
    }


def test_which_values_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = OmegaConf.create(
        {
            "name": "a/b",
            "path": "a/b",
            "task": {"path": "/a", "folder": "${oc.env:NASFLOW_NOT_SET,data}/x", "scale": "small"},
            "deep": [{"path": "~/c"}, {"path": "s3://bucket/c"}, {"path": None}, {"path": ""}, {"path": "../d"}],
            "again": "${task}",
            "later": {"path": "???"},
        }
    )
    made = with_absolute_paths(config)
    assert config.path == "a/b", "the given configuration stays"
    assert (made.name, made.path) == ("a/b", str(tmp_path / "a/b"))
    assert made.task == {"path": "/a", "folder": str(tmp_path / "data/x"), "scale": "small"} == made.again
    assert [entry.path for entry in made.deep] == [
        "/home/me/c",
        "s3://bucket/c",
        None,
        "",
        str(tmp_path.parent.resolve() / "d"),
    ]
    assert OmegaConf.is_missing(made.later, "path")
    with pytest.raises(ConfigError, match="url cannot be read: Environment variable 'NASFLOW_NOT_SET' not found"):
        with_absolute_paths(OmegaConf.create({"url": "${oc.env:NASFLOW_NOT_SET}"}))


# -- passwords ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:hunter2@host/name",
        "postgresql+psycopg://me:hun/ter:2@host/name",
        "postgresql+psycopg://me:hun@ter2@host/name",
        "postgresql+psycopg://me@there:hunter2@host/name",
        "postgresql+psycopg://:hunter2@host/name",
        "postgresql+psycopg://me:hunter${oc.env:PW}@host/name",
        "postgresql+psycopg://me:${oc.env:PW,hunter2}@host/name",
        "postgresql+psycopg://me:${other}@host/name",
        "${oc.env:URL,postgresql+psycopg://me:hunter2@host/name}",
        "postgresql+psycopg://host/name?user=me&password=hunter2",
        "mysql+pymysql://host/name?passwd=hunter2&charset=utf8",
    ],
)
def test_passwords_in_clear_are_refused_and_never_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^storage\.url holds a password") as caught:
        refuse_passwords({"storage": {"url": url}})
    assert not any(part in str(caught.value) for part in ("hun", "ter2"))
    if "${" not in url:
        assert not any(part in str(without_passwords({"a": [url]})) for part in ("hun", "ter2"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me@host:5432/name",
        "postgresql+psycopg://me:${oc.env:PW}@host/name",
        "postgresql+psycopg://${oc.env:ME}:${oc.env:PW}@host/name",
        "postgresql+psycopg://host/name?user=me&password=${oc.env:PW}",
        "${oc.env:DATABASE_URL}",
        "sqlite:////a:b@c/study.db",
        "me:you@host",
    ],
)
def test_what_holds_no_password_is_not_refused(url: str) -> None:
    refuse_passwords({"storage": [{"url": url}], "budget": 3})
    if "${" not in url:
        assert without_passwords(url) == url


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Journals in the place of databases; returns the URLs that were opened."""
    urls: list[str] = []

    def database(url: str) -> Any:
        urls.append(url)
        return journal(str(tmp_path / "database.journal"))

    monkeypatch.setattr(nasflow.study.storage, "database", database)
    return urls


def holding_secret(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("url", "value"),
    [
        ("postgresql+psycopg://me:${oc.env:NASFLOW_TEST_SECRET}@host/name", SECRET),
        ("${oc.env:NASFLOW_TEST_SECRET}", f"postgresql+psycopg://me:{SECRET}@host/name"),
    ],
)
def test_password_reaches_the_database_and_no_file(
    table: Path, tmp_path: Path, database: list[str], monkeypatch: pytest.MonkeyPatch, url: str, value: str
) -> None:
    monkeypatch.setenv("NASFLOW_TEST_SECRET", value)
    folder = tmp_path / "run"
    given = ["evaluator=table", f"evaluator.table.path={table}", "objective=accuracy", f"budget={BUDGET}"]
    for _ in range(2):
        search(*given, "storage=postgres", f"storage.url={url}", folder=folder)
    assert len(accuracies(Search.load(folder))) == BUDGET
    Search.load(folder).write()
    assert set(database) == {f"postgresql+psycopg://me:{SECRET}@host/name"}
    assert holding_secret(tmp_path) == []
    for name in ("config.yaml", ".hydra/overrides.yaml", "report.html"):
        assert url in (folder / name).read_text(), "what was written stands there"
    monkeypatch.delenv("NASFLOW_TEST_SECRET")
    with pytest.raises(ConfigError, match="url cannot be read: Environment variable 'NASFLOW_TEST_SECRET' not found"):
        Search.load(folder).run(progress=False)


SCRIPT = """
import sys
import nasflow.study.storage as storage
from nasflow.cli import main

folder = sys.argv[1]  # main() replaces the arguments
storage.database = lambda url: storage.journal(folder + "/database.journal")
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("sweep", [False, True])
def test_command_line_writes_no_password(table: Path, tmp_path: Path, sweep: bool) -> None:
    given = ["evaluator=table", f"evaluator.table.path={table}", "objective=accuracy", "storage=postgres"]
    url = "storage.url=postgresql+psycopg://me:${oc.env:NASFLOW_TEST_SECRET}@host/name"
    more = ["-m", "budget=1,2", f"hydra.sweep.dir={tmp_path}"] if sweep else ["budget=1", f"hydra.run.dir={tmp_path}"]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), "search", *more, *given, url]
    environment = os.environ | {"NASFLOW_TEST_SECRET": SECRET}
    subprocess.run(command, check=True, capture_output=True, timeout=300, env=environment)
    folder = tmp_path / "1" if sweep else tmp_path
    assert "${oc.env:NASFLOW_TEST_SECRET}" in (folder / "config.yaml").read_text()
    assert "NASFLOW_TEST_SECRET" in (folder / ".hydra" / "overrides.yaml").read_text()
    assert holding_secret(tmp_path) == []


def test_password_in_clear_leaves_no_trace(table: Path, tmp_path: Path, database: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"storage\.url holds a password"):
        search("storage=postgres", "storage.url=postgresql+psycopg://me:hunter2@host/name", folder=tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
    assert database == []
