import errno
import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from nasflow.study import storage as storages
from nasflow.study.journal import JournalBackend
from nasflow.study.storage import database, grpc, journal, memory
from searchspaces.errors import ConfigError, NasflowError, StudyError
from tests.nasflow.studies import ROW, Tiny, ended_by, evolving, exit_code, forked, opened, told, two_objectives


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what reaches the disk is not in question, waiting for it only takes time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def filled(path: Path, budget: int, **given: Any) -> list[Any]:
    return told(evolving(opened(journal(str(path)), **given)).run(budget))


# -- torn tails ------------------------------------------------------------------------------------------------


def test_cut_at_any_byte_loses_nothing_that_had_finished(tmp_path: Path, no_fsync: None) -> None:
    given: dict[str, Any] = {"space": Tiny(), "objectives": two_objectives(at_most=1000.0)}
    whole = tmp_path / "whole"
    expected = filled(whole, 4, **given)
    data = whole.read_bytes()
    lines = data.splitlines(keepends=True)
    ends = [i for i, line in enumerate(lines) if b'"state":1,"values"' in line]
    assert len(ends) == 4
    last_slot = sum(map(len, lines[ends[2] + 1 :]))  # its template, result, constraints and state
    assert len(lines) - ends[2] - 1 == 4
    torn = tmp_path / "torn"
    for size in range(len(data) - last_slot - 5, len(data)):
        torn.write_bytes(data[:size])
        kept = sum(line.endswith(b"\n") and i in ends for i, line in enumerate(data[:size].splitlines(keepends=True)))
        study = opened(journal(str(torn)), **given)
        assert told(study.records()) == expected[:kept], f"cut at byte {size}"
        assert torn.read_bytes() == data[:size], "reading alone changes nothing"
        if size % 3:
            study.beat("somebody", 1.0)
        else:
            assert told(evolving(study).run(4)) == expected, f"cut at byte {size}"
        again = opened(journal(str(torn)), **given)
        assert told(again.records()) == (expected[:kept] if size % 3 else expected)


def test_cut_at_any_byte_of_the_beginning(tmp_path: Path, no_fsync: None) -> None:
    given: dict[str, Any] = {"space": Tiny(), "objectives": two_objectives(at_most=1000.0)}
    expected = filled(tmp_path / "whole", 1, **given)
    data = (tmp_path / "whole").read_bytes()
    before_the_first_trial = data.index(b'{"op_code":4')
    torn = tmp_path / "torn"
    for size in range(before_the_first_trial + 1):
        torn.write_bytes(data[:size])
        assert told(evolving(opened(journal(str(torn)), **given)).run(1)) == expected, f"cut at byte {size}"


def test_longer_torn_tail_than_one_block_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    expected = filled(path, 3)
    sound = path.read_bytes()
    path.write_bytes(sound + b'{"op_code":8,"user_attr":"' + b"x" * 200_000)
    backend = JournalBackend(str(path))
    assert len(list(backend.read_logs(0))) == sound.count(b"\n")
    entry = {"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"k": 1}}
    backend.append_logs([entry])
    assert path.read_bytes() == sound + json.dumps(entry, separators=(",", ":")).encode() + b"\n"
    assert told(opened(journal(str(path))).records()) == expected


def test_readers_leave_an_unfinished_line_to_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    backend = JournalBackend(str(path))
    line = b'{"op_code":0,"worker_id":"w","study_name":"s","directions":[1]}\n'
    path.write_bytes(line[:20])
    assert list(backend.read_logs(0)) == []
    path.write_bytes(line)
    assert [entry["study_name"] for entry in backend.read_logs(0)] == ["s"]
    assert list(backend.read_logs(1)) == []
    assert len(list(backend.read_logs(0))) == 1


# -- files that are damaged or no journal ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: b"\0" * len(line),
        lambda line: line[: len(line) // 2],
        lambda line: line[:10] + line,  # glued, as Optuna's own backend leaves it
        lambda line: b"[1, 2]",
        lambda line: b'"text"',
        lambda line: b'{"other": 1}',
        lambda line: b"",
        lambda line: b"\xff\xfe\x00binary",
        lambda line: b'{"op_code":99,"worker_id":"w"}',
        lambda line: b'{"op_code":4}',
        lambda line: b'{"op_code":6,"trial_id":"x"}',
        lambda line: b'{"op_code":[]}',
    ],
)
def test_damaged_line_is_named_and_the_cure_works(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "study.journal"
    expected = filled(path, 4)
    lines = path.read_bytes().splitlines()
    broken = [*lines[:9], damage(lines[9]), *lines[10:]]
    path.write_bytes(b"\n".join(broken) + b"\n")
    with pytest.raises(StudyError, match=r"corrupt at line 10.*head -n 9") as caught:
        journal(str(path))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"\n".join(broken) + b"\n"
    path.write_bytes(b"\n".join(path.read_bytes().splitlines()[:9]) + b"\n")
    assert told(evolving(opened(journal(str(path)))).run(4)) == expected


def test_damage_in_the_last_line_is_found_as_well(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    filled(path, 2)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:-1], b"garbage"]) + b"\n")
    with pytest.raises(StudyError, match=f"corrupt at line {len(lines)}:"):
        journal(str(path))


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        bytes(range(256)) * 3,
        b"weights without a line end",
        b'{"name": "one line of JSON without an end"}',
        b'{\n  "name": "indented"\n}\n',
        b"[]\n",
        b'{"metric": 1}\n{"metric": 2}\n',
        b"slot,accuracy\n0,91.5\n",
        b"\n",
        b'{"op_code":4}\n',
    ],
)
def test_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "precious"
    path.write_bytes(content)
    with pytest.raises(StudyError, match="precious is not a study log") as caught:
        journal(str(path))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_tail_that_is_no_entry_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    filled(path, 2)
    backend = JournalBackend(str(path))
    content = path.read_bytes() + b"a remark by hand"
    path.write_bytes(content)
    with pytest.raises(StudyError, match="corrupt after its last complete line"):
        backend.append_logs([{"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"k": 1}}])
    assert path.read_bytes() == content


def test_foreign_entries_that_arrive_during_a_run(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = opened(journal(str(path)))
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"study_id":0}\n')
    with pytest.raises(StudyError, match="storage of study 'nasflow' failed"):
        study.records()


def test_journal_that_is_shortened_or_lost_during_a_run(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = opened(journal(str(path)))
    runner = evolving(study)
    runner.run(2)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StudyError, match="shortened or replaced"):
        study.records()
    with pytest.raises(StudyError, match="shortened or replaced"):
        study.beat("somebody", 1.0)
    path.unlink()
    with pytest.raises(StudyError, match="No such file"):
        runner.run(3)
    assert not path.exists(), "a lost log is not begun anew unasked"


@pytest.mark.parametrize("target", ["folder", "file/study.journal"])
def test_path_where_no_file_can_be(tmp_path: Path, target: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="cannot be"):
        opened(journal(str(tmp_path / target)))


def test_empty_file_and_missing_folder_are_a_fresh_start(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert opened(journal(str(tmp_path / "empty"))).records() == []
    assert opened(journal(str(tmp_path / "new" / "deeper" / "study.journal"))).records() == []


# -- writing -----------------------------------------------------------------------------------------------------


@contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: an unprivileged full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.parametrize("lock", ["flock", "symlink"])
def test_full_disk_is_named_and_the_run_continues_later(tmp_path: Path, lock: str, no_fsync: None) -> None:
    expected = filled(tmp_path / "whole", 5)
    sizes = [len(line) for line in (tmp_path / "whole").read_bytes().splitlines(keepends=True)]
    path = tmp_path / "study.journal"
    for size in range(sum(sizes[:4]), sum(sizes[:-1]), 97):

        def until_full(size: int = size) -> None:
            with _file_size_limit(size):
                runner = evolving(opened(journal(str(path), lock)))
                with pytest.raises(StudyError, match=r"cannot be written: File too large.*same command again"):
                    runner.run(5)
            data = path.read_bytes()
            assert len(data) <= size
            assert data.endswith(b"\n"), "an entry that did not fit is taken back"

        assert exit_code(forked(until_full)) == 0
        done = told(opened(journal(str(path), lock)).records())
        assert done == expected[: len(done)]
    assert told(evolving(opened(journal(str(path), lock))).run(5)) == expected


def test_failing_fsync_takes_the_entry_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.journal"
    study = opened(journal(str(path)))
    before = path.read_bytes()

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StudyError, match="Input/output error"):
        study.beat("somebody", 1.0)
    assert path.read_bytes() == before


def test_end_of_a_trial_is_on_the_disk_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.journal"
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    study = opened(journal(str(path)))
    assert synced, "so is what the study is"
    evolving(study).run(3)
    ends = [entry["state"] for entry in JournalBackend(str(path)).read_logs(0) if entry["op_code"] == 6]
    assert len(ends) == 3
    assert synced[-1] == path.stat().st_size
    assert len(synced) < len(path.read_bytes().splitlines()), "the entries before it wait for it"


def test_interrupted_write_leaves_lock_and_file_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.journal"
    study = opened(journal(str(path)))

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            study.beat("somebody", 1.0)
    study.beat("somebody", 2.0)
    assert opened(journal(str(path))).optuna.user_attrs["heartbeat:somebody"] == 2.0


def test_lock_is_free_although_a_child_was_forked_while_it_was_held(tmp_path: Path) -> None:
    backend = JournalBackend(str(tmp_path / "study.journal"))
    release = threading.Event()
    with backend._locked():
        pid = os.fork()
        if pid == 0:
            release.wait(30)  # keeps the descriptor open
            os._exit(0)
    try:
        done = threading.Event()

        def write() -> None:
            backend.append_logs([{"op_code": 0, "worker_id": "w", "study_name": "s", "directions": [1]}])
            done.set()

        threading.Thread(target=write, daemon=True).start()
        assert done.wait(10)
    finally:
        os.kill(pid, signal.SIGKILL)
        exit_code(pid)


@pytest.mark.parametrize("lock", ["flock", "symlink"])
def test_writers_wait_for_each_other(tmp_path: Path, lock: str) -> None:
    path = str(tmp_path / "study.journal")
    study, other = opened(journal(path, lock)), JournalBackend(path, lock)
    before = Path(path).read_bytes()
    with other._locked():
        writer = threading.Thread(target=lambda: study.beat("somebody", 1.0), daemon=True)
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        assert Path(path).read_bytes() == before
    writer.join(10)
    assert not writer.is_alive()
    assert study.optuna.user_attrs["heartbeat:somebody"] == 1.0


@pytest.mark.parametrize("lock", ["flock", "symlink"])
def test_writers_of_many_processes_do_not_mix(tmp_path: Path, lock: str, no_fsync: None) -> None:
    path = str(tmp_path / "study.journal")
    study = opened(journal(path, lock))

    def write(worker: int) -> None:
        mine = opened(journal(path, lock))
        for i in range(40):
            mine.optuna.set_user_attr(f"{worker}-{i}", "x" * 3000)

    pids = [forked(lambda worker=worker: write(worker)) for worker in range(4)]  # type: ignore[misc]
    assert [exit_code(pid) for pid in pids] == [0] * 4
    assert {f"{worker}-{i}" for worker in range(4) for i in range(40)} <= study.optuna.user_attrs.keys()


def test_plain_optuna_reads_and_continues_the_file(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    expected = filled(path, 3)
    theirs = optuna.load_study(study_name="nasflow", storage=JournalStorage(JournalFileBackend(str(path))))
    theirs.set_user_attr("note", "looks good")
    study = opened(journal(str(path)))
    assert study.optuna.user_attrs["note"] == "looks good"
    assert told(evolving(study).run(5))[:3] == expected


def test_link_of_a_dead_holder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    backend = JournalBackend("folder/study.journal", "symlink")
    assert backend._symlink
    backend._symlink.grace_period = 1

    def die() -> None:
        with backend._locked():
            os.kill(os.getpid(), signal.SIGKILL)

    assert exit_code(forked(die)) == -signal.SIGKILL
    assert Path("folder/study.journal.lock").is_symlink()
    opening = threading.Thread(target=lambda: opened(JournalStorage(backend)), daemon=True)
    opening.start()
    opening.join(20)
    assert not opening.is_alive()


def test_unknown_lock_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'flock'"):
        journal(str(tmp_path / "study.journal"), lock="flok")


# -- databases and proxies ---------------------------------------------------------------------------------------


def test_database_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(StudyError, match="unable to open database file") as caught:
        database(f"sqlite:///{tmp_path}/absent/study.db")
    assert "\n" not in str(caught.value)
    assert len(waits) == 4
    waits.clear()
    with pytest.raises(StudyError, match=r"database nonsense cannot be opened.*storage\.url"):
        database("nonsense")
    with pytest.raises(StudyError, match=r"cannot be opened.*sqlalchemy\.dialects:oracel"):
        database("oracel://host/name")
    assert waits == [], "what waiting does not mend is told at once"


def test_password_is_not_told() -> None:
    with pytest.raises(StudyError) as caught:
        database("oracel://me:secret@host/name?password=secret")
    assert "secret" not in str(caught.value)


def test_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> BaseStorage:
        raise ImportError("No module named 'psycopg'")

    monkeypatch.setattr(storages, "_rdb", missing)
    with pytest.raises(StudyError, match=r"nasflow\[rdb\]"):
        database("postgresql+psycopg://host/name")


def test_file_that_is_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    path = tmp_path / "study.db"
    path.write_bytes(b"not a database, but long enough to be looked at as one" * 40)
    with pytest.raises(StudyError, match="file is not a database"):
        database(f"sqlite:///{path}")


def test_grpc_without_a_proxy_is_one_paragraph() -> None:
    with pytest.raises(NasflowError, match="gRPC"):
        grpc(port=1, timeout_s=0.2)


def test_sqlite_lets_one_of_two_end_a_trial(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    mine, theirs = opened(database(url)), opened(database(url))
    for slot in range(15):
        claim = mine.claim(slot, ROW, "me")
        assert claim is not None
        assert sorted(ended_by(mine, theirs, claim)) == [False, True]
    spent = {record.slot for record in mine.records()}
    assert spent == {record.slot for record in theirs.records()} == {r.slot for r in opened(database(url)).records()}


def test_memory_is_forgotten() -> None:
    evolving(opened(memory())).run(2)
    assert opened(memory()).records() == []
