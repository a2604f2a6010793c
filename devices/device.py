"""`Device`: a machine and the way models run on it, from networks to latencies."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devices import anchor
from devices.jobs import RESIDENTS, Job, Outcome, run_jobs
from devices.lock import heavy_work
from devices.meter import Meter, serialised
from devices.protocol import Plan
from devices.quantize import quantize
from devices.session import SessionConfig
from searchspaces.network import Arrays, Network, to_onnx

_CALIBRATION_BATCHES = 4


class Device(Meter):
    """This machine, and the way models run on it; several devices can stand for one machine.

    Args:
        name: For people and records.
        provider: ONNX Runtime execution provider.
        threads: Threads within an operator.
        precision: `fp32` or `int8`, how `prepare` lowers networks.
        batch: Batch size; a latency is that of the whole batch.
        optimisation: ONNX Runtime's graph optimisations: `disabled`, `basic`, `extended` or `all`.
        affinity: Processors to run on; None for any.
        cpu_fallback: Whether operators that another provider lacks may run on the CPU.
        rounds: Rounds per set of sessions, see `devices.protocol`.
        runs_per_round: Timed runs of a model in a round.
        restarts: How often all sessions are opened afresh.

    Raises:
        DeviceError: If a name is unknown or a number out of range.
    """

    def __init__(
        self,
        name: str = "local",
        provider: str = "CPUExecutionProvider",
        threads: int = 1,
        precision: str = "fp32",
        batch: int = 1,
        optimisation: str = "all",
        affinity: Sequence[int] | None = None,
        cpu_fallback: bool = False,
        rounds: int = 10,
        runs_per_round: int = 5,
        restarts: int = 2,
    ) -> None:
        processors = None if affinity is None else tuple(map(int, affinity))
        session = SessionConfig(provider, threads, optimisation, processors, cpu_fallback)
        super().__init__(name, precision, batch, session, Plan(rounds, runs_per_round, restarts))
        self._check()

    def _check(self) -> None:
        """Refuse what the machine lacks, before any work is done."""
        self.session.check_provider()

    def prepare(
        self, network: Network, weights: Arrays | None = None, images: NDArray[np.float32] | None = None
    ) -> bytes:
        """Lower `network` to the ONNX model that this device measures.

        Args:
            network: The network.
            weights: Its weights, keyed `<node>.<weight>`; drawn when absent.
            images: What ranges of int8 are calibrated on, `(n, c, h, w)`, n no less than the batch; random ones when
                absent. Random weights and images leave the latency as it is, but such a model is for measuring only.

        Raises:
            NetworkError: If the weights do not belong to the network.
            DeviceError: If the network cannot be quantized, or the images do not fit it.
        """
        with heavy_work():
            model = to_onnx(network, weights, batch=self.batch)
            if self.precision == "int8":
                if images is None:
                    shape = (_CALIBRATION_BATCHES * self.batch, *network.input_shape)
                    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
                model = quantize(model, images)
            return serialised(model)

    def run_jobs(
        self, jobs: Sequence[Job], rng: np.random.Generator, state: Path, residents: int = RESIDENTS
    ) -> Iterator[list[Outcome]]:
        """Measure jobs on this device, see `devices.run_jobs`."""
        return run_jobs(self, jobs, rng, state, residents)

    @cached_property
    def _anchors(self) -> Sequence[bytes]:
        return [self.prepare(network) for network in anchor.anchor_networks()]

    @property
    def _anchors_version(self) -> int:
        return anchor.VERSION
