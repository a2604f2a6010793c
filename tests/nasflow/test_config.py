import re
import shlex
from contextlib import suppress
from importlib import import_module
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import OmegaConf

import nasflow
from nasflow.cli import JOBS, as_overrides
from nasflow.config import composed, instantiate, plain
from nasflow.tasks import Digits
from predictors.encodings.arch2vec import Arch2Vec
from predictors.encodings.cate import CATE
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
    assert re.match(rf"# nasflow ({'|'.join(JOBS)}) ", first), first


def commands_of(path: Path) -> list[str]:
    """Commands in the lines of comment that a yaml opens with, or in the blocks of shell of a page."""
    text = path.read_text()
    if path.suffix == ".yaml":
        head = takewhile(lambda line: line.startswith("#"), text.splitlines())
        return [line.removeprefix("# ") for line in head if line.startswith("# nasflow ")]
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)).replace("\\\n", " ")
    parts = [part.strip() for line in blocks.splitlines() for part in re.split(r"; | &$", line)]
    return [part for part in parts if part.startswith("nasflow ")]


PAGES = [*sorted((ROOT / "conf").rglob("*.yaml")), ROOT / "README.md"]
COMMANDS = [(path.relative_to(ROOT), command) for path in PAGES for command in commands_of(path)]


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[f"{path}-{command[8:40]}" for path, command in COMMANDS])
def test_shown_commands_are_composed(path: Path, command: str) -> None:
    _, job, *words = shlex.split(command)
    if "-m" in words:  # of a sweep, its first job
        words = [re.sub(r"^([\w.]+=[^,'\[]+),.*$", r"\1", word) for word in words if word != "-m"]
    config = composed(job, as_overrides(job, words))
    assert "???" not in OmegaConf.to_yaml(config), "the command gives all that must be given"


def test_commands_are_found() -> None:
    shown = {path for path, _ in COMMANDS}
    assert {path.relative_to(ROOT) for path in PAGES} == shown
    assert len(commands_of(ROOT / "README.md")) >= 5


# Leaves that cannot be built from nothing, and what they need; None where it is a running service.
NEEDS: dict[tuple[str, str], list[str] | None] = {
    ("device", "ssh"): ["device.host=pi"],
    ("encoding", "caz"): [
        "encoding.encodings.cate.path={tmp}/cate.safetensors",
        "encoding.encodings.arch2vec.path={tmp}/arch2vec.safetensors",
        "encoding.encodings.zero_cost.table={tmp}/table.parquet",
    ],
    ("encoding", "full"): ["encoding.encodings.zero_cost.table={tmp}/table.parquet"],
    ("encoding", "zero_cost"): ["encoding.table={tmp}/table.parquet"],
    ("evaluator", "predicted_latency"): ["evaluator.predicted_latency.path={tmp}/predictor.safetensors"],
    ("evaluator", "table"): ["evaluator.table.path={tmp}/table.parquet"],
    ("suite", "proxy_correlation"): ["suite.folder={tmp}", "suite.tasks.nb201_cifar10.table={tmp}/table.parquet"],
    ("suite", "accuracy_encodings"): [
        "suite.tasks.nb201_cifar10.table={tmp}/table.parquet",
        "suite.tasks.nb201_cifar10.score_table=null",
        "suite.tasks.nb201_cifar10.encodings.arch2vec.path={tmp}/arch2vec.safetensors",
        "suite.tasks.nb201_cifar10.encodings.cate.path={tmp}/cate.safetensors",
    ],
    ("suite", "latency_few_shot"): ["suite.tasks.ND.table={tmp}/table.parquet"],
    ("suite", "accuracy_transfer"): ["suite.tasks.cifar10_from_digits.table={tmp}/table.parquet"],
    ("storage", "sqlite"): ["storage.url=sqlite:///{tmp}/study.db"],
    ("storage", "journal"): ["storage.path={tmp}/study.journal"],
    ("storage", "postgres"): None,
    ("storage", "grpc"): None,
    ("task", "npz"): ["task.path={tmp}/images.npz"],
    ("task", "cifar10"): ["task.folder={tmp}"],
    ("task", "cifar100"): ["task.folder={tmp}"],
}
JOB_OF = {
    "chooser": "collect", "encoding": "fit", "predictor": "fit", "proxy": None, "source": "data", "suite": "bench"
}  # fmt: skip


def make_inputs(folder: Path) -> None:
    space = NB201(scale="small")
    archs = ArchBatch(space, space.from_index([0]))
    Table(archs, {"accuracy": [1.0]}, [Column("accuracy")]).save(folder / "table.parquet")
    images = np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32)
    np.savez(folder / "images.npz", images=images, labels=np.arange(40) % 4)


def make_predictor(folder: Path) -> None:
    """Fit a predictor as `nasflow fit` does."""
    space = NB201(scale="small")
    archs = ArchBatch(space, space.from_index([0, 4000, 9000]))
    config = {"_target_": "predictors.encodings.OneHot"}, composed("fit", ["predictor=latency_gp"]).predictor
    identity = {"predictor": plain(config[1]), "encoding": config[0], "seed": 0}
    target = {"column": "latency_ms", "unit": "ms", "device": None}
    fitted = instantiate(config[1], encoding=instantiate(config[0])).fit(archs, [1.0, 2.0, 3.0])
    fitted.save(folder / "predictor.safetensors", identity=identity, target=target)


def make_encodings(folder: Path) -> None:
    """Train learned encodings as far as it takes to have files of them."""
    space = NB201(scale="small")
    for kind, prefix in ((Arch2Vec, "arch2vec"), (CATE, "cate")):
        trained = kind(latent=2, hidden=8, layers=1, epochs=1).fit([ArchBatch(space, space.from_index(range(60)))])
        trained.save(folder / f"{prefix}.safetensors")


@pytest.mark.parametrize(("group", "name"), LEAVES)
def test_every_leaf_is_composed_and_instantiated(group: str, name: str, tmp_path: Path) -> None:
    needs = NEEDS.get((group, name), [])
    if needs is None:
        pytest.skip("needs a running service: the system tier")
    make_inputs(tmp_path)
    if any("predictor.safetensors" in text for text in needs):
        make_predictor(tmp_path)
    elif any("safetensors" in text for text in needs):
        make_encodings(tmp_path)
    if group == "proxy":
        config = OmegaConf.load(ROOT / "conf" / group / f"{name}.yaml")
    else:
        job = JOB_OF.get(group) or "search"
        config = composed(job, [f"{group}={name}", *(text.format(tmp=tmp_path) for text in needs)])
    if group == "experiment":
        assert instantiate(config.objective) is not None
        return
    node = config if group == "proxy" else config[group]
    parts = {"task": Digits(), "space": NB201(scale="small")}
    if group == "predictor":
        parts["encoding"] = instantiate(composed("fit", ["encoding=onehot"]).encoding)
    if group == "strategy":  # those that need a predictor have one beside them
        chosen = {"predictor": "gp", "encoding": "onehot"}
        fit = composed("fit", [f"{key}={name}" for key, name in chosen.items()])
        parts["predictor"] = instantiate(fit.predictor, encoding=instantiate(fit.encoding))
    assert instantiate(node, **parts) is not None


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


@pytest.mark.parametrize("overrides", [[], ["nothing=1"]])
def test_composing_leaves_an_application_of_the_callers_own_alone(overrides: list[str]) -> None:
    with initialize_config_module("nasflow.conf", version_base="1.2"):
        mine = GlobalHydra.instance().hydra
        with suppress(HydraException):
            composed("search", overrides)
        assert GlobalHydra.instance().hydra is mine is not None
        assert str(VersionBase.instance().version_base) == "1.2"
        assert compose("worker", overrides=["run=a"]).run == "a"
    assert not GlobalHydra.instance().is_initialized()


def test_what_is_not_there_is_named() -> None:
    config = OmegaConf.create({"storage": {"url": "${oc.env:NASFLOW_NOT_SET}"}, "a": "${b.c}"})
    with pytest.raises(ConfigError, match=r"^storage\.url cannot be read: Environment variable 'NASFLOW_NOT_SET' not"):
        plain(config)
    with pytest.raises(ConfigError, match=r"^a cannot be read: Interpolation key 'b\.c' not found\."):
        plain(OmegaConf.create({"a": "${b.c}"}))
    assert plain(config, resolve=False)["a"] == "${b.c}"


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
