"""`nasflow export`."""

import re
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from omegaconf import DictConfig

from devices import Device
from nasflow.config import instantiate
from nasflow.flow import Search, whole
from nasflow.models import deployable, form, load_weights_file, save_weights, weights_path
from nasflow.tasks import ImageTask
from nasflow.training import onnx_accuracy
from searchspaces.errors import ConfigError, unknown
from searchspaces.files import write_bytes
from searchspaces.network import Arrays
from searchspaces.space import SearchSpace
from searchspaces.task import Task

PRECISIONS = ("fp32", "int8")


def run(config: DictConfig) -> None:
    """Write one architecture as ONNX, check it in ONNX Runtime and say what it is."""
    if config.precision not in PRECISIONS:
        raise ConfigError(unknown("precision", str(config.precision), PRECISIONS))
    space, task, row, weights = _choose(config)
    network = space.network(row, task)
    device = Device(precision=config.precision, batch=whole("batch", config.batch, 1))
    data = deployable(space, row, task, device, weights, whole("seed", config.seed, 0))
    out = Path(config.out)
    write_bytes(out, data)
    if weights is not None:
        save_weights(out.with_suffix(".safetensors"), weights)
    facts = [f"{network.params / 1e6:.4g} M parameters", f"{network.macs / 1e6:.4g} M multiply-accumulates"]
    if weights is None:
        facts.append("untrained")
    elif isinstance(task, ImageTask):
        facts.append(f"test accuracy {onnx_accuracy(data, task):.4g}")
    print(f"{out}: {space.format(row[None])[0]} at {form(device.precision, device.batch)}, {', '.join(facts)}")


Choice = tuple[SearchSpace, Task, NDArray[np.int64], Arrays | None]


def _choose(config: DictConfig) -> Choice:
    if config.arch is not None and config.run is None and config.slot is None:
        task: Task = instantiate(config.task)
        space: SearchSpace = instantiate(config.space)
        weights = load_weights_file(Path(config.weights)) if config.weights else None
        return space, task, space.check(space.parse([config.arch]))[0], weights
    if config.run is not None and config.slot is not None and config.arch is None:
        given = HydraConfig.get().overrides.task
        idle = [text for text in given if re.match(r"[+~]*(space|task|weights|seed)\b", text)]
        if idle:
            raise ConfigError(
                f"A slot of a search brings its own space, task and weights, so {', '.join(idle)} would change "
                "nothing. Leave it out, or give arch=ARCHITECTURE in place of run and slot."
            )
        return _from_run(Search.load(Path(config.run)), whole("slot", config.slot, 0))
    raise ConfigError("Give either arch=ARCHITECTURE, or run=FOLDER and slot=NUMBER, to say what to export.")


def _from_run(search: Search, slot: int) -> Choice:
    records = {record.slot: record for record in search.study.records()}
    if slot not in records:
        raise ConfigError(f"The search in {search.folder} has no finished slot {slot}; it has {len(records)} slots.")
    path = weights_path(search.folder, slot, records[slot].row)
    if not path.exists():
        kept = [s for s, record in records.items() if weights_path(search.folder, s, record.row).exists()]
        raise ConfigError(
            f"The search in {search.folder} keeps no trained weights of slot {slot}, only of the slots {kept}. Choose "
            "one of them, or give the architecture itself (space=... arch=...) to export it untrained."
        )
    return search.space, search.task, records[slot].row, load_weights_file(path)
