"""Published tables of NAS-Bench-101 (arXiv 1902.09635)."""

import base64
import json
import logging
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import TableError
from searchspaces.genes import Rows
from searchspaces.importing.reading import expecting, numbers, read_csv
from searchspaces.importing.source import Source
from searchspaces.importing.tfrecord import read_fields, read_records
from searchspaces.importing.zero_cost import NaslibScores
from searchspaces.nb101.dialects import from_matrices, from_naslib
from searchspaces.nb101.hashing import module_hashes
from searchspaces.nb101.space import NB101
from searchspaces.table import Column, Table

logger = logging.getLogger(__name__)

SPACE = NB101(scale="full")
CELLS = 423_624
REPEATS = 3
# Fields of the messages ModelMetrics and EvaluationData of the benchmark's model_metrics.proto.
_EVALUATION, _PARAMETERS = 1, 2
_METRICS = {2: "train_time", 3: "train_acc", 4: "valid_acc", 5: "test_acc"}
_NOTE = "Accuracies are fractions. Figures are of the published vertex order; isomorphic cells share them."


@dataclass(frozen=True, kw_only=True)
class CsvFigures(Source):
    """A random sample of cells with validation accuracies of one run each, as CSV.

    Attributes:
        rows: Number of records.
    """

    space = SPACE
    rows: int
    _EPOCHS = (4, 12, 36, 108)

    def tables(self, path: Path) -> Iterator[tuple[str, Table]]:
        """Yield `cifar10_accuracy_20k`.

        Raises:
            TableError: If the file is damaged or another one, or a cell has not the hash that it is listed under.
        """
        accuracies = {f"val{epochs}": f"valid_acc_{epochs}ep" for epochs in self._EPOCHS}
        records = read_csv(path, ["hash", "V", "edge_bits", "ops", *accuracies, "train_time", "params"], self.rows)
        with expecting(path, "a table of NAS-Bench-101 cells"):
            edge_bits, vertices = (np.array(records[name], dtype=np.int64) for name in ("edge_bits", "V"))
            rows = SPACE.from_table(edge_bits, vertices, records["ops"])
        check_hashes(path, rows, records["hash"])
        values = {column: numbers(path, name, records[name]) for name, column in accuracies.items()}
        values["train_time_108ep_s"] = numbers(path, "train_time", records["train_time"])
        values["params_m"] = numbers(path, "params", records["params"]) / 1e6
        yield "cifar10_accuracy_20k", self.table(rows, values, [_describe(name) for name in values], [path], _NOTE)


@dataclass(frozen=True, kw_only=True)
class TfRecord(Source):
    """The benchmark's own `nasbench_only108.tfrecord` or `nasbench_full.tfrecord`, read without TensorFlow.

    Attributes:
        partial: Take what there is of a file that lacks cells.
    """

    space = SPACE
    partial: bool = False

    def tables(self, path: Path) -> Iterator[tuple[str, Table]]:
        """Yield `nasbench`: means over the three repeats and each repeat, at the end of training.

        Raises:
            TableError: If the file is damaged, a cell lacks a repeat, or cells are missing.
        """
        runs = _Runs(path)
        logger.info("%d cells, %d runs", len(runs.hashes), len(runs.cell))
        if len(runs.hashes) != CELLS and not self.partial:
            raise TableError(
                f"{path} must have {CELLS:,} cells but has {len(runs.hashes):,}: the file is truncated or another one. "
                "Get it again, or give source.partial=true to take what is there."
            )
        with expecting(path, "NAS-Bench-101's TFRecord file"):
            rows = SPACE.check(from_matrices(runs.matrices, runs.operations))
        check_hashes(path, rows, list(runs.hashes))
        values = runs.columns()
        yield "nasbench", self.table(rows, values, [_describe(name) for name in values], [path], _NOTE)


class _Runs:
    """All training runs of a file: cells in order of appearance, and columns with an entry for each run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hashes: dict[str, int] = {}
        self.matrices: list[str] = []
        self.operations: list[str] = []
        self.params = array("d")
        self.cell, self.epochs = array("q"), array("q")
        self.metrics = array("d")
        for i, record in enumerate(read_records(path)):
            with expecting(path, f"NAS-Bench-101's TFRecord file (record {i})"):
                self._add(*json.loads(record))
            if i and i % 250_000 == 0:
                logger.info("%d runs", i)

    def _add(self, module_hash: str, epochs: int, matrix: str, operations: str, message: str) -> None:
        params, metrics = read_metrics(base64.b64decode(message, validate=True))
        if module_hash not in self.hashes:
            self.hashes[module_hash] = len(self.hashes)
            self.matrices.append(sys.intern(matrix))  # few different ones
            self.operations.append(sys.intern(operations))
            self.params.append(params)
        self.cell.append(self.hashes[module_hash])
        self.epochs.append(epochs)
        self.metrics.extend(metrics)

    def columns(self) -> dict[str, NDArray[np.float64]]:
        """Figures by column, each of shape `(cells,)`."""
        cell, epochs = np.array(self.cell), np.array(self.epochs)
        metrics = np.array(self.metrics).reshape(-1, len(_METRICS))
        columns = {"params_m": np.array(self.params) / 1e6}
        for length in np.unique(epochs):
            chosen = np.flatnonzero(epochs == length)
            counts = np.bincount(cell[chosen], minlength=len(self.hashes))
            if (counts != REPEATS).any():
                at = int(np.argmax(counts != REPEATS))
                raise TableError(
                    f"{self.path} must have {REPEATS} runs of {length} epochs for each cell, but has {counts[at]} for "
                    f"{list(self.hashes)[at]}: the file is truncated or another one. Get it again."
                )
            ordered = chosen[np.argsort(cell[chosen], kind="stable")]
            runs = metrics[ordered].reshape(len(self.hashes), REPEATS, len(_METRICS))
            for k, name in enumerate(_METRICS.values()):
                unit = "_s" if name == "train_time" else ""
                columns[f"{name}_{length}ep{unit}"] = runs[:, :, k].mean(axis=1)
                for repeat in range(REPEATS):
                    columns[f"{name}_{length}ep_repeat{repeat}{unit}"] = runs[:, repeat, k]
        return columns


def read_metrics(message: bytes) -> tuple[int, list[float]]:
    """Decode one ModelMetrics message.

    Returns:
        Trainable parameters, and of the last evaluation training time in s and accuracy on training, validation and
        test images.

    Raises:
        ValueError: If one of them is missing.
    """
    params, last = -1, b""
    for number, value in read_fields(message):
        if number == _EVALUATION and isinstance(value, bytes):
            last = value
        elif number == _PARAMETERS and isinstance(value, int):
            params = value
    figures = {number: value for number, value in read_fields(last) if isinstance(value, float)}
    if params < 0 or not figures.keys() >= _METRICS.keys():
        raise ValueError("a run lacks its parameters or a figure of its last evaluation")
    return params, [figures[number] for number in _METRICS]


class JsonScores(NaslibScores):
    """NASLib's `zc_nasbench101.json`."""

    space = SPACE

    def rows(self, keys: Sequence[tuple[int, ...]]) -> Rows:
        """Read matrix entries and operation numbers."""
        return SPACE.check(from_naslib(keys))


def check_hashes(path: Path, rows: Rows, hashes: Sequence[str]) -> None:
    """Raise a `TableError` unless every cell has the hash that it is listed under."""
    for i, (computed, listed) in enumerate(zip(module_hashes(rows), hashes, strict=True)):
        if computed != listed:
            raise TableError(
                f"{path} lists cell {i + 1} under the hash {listed}, but its edges and operations have {computed}: the "
                "file is damaged or of another space."
            )


def _describe(column: str) -> Column:
    where = "NAS-Bench-101 (arXiv 1902.09635), one run" if "repeat" in column else "NAS-Bench-101 (arXiv 1902.09635)"
    if "acc" in column:
        return Column(column, "fraction", "maximize", where)
    return Column(column, "s" if column.endswith("_s") else "1e6", "minimize", where)
