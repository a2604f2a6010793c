"""`nasflow worker` before its search has begun."""

import threading
from pathlib import Path

import pytest

from nasflow.flow import CONFIG
from nasflow.jobs.worker import wait_for_search
from searchspaces.errors import ConfigError


def test_a_worker_waits_for_the_search_to_begin(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def begin() -> None:
        folder.mkdir()
        (folder / CONFIG).write_text("")

    beginning = threading.Timer(0.5, begin)
    beginning.start()
    wait_for_search(folder, 60)
    assert (folder / CONFIG).is_file()
    beginning.join()


def test_it_does_not_wait_for_ever(tmp_path: Path) -> None:
    wait_for_search(tmp_path, 0.3)
    wait_for_search(tmp_path, 0)


@pytest.mark.parametrize("limit", [-1, "soon", True, None])
def test_the_limit_is_a_number_of_seconds(tmp_path: Path, limit: object) -> None:
    with pytest.raises(ConfigError, match="wait_s is 0 or a positive number"):
        wait_for_search(tmp_path, limit)  # type: ignore[arg-type]
