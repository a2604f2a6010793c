"""Encodings: architectures as vectors."""

from predictors.encodings.base import Concatenation, Encoding, Features, Standardised
from predictors.encodings.costs import CostFeatures
from predictors.encodings.structural import AdjacencyOps, OneHot, OpPairs, Paths, Topology
from predictors.encodings.zero_cost import ZeroCost

__all__ = [
    "AdjacencyOps",
    "Concatenation",
    "CostFeatures",
    "Encoding",
    "Features",
    "OneHot",
    "OpPairs",
    "Paths",
    "Standardised",
    "Topology",
    "ZeroCost",
]
