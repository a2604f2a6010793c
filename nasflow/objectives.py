"""What a search is after: metrics to maximise or minimise, and bounds to keep."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import ConfigError, unknown

Direction = Literal["maximize", "minimize"]
Columns = Mapping[str, NDArray[np.float64]]

_ENTRIES = ("direction", "at_least", "at_most")


@dataclass(frozen=True)
class Objective:
    """One metric's part in the search.

    Attributes:
        metric: A column that some evaluator provides, with its unit in the name, such as `latency_ms`.
        direction: `maximize`, `minimize`, or None for a metric that is only bounded.
        at_least: Smallest allowed value, in the metric's unit.
        at_most: Largest allowed value, in the metric's unit.

    Raises:
        ConfigError: If the direction is unknown, a bound is no finite number, or nothing can meet the bounds.
    """

    metric: str
    direction: Direction | None = None
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.direction not in ("maximize", "minimize", None):
            raise ConfigError(
                f"Objective {self.metric!r} has direction {self.direction!r}: choose maximize, minimize, or leave it "
                "out for a metric that is only bounded by at_least or at_most."
            )
        for name, bound in (("at_least", self.at_least), ("at_most", self.at_most)):
            number = isinstance(bound, (int, float)) and not isinstance(bound, bool)
            if bound is not None and not (number and math.isfinite(bound)):
                raise ConfigError(
                    f"Objective {self.metric!r} has {name}={bound!r}: give a finite number in the metric's unit, or "
                    "leave it out."
                )
        if self.direction is None and self.at_least is None and self.at_most is None:
            raise ConfigError(
                f"Objective {self.metric!r} needs a direction (maximize, minimize) or a bound (at_least, at_most)."
            )
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ConfigError(
                f"Nothing meets the bounds of objective {self.metric!r}: at_least={self.at_least:g} lies above "
                f"at_most={self.at_most:g}."
            )

    def violation(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much `values (n,)` miss the bounds, relative to the bound; 0 where they keep them; shape `(n,)`."""
        missed = np.zeros(len(values))
        for bound, sign in ((self.at_least, -1.0), (self.at_most, 1.0)):
            if bound is not None:
                excess = np.where(np.isnan(values), np.inf, sign * (values - bound))
                missed = np.maximum(missed, excess / (abs(bound) or 1.0))
        return missed


class Objectives:
    """All objectives of a search, in the order they were given.

    Args:
        **metrics: Per metric a mapping with any of `direction`, `at_least`, `at_most`; None removes a metric that
            a configuration inherited.

    Raises:
        ConfigError: If no metric has a direction, or an entry is malformed.
    """

    def __init__(self, **metrics: Mapping[str, Any] | None) -> None:
        entries = []
        for metric, entry in metrics.items():
            if entry is None:
                continue
            if not isinstance(entry, Mapping):
                raise ConfigError(
                    f"Objective {metric!r} is {entry!r}, but takes entries: write for instance "
                    f"+objective.{metric}.direction=minimize or +objective.{metric}.at_most=2."
                )
            for key in entry:
                if key not in _ENTRIES:
                    raise ConfigError(
                        f"{unknown(f'entry of objective {metric!r}', str(key), _ENTRIES)} Write for instance "
                        f"+objective.{metric}.at_most=2."
                    )
            entries.append(Objective(metric, **entry))
        self.entries: tuple[Objective, ...] = tuple(entries)
        if not self.optimised:
            bounded = ", ".join(entry.metric for entry in entries) or "no metric"
            raise ConfigError(
                f"At least one metric must be maximised or minimised, but {bounded} is given, with bounds at most. Add "
                "for instance +objective.accuracy.direction=maximize."
            )

    @property
    def optimised(self) -> tuple[Objective, ...]:
        """The objectives with a direction; their order is that of the columns of `losses`."""
        return tuple(entry for entry in self.entries if entry.direction)

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics that have to be known."""
        return tuple(entry.metric for entry in self.entries)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Directions of `optimised`, as Optuna names them."""
        return tuple(entry.direction for entry in self.optimised if entry.direction)

    def losses(self, columns: Columns) -> NDArray[np.float64]:
        """Return the optimised metrics as values to minimise, shape `(n, optimised)`."""
        signs = [-1.0 if entry.direction == "maximize" else 1.0 for entry in self.optimised]
        return np.stack(
            [sign * columns[entry.metric] for sign, entry in zip(signs, self.optimised, strict=True)], axis=1
        )

    @property
    def bounded(self) -> tuple[Objective, ...]:
        """The objectives with a bound."""
        return tuple(entry for entry in self.entries if entry.at_least is not None or entry.at_most is not None)

    def violations(self, columns: Columns) -> dict[str, NDArray[np.float64]]:
        """Return the relative violation of each bounded metric in `columns`, each of shape `(n,)`.

        Metrics that `columns` lacks are left out, so that cheap metrics can be checked before expensive ones.
        """
        known = [entry for entry in self.bounded if entry.metric in columns]
        return {entry.metric: entry.violation(columns[entry.metric]) for entry in known}
