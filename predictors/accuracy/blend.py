"""Several predictors as one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.base import Arrays, Prediction, Predictor, SourceSamples
from predictors.normalisation import NormalScores
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.genes import GeneSpace


class Blend(Predictor):
    """The mean of several predictors, taken on the normal scores of the target's ranks.

    Kinds of predictors err differently, so their mean is mostly better than each. The variance is the mean of the
    members' variances: their errors are far from independent.

    Args:
        members: At least one predictor; names, where there are any, only serve to address them in a configuration.

    Raises:
        ConfigError: If there is none.
    """

    def __init__(self, members: Sequence[Predictor] | Mapping[str, Predictor]) -> None:
        if not members:
            raise ConfigError("A blend needs at least one predictor.")
        self.members = list(members.values() if isinstance(members, Mapping) else members)

    def _fit(self, archs: ArchBatch, y: NDArray[np.float64], sources: Sequence[SourceSamples]) -> None:
        self._y = y
        for member in self.members:
            member.fit(archs, y, sources)

    def _predict(self, archs: ArchBatch) -> Prediction:
        scores = NormalScores(self._y)
        found = [member.predict(archs) for member in self.members]
        mean = np.mean([scores(prediction.mean) for prediction in found], axis=0)
        return Prediction(scores.inverse(mean), np.sqrt(np.mean([prediction.std**2 for prediction in found], axis=0)))

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays: Arrays = {"y": self._y}
        facts = []
        for i, member in enumerate(self.members):
            own, learned = member._state()
            arrays |= {f"member{i}.{name}": array for name, array in own.items()}
            facts.append(learned)
        return arrays, {"members": facts}

    def _restore(self, space: GeneSpace, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        self._y = arrays["y"]
        for i, (member, learned) in enumerate(zip(self.members, facts["members"], strict=True)):
            prefix = f"member{i}."
            own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            member._restore(space, own, learned)
            member.space = space
