"""NATS-Bench's topology part (arXiv 2009.00437): the training runs behind NAS-Bench-201, in one pickle a cell."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import TableError
from searchspaces.importing.pickles import read_pickle
from searchspaces.importing.reading import expecting
from searchspaces.importing.source import Source, existing_folder
from searchspaces.nb201.space import CELLS, NB201
from searchspaces.table import Column, Table

logger = logging.getLogger(__name__)

EPOCHS = ("12", "200")
# Name of the table → the runs and the split that give validation and test accuracy, by NATS-Bench's names. Test
# accuracy on CIFAR-10 is of runs on the training and the validation split, as in the publication.
DATASETS = {
    "nats_cifar10": {"valid": ("cifar10-valid", "x-valid"), "test": ("cifar10", "ori-test")},
    "nats_cifar100": {"valid": ("cifar100", "x-valid"), "test": ("cifar100", "x-test")},
    "nats_imagenet16_120": {"valid": ("ImageNet16-120", "x-valid"), "test": ("ImageNet16-120", "x-test")},
}
NOTES = (
    "Accuracies are those of the last epoch, means over the seeds that there are. Training times are of the training "
    "split alone, as NATS-Bench simulates them. Latency is of a batch of 256 images on the authors' GPU."
)
_SUFFIX = ".pickle.pbz2"
_UNITS = {"acc": "%", "time": "s", "latency": "ms", "params": "1e6", "macs": "1e6"}


@dataclass(frozen=True, kw_only=True)
class NatsFolder(Source):
    """NATS-Bench's folder `NATS-tss-v1_0-3ffb9-simple`.

    Attributes:
        partial: Take what there is of a folder that lacks cells.
    """

    space = NB201(scale="full")
    partial: bool = False

    def tables(self, path: Path) -> Iterator[tuple[str, Table]]:
        """Yield a table for each data set, reading one cell after the other.

        Raises:
            TableError: If cells are missing, or a file is damaged or of another cell.
        """
        existing_folder(path, self.files)
        archs = self._archs(path / f"meta{_SUFFIX}")
        paths = [path / f"{index:06d}{_SUFFIX}" for index in range(CELLS)]
        indices = [index for index in range(CELLS) if paths[index].exists()]
        if len(indices) < CELLS and not (self.partial and indices):
            first = next(index for index in range(CELLS) if not paths[index].exists())
            raise TableError(
                f"{path} must hold {CELLS:,} files of one cell each but has {len(indices):,}; the first missing is "
                f"{paths[first].name}. Unpack the whole archive, or give source.partial=true to take what is there."
            )
        figures: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in DATASETS}
        for place, index in enumerate(indices):
            if place and place % 1000 == 0:
                logger.info("%d/%d cells", place, len(indices))
            for name, values in _read_cell(paths[index], index, archs[index]).items():
                for column, value in values.items():
                    figures[name].setdefault(column, np.full(len(indices), np.nan))[place] = value
        rows = self.space.from_index(np.array(indices))
        files = [path / f"meta{_SUFFIX}", *(paths[index] for index in indices)]
        for name, arrays in figures.items():
            yield name, self.table(rows, arrays, [_describe(column) for column in arrays], files, NOTES)

    def _archs(self, meta: Path) -> list[str]:
        expected = f"NATS-Bench's list of all {CELLS:,} cells"
        content = read_pickle(meta, expected)
        official: list[str] = self.space.format(self.space.from_index(np.arange(CELLS)))
        if not isinstance(content, dict) or content.get("meta_archs") != official:
            raise TableError(f"{meta} is not {expected} in official order: it is damaged or of another benchmark.")
        return official


def _read_cell(path: Path, index: int, arch: str) -> dict[str, dict[str, float]]:
    """Figures of one cell by table and column."""
    expected = f"NATS-Bench's runs of cell {index}"
    content = read_pickle(path, expected)
    figures: dict[str, dict[str, float]] = {}
    with expecting(path, expected):
        for epochs in EPOCHS:
            part = content[epochs]
            if (part["arch_index"], part["arch_str"]) != (index, arch):
                raise TableError(f"{path} must hold {expected}, {arch}, but holds cell {part['arch_index']}.")
            for name, splits in DATASETS.items():
                figures.setdefault(name, {}).update(_figures(part, splits, epochs))
    return figures


def _figures(part: Mapping[str, Any], splits: Mapping[str, tuple[str, str]], epochs: str) -> dict[str, float]:
    figures = {}
    last = int(epochs) - 1
    for split, (dataset, name) in splits.items():
        runs = {seed: part["all_results"][dataset, seed] for seed in part["dataset_seed"][dataset]}
        accuracies = {seed: float(run["eval_acc1es"][f"{name}@{last}"]) for seed, run in runs.items()}
        figures[f"{split}_acc_{epochs}ep"] = float(np.mean(list(accuracies.values())))
        for seed, accuracy in accuracies.items():
            figures[f"{split}_acc_{epochs}ep_seed{seed}"] = accuracy
        if split == "valid":
            times = [sum(run["train_times"].values()) for run in runs.values()]
            figures[f"train_time_{epochs}ep_s"] = float(np.mean(times))
            figures["valid_time_s"] = float(np.mean([r["eval_times"][f"{name}@{last}"] for r in runs.values()]))
            figures["params_m"] = float(np.mean([r["params"] for r in runs.values()]))
            figures["macs_m"] = float(np.mean([r["flop"] for r in runs.values()]))
            latencies = [x * 1e3 for r in runs.values() for x in r["latency"] if x > 0]
            figures["latency_batch256_ms"] = float(np.mean(latencies)) if latencies else np.nan
    return figures


def _describe(column: str) -> Column:
    unit = next(unit for kind, unit in _UNITS.items() if f"_{kind}_" in f"_{column}_")
    runs = "one seed" if "seed" in column else "mean over seeds"
    return Column(column, unit, "maximize" if unit == "%" else "minimize", f"{runs}, NATS-Bench (arXiv 2009.00437)")
