"""The slow path into `Network`: from a user's torch module, through `torch.export` and a table of operations."""

import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from searchspaces.errors import NetworkError
from searchspaces.network.aten.conversion import Conversion
from searchspaces.network.graph import Network
from searchspaces.network.operators import Shape
from searchspaces.network.to_torch import to_torch

TOLERANCE = 1e-3


def from_torch(
    module: nn.Module, input_shape: Shape, name: str = "network"
) -> tuple[Network, dict[str, NDArray[np.float32]]]:
    """Convert a torch module that maps images to one tensor.

    The module is traced as it evaluates (dropout off, batch normalisation by running statistics, still trainable
    in the result); its modes are restored. The conversion takes seconds, so describe networks with `NetworkBuilder`
    where many are needed. Batch normalisation gets torch's default momentum. The result is run beside the module
    on random images before it is returned.

    Args:
        module: Takes images `(n, c, h, w)` of float32 for any `n`.
        input_shape: Channels, height and width of the images.
        name: The network's name.

    Returns:
        The network, and the module's weights keyed `<node>.<weight>`.

    Raises:
        NetworkError: If the module cannot be traced (its control flow depends on values, or it needs a certain
            number of images), uses operations without a counterpart (all are named, with their place), or the
            result differs from it.
    """
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        conversion = Conversion(_trace(module, input_shape), input_shape, name)
        network, weights = conversion.run(type(module).__name__)
        _compare(module, network, weights)
    finally:
        for child, mode in modes:
            child.training = mode
    return network, weights


def _trace(module: nn.Module, input_shape: Shape) -> ExportedProgram:
    try:
        with _quiet():
            program = export(module, (_images(module, input_shape),), dynamic_shapes=({0: Dim.DYNAMIC},))
            pure: ExportedProgram = program.run_decompositions({})  # nothing is taken apart; in-place becomes pure
            return pure
    except Exception as error:  # whatever the user's forward may raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NetworkError(
            f"{type(module).__name__} cannot be traced by torch.export for images of shape {tuple(input_shape)}"
            f"{_frame(error)}: {reason} A network is a fixed graph: forward must not branch on values of tensors or "
            "turn them into Python numbers, and must take any number of images of this shape in float32. Change "
            "forward, or describe the network with NetworkBuilder."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's remarks on its own calls, and its dumps of graphs that it cannot trace, off the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.disable(level)


def _frame(error: Exception) -> str:
    """Say which line of code outside torch raised `error`."""
    frames = traceback.extract_tb(error.__traceback__)
    home = str(Path(torch.__file__).parent)
    users = [frame for frame in frames if not frame.filename.startswith(home) and frame.filename != __file__]
    return f" at {Path(users[-1].filename).name}:{users[-1].lineno}, `{users[-1].line}`" if users else ""


def _images(module: nn.Module, input_shape: Shape) -> Tensor:
    weight = next(module.parameters(), None)
    images = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
    return images if weight is None else images.to(weight.device)


def _compare(module: nn.Module, network: Network, weights: dict[str, NDArray[np.float32]]) -> None:
    images = _images(module, network.input_shape)
    with torch.no_grad():
        wanted = module(images).cpu()
        given = to_torch(network, weights).eval()(images.cpu())
    difference = float((wanted - given).abs().max())
    if wanted.shape != given.shape or not difference <= TOLERANCE * float(wanted.abs().max()) + 1e-6:
        raise NetworkError(
            f"The network made from {type(module).__name__} gives outputs that differ from the module's by "
            f"{difference:.3g}. If forward uses random numbers or keeps state, remove that; otherwise report it, with "
            "the module."
        )
