"""The result of measuring one model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from devices.protocol import Floats


@dataclass(frozen=True, eq=False)
class Measurement:
    """Latency of one model on one device, with all that it was derived from.

    `latency_ms` is `reference_ms` times the trimmed mean of `samples_ms / anchor_ms[:, None]`.

    Attributes:
        latency_ms: Time of one run of the whole batch, at the pace of the anchors' references.
        std_ms: Standard deviation over the rounds' medians.
        iqr_ms: Interquartile range of the rounds' medians.
        samples_ms: Raw times, shape `(rounds, runs)`; the rounds of all restarts one after the other.
        anchor_ms: What the device's largest anchor would have taken in each round, shape `(rounds,)`: the pace that
            the anchors near the model's time had, times `reference_ms`.
        reference_ms: Known time of the device's largest anchor.
        redone: Rounds that were thrown away and done again because an anchor drifted.
        drifted: Kept rounds in which an anchor drifted nevertheless; above 0, the figure is less trustworthy.
        batch_seconds: Time spent running the models that were measured together, with anchors (their first measuring
            included) and warm-up; not that of building and loading them.
        operators: How often each operator occurs in the optimised graph.
        job: Identity: SHA-256 of model, session options and protocol version.
        environment: Machine, load and options, JSON-able.
    """

    latency_ms: float
    std_ms: float
    iqr_ms: float
    samples_ms: Floats
    anchor_ms: Floats
    reference_ms: float
    redone: int
    drifted: int
    batch_seconds: float
    operators: dict[str, int]
    job: str
    environment: dict[str, Any]

    def record(self) -> dict[str, Any]:
        """Return all of it JSON-able, raw times to the tenth of a microsecond."""
        return asdict(self) | {
            "samples_ms": self.samples_ms.round(4).tolist(),
            "anchor_ms": self.anchor_ms.round(6).tolist(),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Measurement":
        """Return what a record tells; its own record is the same."""
        arrays = {name: np.array(record[name], dtype=np.float64) for name in ("samples_ms", "anchor_ms")}
        return cls(**{**record, **arrays})
