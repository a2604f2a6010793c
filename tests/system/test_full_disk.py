"""A disk that is really full: a tiny file system in memory, which only root may mount."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nasflow.evaluators.base import Context, Evaluation
from nasflow.strategies import Random
from nasflow.study.runner import Runner
from nasflow.study.storage import database, journal, memory
from searchspaces.arch import ArchBatch
from searchspaces.errors import StudyError
from tests.nasflow.studies import Known, evolving, opened, told

pytestmark = pytest.mark.system


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)


def test_journal_on_a_full_disk(disk: Path) -> None:
    path = disk / "study.journal"
    with pytest.raises(StudyError, match=r"cannot be written: No space left on device.*same command again") as caught:
        evolving(opened(journal(str(path)))).run(200)
    assert "\n" not in str(caught.value)
    assert path.read_bytes().endswith(b"\n")
    expected = told(evolving(opened(memory())).run(60))
    done = told(opened(journal(str(path))).records())
    assert 10 < len(done) < 60
    assert done == expected[: len(done)]
    with pytest.raises(StudyError, match="No space left"):
        evolving(opened(journal(str(path)))).run(60)
    enlarge(disk)
    assert told(evolving(opened(journal(str(path)))).run(60)) == expected


def test_no_space_to_begin_with(disk: Path) -> None:
    (disk / "filler").write_bytes(b"x" * (64 << 10))
    with pytest.raises(StudyError, match="No space left"):
        opened(journal(str(disk / "study.journal")))
    enlarge(disk)
    assert len(evolving(opened(journal(str(disk / "study.journal")))).run(2)) == 2


def test_sqlite_on_a_full_disk(disk: Path) -> None:
    url = f"sqlite:///{disk}/study.db"
    with pytest.raises(StudyError, match="full"):
        evolving(opened(database(url, retries=1))).run(200)
    enlarge(disk)
    assert told(evolving(opened(database(url))).run(5)) == told(evolving(opened(memory())).run(5))


def test_weights_on_a_full_disk(disk: Path, tmp_path: Path) -> None:
    class Weighty(Known):
        def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
            np.zeros(2000).tofile(disk / f"weights{context.seeds[0]}")
            return super().evaluate(archs, context)

    def runner() -> Runner:
        return Runner(opened(journal(str(tmp_path / "study.journal"))), Random(), [Weighty()], folder=disk)

    with pytest.raises(StudyError, match=r"because of the machine, not the architecture.*same command again"):
        runner().run(20)
    assert {record.state for record in runner().study.records()} == {"complete"}
    enlarge(disk)
    assert told(runner().run(20)) == told(Runner(opened(memory()), Random(), [Known()]).run(20))
