"""How long it takes from a row of integers to a session of ONNX Runtime, beside torch's exporters."""

import importlib.util
import io
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from devices import exclusive
from nasflow.flow import whole
from nasflow.suites.base import Cell, Row, UnavailableError
from searchspaces.errors import ConfigError
from searchspaces.network import init_weights, to_onnx, to_torch
from searchspaces.space import SearchSpace
from searchspaces.task import Task

NETWORK, TORCHSCRIPT, DYNAMO = "network", "torchscript", "dynamo"


class BuildThroughput:
    """Milliseconds from row to session, per search space and way of building.

    `network` lowers the project's own description, `torchscript` is `torch.onnx.export(dynamo=False)`, `dynamo` is
    `torch.onnx.export(dynamo=True)`. The exporters are given a finished module, whose building is not timed; the
    project's own way is timed from the row on, with the drawing of random weights. While a cell is timed it holds the
    machine-wide lock alone.

    Args:
        spaces: Search spaces by the names of their tasks in the table.
        task: Images and classes to build for, by the same names.
        archs: Random architectures per cell for the project's own way.
        exported: Random architectures per cell for torch's exporters, which take seconds.
        seeds: Seeds per cell.

    Raises:
        ConfigError: If a number is below 1, or a space has no task.
    """

    name = "build_throughput"
    samples: Sequence[int] = (0,)
    version = 2
    published: Sequence[Row] = ()

    def __init__(
        self,
        spaces: Mapping[str, SearchSpace],
        task: Mapping[str, Task],
        archs: int = 30,
        exported: int = 3,
        seeds: int = 3,
    ) -> None:
        lacking = sorted(set(spaces) - set(task))
        if lacking:
            raise ConfigError(f"Each of suite.spaces needs an entry in suite.task, but {lacking} have none.")
        self.spaces = spaces
        self.task = task
        self.archs = whole("suite.archs", archs, 1)
        self.exported = whole("suite.exported", exported, 1)
        self.seeds = whole("suite.seeds", seeds, 1)
        self.tasks = tuple(spaces)
        self.methods = (NETWORK, TORCHSCRIPT, DYNAMO)

    def settings(self) -> Mapping[str, Any]:
        """Fingerprints of the spaces and the numbers of architectures."""
        spaces = {name: space.fingerprint for name, space in self.spaces.items()}
        return {"spaces": spaces, "archs": self.archs, "exported": self.exported, "torch": torch.__version__}

    def run(self, cell: Cell) -> Mapping[str, float]:
        """Return medians over architectures: `build_ms` (row to serialised model), `session_ms` and `total_ms`.

        Raises:
            UnavailableError: If the method lacks a package.
            DeviceError: If others keep the machine busy for too long.
        """
        if cell.method == DYNAMO and importlib.util.find_spec("onnxscript") is None:
            raise UnavailableError(
                f"Method {DYNAMO!r} of suite {self.name!r} needs onnxscript, which the extra `dev` brings: "
                f"pip install 'nasflow[dev]'. To go without it, give 'methods=[{NETWORK},{TORCHSCRIPT}]'."
            )
        space, task = self.spaces[cell.task], self.task[cell.task]
        count = self.archs if cell.method == NETWORK else self.exported
        rows = space.sample(count + 1, np.random.default_rng(cell.seed))
        build = {NETWORK: _network, TORCHSCRIPT: _torchscript, DYNAMO: _dynamo}[cell.method]
        with exclusive():
            times = np.array([_timed(build, space, row, task) for row in rows])[1:]  # the first run warms up
        build_ms, session_ms = np.median(times, axis=0) * 1e3
        total_ms = float(np.median(times.sum(axis=1)) * 1e3)
        return {"build_ms": float(build_ms), "session_ms": float(session_ms), "total_ms": total_ms}


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    """Keep the exporters from telling of each of their passes."""
    former = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in former.items():
            logging.getLogger(name).setLevel(level)


def _timed(build: Any, space: SearchSpace, row: NDArray[np.int64], task: Task) -> tuple[float, float]:
    prepare, make = build(space, row, task)
    given = prepare()
    start = time.perf_counter()
    data = make(given)
    built = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return built - start, time.perf_counter() - built


def _network(space: SearchSpace, row: NDArray[np.int64], task: Task) -> Any:
    def make(given: None) -> bytes:
        network = space.network(row, task)
        return bytes(to_onnx(network, init_weights(network)).SerializeToString())

    return lambda: None, make


def _torchscript(space: SearchSpace, row: NDArray[np.int64], task: Task) -> Any:
    return _exporter(space, row, task, dynamo=False)


def _dynamo(space: SearchSpace, row: NDArray[np.int64], task: Task) -> Any:
    return _exporter(space, row, task, dynamo=True)


def _exporter(space: SearchSpace, row: NDArray[np.int64], task: Task, dynamo: bool) -> Any:
    network = space.network(row, task)
    example = torch.zeros(1, *network.input_shape)

    def make(module: torch.nn.Module) -> bytes:
        with warnings.catch_warnings(), _quiet("onnx_ir", "onnxscript", "torch.onnx"):
            warnings.simplefilter("ignore")  # the exporters warn of their own deprecations
            if dynamo:
                program = torch.onnx.export(module, (example,), dynamo=True, verbose=False)
                assert program is not None
                return bytes(program.model_proto.SerializeToString())
            buffer = io.BytesIO()
            torch.onnx.export(module, (example,), buffer, dynamo=False)  # type: ignore[arg-type]  # takes buffers
            return buffer.getvalue()

    return lambda: to_torch(network).eval(), make
