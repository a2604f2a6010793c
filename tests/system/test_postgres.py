"""Studies in a real PostgreSQL database, and behind a gRPC proxy in front of it.

`.ci/postgres.sh start FOLDER` starts a throw-away server and prints the URL that NASFLOW_TEST_POSTGRES takes; its user
must be allowed to create databases.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from optuna.storages import BaseStorage, get_storage, run_grpc_proxy_server

from nasflow.evaluators.base import Context, Evaluation
from nasflow.strategies import Random
from nasflow.study.runner import Runner
from nasflow.study.storage import database, grpc, memory
from nasflow.study.study import Study
from searchspaces.arch import ArchBatch
from searchspaces.errors import StudyError
from tests.nasflow.studies import (
    RESULT,
    ROW,
    Known,
    Verdict,
    counted,
    ended_by,
    evolving,
    exit_code,
    forked,
    killed,
    opened,
    told,
    won,
)

pytestmark = pytest.mark.system
SLEEP_S = 0.01


def execute(url: str, statement: str) -> None:
    """Execute a statement outside of any transaction."""
    import psycopg

    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture
def url() -> Iterator[str]:
    """A database of its own for each test."""
    server = os.environ.get("NASFLOW_TEST_POSTGRES")
    if not server:
        pytest.skip("set NASFLOW_TEST_POSTGRES to the URL that .ci/postgres.sh start FOLDER prints")
    pytest.importorskip("psycopg")
    name = f"nasflow_{uuid4().hex[:12]}"
    execute(server, f"CREATE DATABASE {name}")
    yield f"{server.rpartition('/')[0]}/{name}"
    execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def proxy(url: str) -> Iterator[Callable[[], BaseStorage]]:
    """A gRPC proxy in a process of its own, in front of the database."""
    pytest.importorskip("grpc")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pid = forked(lambda: run_grpc_proxy_server(get_storage(url), host="127.0.0.1", port=port))
    yield lambda: grpc("127.0.0.1", port)
    killed(pid)


def work(open_storage: Callable[[], BaseStorage], budget: int) -> None:
    evolving(opened(open_storage()), SLEEP_S).run(budget)


def race(open_storage: Callable[[], BaseStorage], slots: int, path: Path) -> None:
    study = opened(open_storage())
    path.write_text(",".join(map(str, won(study, slots))))


def test_run_equals_one_in_memory(url: str) -> None:
    assert told(evolving(opened(database(url))).run(12)) == told(evolving(opened(memory())).run(12))
    assert told(evolving(opened(database(url))).run(15)) == told(evolving(opened(memory())).run(15))
    with pytest.raises(StudyError, match="seed: was 0, is now 1"):
        opened(database(url), seed=1)


def test_workers_that_start_at_once_on_an_empty_database(url: str) -> None:
    pids = [forked(partial(work, partial(database, url), 12)) for _ in range(4)]
    assert [exit_code(pid) for pid in pids] == [0] * 4
    study = opened(database(url))
    assert counted(study) == dict.fromkeys(range(12), 1)


def test_processes_race_for_slots(url: str, tmp_path: Path) -> None:
    opened(database(url))
    paths = [tmp_path / f"won{worker}" for worker in range(5)]
    pids = [forked(partial(race, partial(database, url), 20, path)) for path in paths]
    assert [exit_code(pid) for pid in pids] == [0] * 5
    taken = [int(slot) for path in paths for slot in path.read_text().split(",") if slot]
    assert sorted(taken) == list(range(20))


def test_one_of_two_ends_a_trial(url: str) -> None:
    mine, theirs = opened(database(url)), opened(database(url))
    for slot in range(20):
        claim = mine.claim(slot, ROW, "me")
        assert claim is not None
        assert sorted(ended_by(mine, theirs, claim)) == [False, True]
    readers = (mine, theirs, opened(database(url)))
    assert len({tuple(record.slot for record in reader.records()) for reader in readers}) == 1


def test_late_zombie_and_double_reaping(url: str) -> None:
    zombie, first, second = (opened(database(url)) for _ in range(3))
    claim = zombie.claim(0, ROW, "me")
    assert claim is not None
    assert second.reap(Verdict(meanwhile=lambda: first.reap(Verdict()))) == []
    assert not zombie.finish(claim, RESULT)
    taken = second.claim(0, ROW, "they")
    assert taken is not None
    assert second.finish(taken, RESULT)
    assert [(r.slot, r.trial) for r in zombie.records()] == [(0, 1)]


def test_one_worker_killed_again_and_again(url: str) -> None:
    budget, rng = 40, np.random.default_rng(0)
    expected = told(evolving(opened(memory())).run(budget))
    done: list[Any] = []
    reader = opened(database(url))
    for rounds in range(60):
        pid = forked(partial(work, partial(database, url), budget))
        while rounds % 2 and len(reader.records()) <= len(done) < budget:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
        killed(pid)
        former, done = done, told(reader.records())
        assert done[: len(former)] == former
        assert done == expected[: len(done)]
        if len(done) == budget:
            break
    assert done == expected
    assert counted(opened(database(url))) == dict.fromkeys(range(budget), 1)


def test_one_of_two_workers_killed(url: str) -> None:
    rng = np.random.default_rng(1)
    for name in map(str, range(5)):

        def join(name: str = name) -> None:
            evolving(opened(database(url), name=name), SLEEP_S).run(12)

        victim, survivor = forked(join), forked(join)
        time.sleep(rng.uniform(0.1, 0.7))
        killed(victim)
        assert exit_code(survivor) == 0
        study: Study = opened(database(url), name=name)
        assert [record.slot for record in study.records()] == list(range(12))
        assert counted(study) == dict.fromkeys(range(12), 1)
        assert study.running() == []


def test_lost_connections(url: str) -> None:
    """Those that are lost between two accesses are opened anew."""

    class Cut(Known):
        def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
            execute(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            return super().evaluate(archs, context)

    assert len(Runner(opened(database(url)), Random(), [Cut()]).run(4)) == 4


def test_lost_database_is_one_paragraph(url: str) -> None:
    class Drop(Known):
        def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
            execute(url.rpartition("/")[0] + "/template1", f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")
            return super().evaluate(archs, context)

    with pytest.raises(StudyError, match=r"storage of study 'nasflow' failed.*does not exist") as caught:
        Runner(opened(database(url)), Random(), [Drop()]).run(4)
    assert "\n" not in str(caught.value)
    execute(url.rpartition("/")[0] + "/template1", f"CREATE DATABASE {url.rpartition('/')[2]}")


def test_database_that_is_not_there(url: str) -> None:
    with pytest.raises(StudyError, match=r'cannot be opened.*"absent" does not exist') as caught:
        database(url.rpartition("/")[0] + "/absent", retries=2)
    assert "\n" not in str(caught.value)


def test_proxy_serves_workers(proxy: Callable[[], BaseStorage]) -> None:
    # gRPC does not survive a fork, so this process comes last.
    pids = [forked(partial(work, proxy, 20)) for _ in range(2)]
    assert [exit_code(pid) for pid in pids] == [0, 0]
    study = opened(proxy())
    assert counted(study) == dict.fromkeys(range(20), 1)
    claim = study.claim(20, ROW, "me")
    assert claim is not None
    assert opened(proxy()).reap(Verdict()) == [20]
    assert not study.finish(claim, RESULT), "a late result is refused through the proxy as well"
    alone = opened(proxy(), name="alone")
    assert told(evolving(alone).run(8)) == told(evolving(opened(memory())).run(8))
