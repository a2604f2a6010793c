"""Models as ONNX Runtime sessions: options, faults in plain words, and what the optimiser made of a model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from devices.onnx_file import graph_name
from devices.protocol import Run
from searchspaces.errors import DeviceError, unknown

OPTIMISATIONS = {
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
DISABLED_OPTIMIZERS = ("WeightBiasQuantization",)
"""Passes that change what is measured: this one turns convolutions that were to stay fp32 into int8."""

_CPU = "CPUExecutionProvider"
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
REFUSALS: tuple[type[Exception], ...] = (
    *(kind for kind in vars(ort_errors).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
)
"""What ONNX Runtime raises; its own errors have no common base."""


class RefusedModelError(DeviceError):
    """A model cannot run on the device, however often it is tried; others may.

    Attributes:
        model: The serialised model.
    """

    def __init__(self, message: str, model: bytes) -> None:
        super().__init__(message, model)  # both, for they are what pickling hands to the copy
        self.message, self.model = message, model

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class SessionConfig:
    """How ONNX Runtime runs a model.

    Attributes:
        provider: Execution provider, for instance `CPUExecutionProvider`.
        threads: Threads within an operator.
        optimisation: A key of `OPTIMISATIONS`.
        affinity: Processors to run on, or None for any.
        cpu_fallback: Whether operators that another provider lacks may run on the CPU.

    Raises:
        DeviceError: If the optimisation is unknown, or the threads are less than one.
    """

    provider: str = _CPU
    threads: int = 1
    optimisation: str = "all"
    affinity: tuple[int, ...] | None = None
    cpu_fallback: bool = False

    def __post_init__(self) -> None:
        if self.optimisation not in OPTIMISATIONS:
            raise DeviceError(unknown("optimisation level", self.optimisation, OPTIMISATIONS))
        if self.threads < 1:
            raise DeviceError(f"A device runs at least one thread, but threads={self.threads}.")

    def check_provider(self) -> None:
        """Make sure that this machine's ONNX Runtime has the provider.

        Raises:
            DeviceError: If it has not.
        """
        available = onnxruntime.get_available_providers()
        if self.provider not in available:
            message = unknown("execution provider", self.provider, available)
            raise DeviceError(f"{message} Others need an ONNX Runtime package that was built with them.")

    def facts(self) -> dict[str, Any]:
        """Return all that decides how a model runs, JSON-able; part of every job's identity."""
        return asdict(self) | {
            "affinity": None if self.affinity is None else list(self.affinity),
            "disabled_optimizers": list(DISABLED_OPTIMIZERS),
        }

    def options(self) -> onnxruntime.SessionOptions:
        """Return ONNX Runtime's session options."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = OPTIMISATIONS[self.optimisation]
        options.log_severity_level = 4  # errors come as exceptions
        # Threads of a resident model that is not running would otherwise spin on the cores of the one that is.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self.provider != _CPU and not self.cpu_fallback:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return options


@dataclass(frozen=True, eq=False)
class Resident:
    """A model in memory, ready to run.

    Attributes:
        run: Runs it once on fixed random input.
        optimised: What ONNX Runtime's optimiser made of it, serialised; None unless asked for.
    """

    run: Run
    optimised: bytes | None


def load(
    model: bytes,
    config: SessionConfig,
    batch: int,
    rng: np.random.Generator,
    keep: bool = False,
    optimised: bytes | None = None,
) -> Resident:
    """Open a session for `model` and run it once.

    Args:
        model: Serialised ONNX model.
        config: How to run it.
        batch: Batch size that its inputs must have.
        rng: Draws the input, standard normal.
        keep: Whether to keep the optimised model.
        optimised: The optimised model where it is known: to open it takes a third of the time, and leads to the same
            session.

    Raises:
        RefusedModelError: If ONNX Runtime refuses the model or its inputs do not fit.
        DeviceError: If the provider cannot be had, or temporary files cannot be written.
    """
    try:
        if keep:
            session, optimised = _open_keeping(model, config)
        elif optimised is None:
            session = _open(model, config.options(), config)
        else:
            session = _open(optimised, replace(config, optimisation="disabled").options(), config)
        inputs = {entry.name: _draw(entry, batch, rng, model) for entry in session.get_inputs()}
        session.run(None, inputs)
    except REFUSALS as error:
        raise RefusedModelError(
            f"ONNX Runtime {onnxruntime.__version__} refuses {describe(model)} on {config.provider}: {reason(error)} "
            "Check the model with onnx.checker, and whether the provider has its operators in this opset and "
            "precision.",
            model,
        ) from error
    except OSError as error:
        raise DeviceError(
            f"The optimised graph of {describe(model)} cannot be written: {error}. Make room in the folder for "
            "temporary files, or set TMPDIR to another one."
        ) from error
    if session.get_providers()[0] != config.provider:
        raise DeviceError(
            f"ONNX Runtime could not start {config.provider} and would run {describe(model)} on "
            f"{session.get_providers()[0]}: install the libraries that the provider needs, or choose another provider."
        )
    return Resident(lambda: session.run(None, inputs), optimised)


def _open(model: bytes, options: onnxruntime.SessionOptions, config: SessionConfig) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        model, options, providers=[config.provider], disabled_optimizers=list(DISABLED_OPTIMIZERS)
    )


def _open_keeping(model: bytes, config: SessionConfig) -> tuple[onnxruntime.InferenceSession, bytes]:
    """Open a session, and return the optimised model that it writes on the way."""
    with TemporaryDirectory(prefix="nasflow-") as folder:
        path = Path(folder) / "optimised.onnx"
        options = config.options()
        options.optimized_model_filepath = str(path)
        try:
            return _open(model, options, config), path.read_bytes()
        except REFUSALS as error:
            _open(model, config.options(), config)  # raises where it is the model that is refused
            raise OSError(reason(error)) from error


def _draw(entry: Any, batch: int, rng: np.random.Generator, model: bytes) -> Any:
    shape = [batch if axis == 0 and not isinstance(side, int) else side for axis, side in enumerate(entry.shape)]
    fixed = all(isinstance(side, int) for side in shape)
    if entry.type not in _TYPES or not fixed or not shape or shape[0] != batch:
        raise RefusedModelError(
            f"Input {entry.name!r} of {describe(model)} is a {entry.type} of shape {entry.shape}, but this device "
            f"measures floating-point inputs of fixed shape with batch {batch}: build the model with Device.prepare, "
            "or set the device's batch.",
            model,
        )
    return rng.standard_normal(shape).astype(_TYPES[entry.type])


def describe(model: bytes) -> str:
    """Return what to call a serialised model in messages."""
    try:
        return f"model {graph_name(model)!r}"
    except ValueError:
        return f"a file of {len(model)} bytes that is no ONNX model"


def reason(error: Exception) -> str:
    """Return an error's text as one sentence on one line."""
    text = " ".join(str(error).split())
    return text if text.endswith(".") else f"{text}."


def is_quantized(operators: Sequence[str]) -> bool:
    """Tell whether a graph of these operators computes anything in integers."""
    return any(
        op.startswith(("QLinear", "QGemm", "DequantizeLinear")) or "Integer" in op
        for op in (key.rpartition(":")[2] for key in operators)
    )
