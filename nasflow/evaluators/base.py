"""The interface of evaluators: what turns architectures into metrics."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from searchspaces.arch import ArchBatch


@dataclass
class Evaluation:
    """What an evaluator found out about a batch of n architectures.

    Attributes:
        columns: Metrics by name, each of shape `(n,)`.
        provenance: Per architecture, JSON-able facts on how the figures came about.
    """

    columns: dict[str, NDArray[np.float64]]
    provenance: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Context:
    """Where and under which seeds an evaluation runs.

    Attributes:
        seeds: One seed per architecture, derived from the study's seed and the slot.
        slots: The architectures' slots in the study, which name their artefacts.
        fidelity: Fidelity asked for, or None for the full one.
        folder: Folder of the run, for weights and other artefacts; None when nothing is to be kept.
        front: Architectures that are currently non-dominated, as anchors of measurements.
    """

    seeds: Sequence[int]
    slots: Sequence[int] = ()
    fidelity: float | None = None
    folder: Path | None = None
    front: ArchBatch | None = None


@runtime_checkable
class Evaluator(Protocol):
    """Gives metrics of architectures.

    Attributes:
        provides: Names of the metrics, with their units.
        cost: `cheap` evaluators run first and can rule an architecture out before an `expensive` one runs.
        deterministic: Whether equal seeds give equal figures.
    """

    provides: tuple[str, ...]
    cost: Literal["cheap", "expensive"]
    deterministic: bool

    def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
        """Evaluate a batch.

        Raises:
            NasflowError: If an architecture cannot be evaluated.
        """
        ...
