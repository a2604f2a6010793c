"""Batches of architectures: what tables, proxies, predictors and datasets take."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import ArchitectureError
from searchspaces.genes import GeneSpace, Rows


class ArchBatch:
    """Architectures of one space, as a frozen integer array.

    Args:
        space: The space they belong to.
        rows: Integer array `(n, genes)`; checked and copied.

    Raises:
        ArchitectureError: If the rows do not belong to the space.
    """

    __slots__ = ("rows", "space")

    def __init__(self, space: GeneSpace, rows: Any) -> None:
        self.space = space
        self.rows: Rows = space.check(rows)
        self.rows.setflags(write=False)

    @classmethod
    def sample(cls, space: GeneSpace, n: int, rng: np.random.Generator) -> "ArchBatch":
        """Draw `n` valid architectures uniformly."""
        return cls(space, space.sample(n, rng))

    @classmethod
    def parse(cls, space: GeneSpace, texts: Sequence[str]) -> "ArchBatch":
        """Read architectures in the space's notation."""
        return cls(space, space.parse(texts))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice | NDArray[Any] | list[int]) -> "ArchBatch":
        picked = self.rows[index]
        return ArchBatch(self.space, picked[None] if picked.ndim == 1 else picked)

    def __iter__(self) -> Iterator["ArchBatch"]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"ArchBatch({self.space.name}, {len(self)} architectures)"

    def canonical(self) -> "ArchBatch":
        """Return the representatives of the architectures' classes."""
        return ArchBatch(self.space, self.space.canonical(self.rows))

    def keys(self) -> list[bytes]:
        """Return one hashable key per architecture, equal within a canonical class."""
        return self.space.keys(self.rows)

    def format(self) -> list[str]:
        """Return the architectures in the space's notation."""
        return self.space.format(self.rows)

    def unique(self) -> "ArchBatch":
        """Return the first architecture of each canonical class, in order."""
        first: dict[bytes, int] = {}
        for i, key in enumerate(self.keys()):
            first.setdefault(key, i)
        return self[np.array(list(first.values()), dtype=np.int64)]

    @classmethod
    def concatenate(cls, batches: Sequence["ArchBatch"]) -> "ArchBatch":
        """Join batches of the same space.

        Raises:
            ArchitectureError: If there is none, or their spaces' fingerprints differ.
        """
        prints = {batch.space.fingerprint for batch in batches}
        if len(prints) != 1:
            raise ArchitectureError(f"Only batches of one space can be joined, but got {sorted(prints)}.")
        return cls(batches[0].space, np.concatenate([batch.rows for batch in batches]))
