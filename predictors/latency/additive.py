"""A latency for each choice of each gene, summed."""

from sklearn.base import RegressorMixin

from predictors.accuracy.regression import Regression
from predictors.encodings import Encoding
from predictors.normalisation import Identity


class Additive(Regression):
    """A linear model of the latency itself: on one-hot genes, blocks or edges take their time whatever the others are.

    Args:
        encoding: What architectures are described by.
        regressor: A linear regressor of scikit-learn.
        seed: Its `random_state`, where it has one.
    """

    scale = Identity

    def __init__(self, encoding: Encoding, regressor: RegressorMixin, seed: int = 0) -> None:
        super().__init__(encoding, regressor, seed)

    def _twin(self) -> "Additive":
        return Additive(self.encoding, self.regressor, self.seed)
