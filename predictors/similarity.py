"""One kernel between architectures over all parts of an encoding, where there is nothing to weigh the parts by."""

import numpy as np

from predictors.encodings import Encoding, Features
from searchspaces.arch import ArchBatch

_LENGTH = 2.0  # of the squared-exponential kernel, in typical distances


def side_by_side(encoding: Encoding, archs: ArchBatch) -> Features:
    """Return all parts of an encoding `(n, d)`, scaled so that each counts as much as another."""
    parts = [part.encode(archs) for part in encoding.parts]
    return np.concatenate([part / np.sqrt(part.shape[1] * len(parts)) for part in parts], axis=1)


def similarity(features: Features, others: Features) -> Features:
    """Return the sum of a linear and a squared-exponential kernel, each with a variance of about 1; shape `(k, n)`."""
    inner = features @ others.T
    squared = (features**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)
    out: Features = inner + np.exp(np.minimum(2 * inner - squared, 0) / (2 * _LENGTH**2))
    return out
