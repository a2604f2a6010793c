"""All cells of NAS-Bench-101 up to isomorphism."""

import os
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import TableError
from searchspaces.genes import Rows
from searchspaces.nb101.cells import (
    EDGES,
    INNER,
    MAX_EDGES,
    OPS,
    class_numbers,
    edge_count,
    pack,
    reach,
    representatives,
    unpack,
)

CACHE_NAME = "nb101_classes.npy"


def enumerate_classes(cache: Path | None = None) -> Rows:
    """Return the canonical rows of all valid cells, in row order, shape `(423624, 26)`; takes ten seconds at first.

    Args:
        cache: Folder in which the list is kept from one call to the next; None computes it anew.

    Raises:
        TableError: If the file in the cache is damaged.
    """
    if cache is None:
        return representatives(_numbers())
    path = cache / CACHE_NAME
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.npy")
        np.save(unfinished, _numbers(), allow_pickle=False)
        unfinished.replace(path)
    try:
        numbers = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise TableError(
            f"The cached list of cells {path} cannot be read ({error}). Delete it to have it made anew."
        ) from error
    return representatives(numbers)


@lru_cache(maxsize=1)
def _numbers() -> NDArray[np.int64]:
    """Numbers of all classes in the order of their canonical rows, found by giving each bare graph all operations."""
    graphs = _graphs()
    from_input, to_output = reach(graphs)
    inner = (from_input & to_output)[:, 1:-1].sum(axis=1)
    found = []
    for live in range(INNER + 1):
        chosen = graphs[inner == live]
        labels = np.array(list(product(range(len(OPS)), repeat=live)), dtype=np.int64).reshape(len(OPS) ** live, live)
        rows = np.repeat(chosen, len(labels), axis=0)
        rows[:, len(EDGES) : len(EDGES) + live] = np.tile(labels, (len(chosen), 1))
        found.append(np.unique(class_numbers(rows)))
    numbers = np.unique(np.concatenate(found))
    return numbers[np.argsort(pack(representatives(numbers)))]


def _graphs() -> Rows:
    """One pruned row for each connected graph of at most nine edges, with all operations 0 and dead vertices last."""
    masks = np.arange(2 ** len(EDGES))
    rows = np.zeros((len(masks), len(EDGES) + INNER), dtype=np.int64)
    rows[:, : len(EDGES)] = masks[:, None] >> np.arange(len(EDGES)) & 1
    numbers = np.unique(class_numbers(rows[edge_count(rows) <= MAX_EDGES]))
    return unpack(numbers[numbers > 0])
