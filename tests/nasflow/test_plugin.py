"""A search space from a package outside the project, found through its entry point."""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nasflow.testing import SpaceContract
from searchspaces.space import SearchSpace
from searchspaces.task import Task

SOURCE = Path(__file__).parents[2] / "examples" / "plugin_space"
MAX_LINES = 60


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder laid out as an installation of the example package leaves it."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(SOURCE / "plainnet", site / "plainnet", ignore=shutil.ignore_patterns("__pycache__"))
    info = site / "plainnet-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plainnet\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[nasflow.conf]\nplainnet = plainnet.conf\n")
    sys.path.insert(0, str(site))
    yield site
    sys.path.remove(str(site))


class TestPluginSpace(SpaceContract):
    @pytest.fixture
    def space(self, site: Path) -> SearchSpace:
        space = importlib.import_module("plainnet").PlainNet(scale="small")
        assert isinstance(space, SearchSpace)
        return space

    @pytest.fixture
    def task(self) -> Task:
        return Task("digits", (1, 8, 8), 10)


def test_a_space_costs_at_most_sixty_lines_and_one_yaml() -> None:
    assert len((SOURCE / "plainnet" / "__init__.py").read_text().splitlines()) <= MAX_LINES
    assert len(list(SOURCE.rglob("*.yaml"))) == 1


def test_search_finds_it(site: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nasflow.cli", "search", "space=plainnet", "budget=3", "trainer.epochs=1"]
    command += ["objective=accuracy_params", f"hydra.run.dir={tmp_path}"]
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").exists()
    assert list((tmp_path / "models").glob("*.onnx"))
