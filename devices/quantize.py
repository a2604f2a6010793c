"""Static quantization of an ONNX model to int8: unsigned activations, signed weights with a scale per channel.

Of the integer layouts, this is the one that is faster than fp32 on x86 processors with VNNI: 1.5 times on a
MobileNetV2 at 224 pixels, where signed activations or unsigned weights are slower than fp32. Sums and average pooling
stay fp32: in integers, they make cells of NAS-Bench-201 up to five times slower.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime import quantization
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from devices.session import REFUSALS, SessionConfig, reason
from searchspaces.errors import DeviceError

QUANTIZED = ("Conv", "Gemm", "MatMul", "Relu", "Clip")
"""Operators that are computed in integers."""
_QUANTIZER = Path(quantization.__file__).parent
_FAILURES: tuple[type[Exception], ...] = (*REFUSALS, OSError)


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, batches: Iterator[NDArray[np.float32]]) -> None:
        self._name, self._batches = name, batches

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def quantize(model: ModelProto, images: NDArray[Any]) -> ModelProto:
    """Quantize the convolutions and matrix products of `model`, ranges calibrated by minimum and maximum.

    Args:
        model: An fp32 model with one input of fixed shape `(batch, c, h, w)`.
        images: Calibration images `(n, c, h, w)`, as the model takes them; the last incomplete batch is left out.

    Returns:
        The model with QuantizeLinear and DequantizeLinear nodes and batch normalisations folded.

    Raises:
        DeviceError: If the images do not fit the model, or it cannot be quantized.
    """
    source = model.graph.input[0]
    shape = tuple(axis.dim_value for axis in source.type.tensor_type.shape.dim)
    if images.shape[1:] != shape[1:] or len(images) < shape[0] or min(shape) < 1:
        raise DeviceError(
            f"Calibrating model {model.graph.name!r} takes at least one batch of images of its input's shape {shape}, "
            f"but the images are of shape {images.shape}."
        )
    count = len(images) // shape[0]
    batches = images[: count * shape[0]].astype(np.float32).reshape(count, *shape)
    with TemporaryDirectory(prefix="nasflow-") as folder:
        target = Path(folder) / "int8.onnx"
        try:
            with _without_remarks():
                quantize_static(
                    _fold(model, Path(folder) / "folded.onnx"),
                    str(target),
                    _Images(source.name, iter(batches)),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=list(QUANTIZED),
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    per_channel=True,
                )
        except _FAILURES as error:
            raise DeviceError(
                f"ONNX Runtime cannot quantize model {model.graph.name!r}: {reason(error)} Use precision fp32 for it."
            ) from error
        return onnx.load(target)


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep the quantizer from telling of each bias that it copies; its warnings pass.

    It logs to the root logger, as any module of a user's may, so its records are known by the file they come from.
    """

    def passes(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or _QUANTIZER not in Path(record.pathname).parents

    root = logging.getLogger()
    root.addFilter(passes)
    try:
        yield
    finally:
        root.removeFilter(passes)


def _fold(model: ModelProto, path: Path) -> ModelProto:
    """Fold batch normalisation into convolutions, which the quantizer leaves apart otherwise."""
    options = SessionConfig(optimisation="basic").options()
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    folded = onnx.shape_inference.infer_shapes(onnx.load(path))
    # The mark by which the quantizer knows that a model is prepared; without it, it logs a warning per model.
    folded.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    return folded
