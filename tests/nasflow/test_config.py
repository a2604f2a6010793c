import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

import nasflow
from nasflow.cli import JOBS
from nasflow.config import composed, instantiate
from nasflow.tasks import Digits
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table
from tests.registry import leaves

ROOT = Path(__file__).parents[2]
CODE = ("searchspaces", "proxies", "devices", "predictors", "nasflow")
GROUPS = sorted(path.name for path in (ROOT / "conf").iterdir() if path.is_dir() and any(path.glob("*.yaml")))
LEAVES = [(group, name) for group in GROUPS for name in leaves(group)]


@pytest.mark.parametrize("job", JOBS)
def test_every_job_has_a_primary_configuration(job: str) -> None:
    assert composed(job) is not None


@pytest.mark.parametrize(("group", "name"), LEAVES)
def test_every_leaf_opens_with_a_command(group: str, name: str) -> None:
    lines = (ROOT / "conf" / group / f"{name}.yaml").read_text().splitlines()
    first = next(line for line in lines if not line.startswith("# @"))
    assert re.match(r"# nasflow (search|worker|export|report|bench) ", first), first


# Leaves that cannot be built from nothing, and what they need; None where it is a running service.
NEEDS: dict[tuple[str, str], list[str] | None] = {
    ("evaluator", "table"): ["evaluator.table.path={tmp}/table.parquet"],
    ("storage", "sqlite"): ["storage.url=sqlite:///{tmp}/study.db"],
    ("storage", "journal"): ["storage.path={tmp}/study.journal"],
    ("storage", "postgres"): None,
    ("storage", "grpc"): None,
    ("task", "npz"): ["task.path={tmp}/images.npz"],
    ("task", "cifar10"): ["task.folder={tmp}"],
    ("task", "cifar100"): ["task.folder={tmp}"],
}
JOB_OF = {"suite": "bench", "proxy": None}


def make_inputs(folder: Path) -> None:
    space = NB201(scale="small")
    archs = ArchBatch(space, space.from_index([0]))
    Table(archs, {"accuracy": [1.0]}, [Column("accuracy")]).save(folder / "table.parquet")
    images = np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32)
    np.savez(folder / "images.npz", images=images, labels=np.arange(40) % 4)


@pytest.mark.parametrize(("group", "name"), LEAVES)
def test_every_leaf_is_composed_and_instantiated(group: str, name: str, tmp_path: Path) -> None:
    needs = NEEDS.get((group, name), [])
    if needs is None:
        pytest.skip("needs a running service: the system tier")
    make_inputs(tmp_path)
    if group == "proxy":
        config = OmegaConf.load(ROOT / "conf" / group / f"{name}.yaml")
    else:
        job = JOB_OF.get(group) or "search"
        config = composed(job, [f"{group}={name}", *(text.format(tmp=tmp_path) for text in needs)])
    if group == "experiment":
        assert instantiate(config.objective) is not None
        return
    node = config if group == "proxy" else config[group]
    task, space = Digits(), NB201(scale="small")
    assert instantiate(node, space=space, task=task) is not None


@pytest.mark.parametrize("name", leaves("space"))
def test_no_name_of_a_space_occurs_outside_its_folder(name: str) -> None:
    """A new space must not need an edit anywhere; the lazy facade alone lists the shipped ones."""
    word = re.compile(rf"(?<![a-z0-9]){name}(?![a-z0-9])", re.IGNORECASE)
    facade = ROOT / "nasflow" / "__init__.py"
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for package in CODE
        for path in (ROOT / package).rglob("*.py")
        if path != facade and (ROOT / "searchspaces" / name) not in path.parents
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if word.search(line)
    ]
    assert not found


def test_facade_names_exist() -> None:
    for module, names in nasflow._HOMES.items():
        for name in names:
            assert getattr(nasflow, name) is getattr(import_module(module), name)
    with pytest.raises(AttributeError, match="NotThere"):
        nasflow.NotThere  # noqa: B018


class Component:
    def __init__(self, size: int, space: str = "none", parts: object = None) -> None:
        self.size, self.space, self.parts = size, space, parts


TARGET = f"{__name__}.Component"


def test_instantiate_builds_nested_components_and_hands_over_what_they_ask_for() -> None:
    config = {"_target_": TARGET, "size": 2, "parts": [{"_target_": TARGET, "size": 3}]}
    built = instantiate(config, space="s", task="t")
    assert (built.size, built.space) == (2, "s")
    assert (built.parts[0].size, built.parts[0].space) == (3, "s")


def test_instantiate_prefers_what_is_configured() -> None:
    assert instantiate({"_target_": TARGET, "size": 2, "space": "mine"}, space="s").space == "mine"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": TARGET, "sise": 2}, "Did you mean 'size'"),
        ({"_target_": TARGET}, "needs the arguments size"),
        ({"_target_": "nowhere.Thing"}, "cannot be imported"),
        ({"_target_": TARGET, "size": "two"}, "size of .* must be int, but is 'two'"),
        ({"_target_": TARGET, "size": 2, "space": None}, "must be str, but is None"),
    ],
)
def test_instantiate_explains_what_is_wrong(config: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        instantiate(config)
