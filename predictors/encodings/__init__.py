"""Encodings: architectures as vectors."""

from predictors.encodings.base import Concatenation, Encoding, Features, Standardised
from predictors.encodings.costs import CostFeatures, LayerCosts
from predictors.encodings.structural import AdjacencyOps, OneHot, OpCounts, OpPairs, Paths, Topology
from predictors.encodings.zero_cost import ZeroCost

__all__ = [
    "AdjacencyOps",
    "Concatenation",
    "CostFeatures",
    "Encoding",
    "Features",
    "LayerCosts",
    "OneHot",
    "OpCounts",
    "OpPairs",
    "Paths",
    "Standardised",
    "Topology",
    "ZeroCost",
]
