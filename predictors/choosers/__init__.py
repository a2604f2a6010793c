"""Choosers: which architectures to measure."""

from predictors.choosers.base import Chooser, Random
from predictors.choosers.encoded import Cosine, KMeans, Strata
from predictors.choosers.informative import MostInformative

__all__ = ["Chooser", "Cosine", "KMeans", "MostInformative", "Random", "Strata"]
