"""Genes and gene spaces: architectures, policies and configurations as rows of integers.

Everything here works on batches: ``rows`` is always an integer array of shape `(n, genes)` whose entry `[i, g]`
is the index of the chosen option of gene `g`. What a single row means is up to the space.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import ArchitectureError, unknown

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
Choice = str | int | float

MAX_TRIES = 1000
MAX_LISTED = 10_000_000
_CHUNK = 65536


@dataclass(frozen=True)
class Gene:
    """One decision.

    Attributes:
        name: Unique within the space.
        choices: The options' labels; a row stores an index into them.
        ordered: Whether neighbouring options are similar (kernel sizes are, operations are not).
    """

    name: str
    choices: tuple[Choice, ...]
    ordered: bool = False

    def __post_init__(self) -> None:
        if len(self.choices) < 1 or len(set(self.choices)) != len(self.choices):
            raise ArchitectureError(
                f"Gene {self.name!r} needs at least one choice and no choice twice, but has {list(self.choices)}."
            )


class GeneSpace:
    """A set of rows of integers, with the operations that searches need.

    A subclass sets `name` and `genes`; the defaults below treat every row as valid, distinct and fully used.
    Override `is_valid`, `canonical` and `active` (all vectorised over rows) where that does not hold, and
    `format`/`parse` for the field's own notation.
    """

    name: ClassVar[str] = ""
    genes: tuple[Gene, ...] = ()

    # -- identity -------------------------------------------------------------------------------------------

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Number of choices of each gene, shape `(genes,)`."""
        return np.array([len(gene.choices) for gene in self.genes], dtype=np.int64)

    @property
    def scale_arguments(self) -> dict[str, Any]:
        """What, besides the genes, decides which networks this space builds; part of the fingerprint."""
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """Name, and a digest of genes and scale: rows and results of different fingerprints do not mix."""
        genes = [(gene.name, gene.choices, gene.ordered) for gene in self.genes]
        digest = sha256(repr((self.name, genes, sorted(self.scale_arguments.items()))).encode()).hexdigest()
        return f"{self.name}-{digest[:12]}"

    # -- rows ----------------------------------------------------------------------------------------------

    def check(self, rows: Any) -> Rows:
        """Return `rows` as an integer array `(n, genes)`.

        Raises:
            ArchitectureError: If the shape is wrong, an entry is no choice, or a row is not valid.
        """
        array = np.atleast_2d(np.asarray(rows))
        if array.size == 0 and array.shape[0] in (0, 1):
            return np.zeros((0, len(self.genes)), dtype=np.int64)
        if array.ndim != 2 or array.shape[1] != len(self.genes) or not np.issubdtype(array.dtype, np.integer):
            raise ArchitectureError(
                f"Rows of space {self.name!r} are integer arrays of shape (n, {len(self.genes)}), "
                f"but got shape {np.shape(rows)} of {array.dtype}."
            )
        array = array.astype(np.int64, copy=True)
        outside = (array < 0) | (array >= self.sizes)
        if outside.any():
            row, gene = np.argwhere(outside)[0]
            raise ArchitectureError(
                f"Gene {self.genes[gene].name!r} of space {self.name!r} has the choices 0 to {self.sizes[gene] - 1} "
                f"({', '.join(map(str, self.genes[gene].choices))}), but row {row} has {array[row, gene]}."
            )
        valid = self.is_valid(array)
        if not valid.all():
            row = int(np.argmin(valid))
            raise ArchitectureError(
                f"Row {row}, {array[row].tolist()}, is not a valid architecture of space {self.name!r}."
            )
        return array

    def is_valid(self, rows: Rows) -> Mask:
        """Tell which rows describe something that can be built; shape `(n,)`."""
        return np.ones(len(rows), dtype=np.bool_)

    def canonical(self, rows: Rows) -> Rows:
        """Map every row to the representative of its class: rows that build the same network map to one row."""
        return rows

    def active(self, rows: Rows) -> Mask:
        """Tell which genes matter, shape `(n, genes)`: changing an inactive gene leaves the class as it is."""
        return np.ones(rows.shape, dtype=np.bool_)

    def keys(self, rows: Rows) -> list[bytes]:
        """Return one hashable key per row, equal for rows of the same canonical class."""
        compact = self.canonical(rows).astype(np.int32)
        return [row.tobytes() for row in compact]

    def enumerate_classes(self) -> Rows:
        """Return the canonical rows of all classes, in row order; shape `(classes, genes)`.

        Looks at every row, so it is for small spaces; a larger one with few classes overrides it.

        Raises:
            ArchitectureError: If the space has more than ten million rows.
        """
        total = self._listable(prod(self.sizes.tolist()))
        places = np.cumprod([1, *self.sizes[:0:-1]])[::-1]
        found = np.zeros(total, dtype=np.bool_)
        for start in range(0, total, _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, total))[:, None] // places % self.sizes
            found[self.canonical(rows[self.is_valid(rows)]) @ places] = True
        return np.asarray(np.flatnonzero(found)[:, None] // places % self.sizes)

    def _listable(self, total: int) -> int:
        if total > MAX_LISTED:
            raise ArchitectureError(
                f"The classes of space {self.name!r} are not listed: that would take {total:.3g} rows, and at most "
                f"{MAX_LISTED:,} are listed. Draw rows with `sample`, or freeze a part of a joint space."
            )
        return total

    # -- moving about ----------------------------------------------------------------------------------------

    def sample(self, n: int, rng: np.random.Generator) -> Rows:
        """Draw `n` valid rows, uniformly over rows; shape `(n, genes)`."""
        rows = rng.integers(0, self.sizes, size=(n, len(self.genes)))
        for _ in range(MAX_TRIES):
            bad = np.flatnonzero(~self.is_valid(rows))
            if len(bad) == 0:
                return rows
            rows[bad] = rng.integers(0, self.sizes, size=(len(bad), len(self.genes)))
        raise ArchitectureError(
            f"Drew {MAX_TRIES} times {len(bad)} rows of space {self.name!r} without finding valid ones. "
            "A space whose valid rows are this rare must override `sample`."
        )

    def sample_classes(self, n: int, rng: np.random.Generator) -> Rows:
        """Draw `n` canonical rows, uniformly over classes; shape `(n, genes)`.

        `sample` favours classes of many rows. This lists all classes first, so draw all rows in one call.

        Raises:
            ArchitectureError: If the space is too large for `enumerate_classes`.
        """
        classes = self.enumerate_classes()
        return classes[rng.integers(len(classes), size=n)]

    def mutate(self, rows: Rows, rng: np.random.Generator, edits: int = 1) -> Rows:
        """Change `edits` different genes that are active in a row to another choice; shape `(n, genes)`.

        The result is valid and differs in exactly `edits` genes, or in all that can change where a row has fewer. As
        the changes are made at once, it may be of the row's own class where the space has symmetries. Rows that no
        draw turns into a valid one come back unchanged.
        """
        result = rows.copy()
        mutable = self.active(rows) & (self.sizes > 1)
        todo = np.flatnonzero(mutable.any(axis=1)) if edits else np.zeros(0, dtype=np.int64)
        for _ in range(MAX_TRIES):
            if len(todo) == 0:
                break
            order = np.argsort(np.where(mutable[todo], -rng.random((len(todo), len(self.genes))), 1.0), axis=1)
            genes = order[:, :edits]
            old = np.take_along_axis(rows[todo], genes, axis=1)
            sizes = np.maximum(self.sizes[genes], 2)  # genes of one choice are not mutable, but are drawn for too
            new = np.where(
                np.take_along_axis(mutable[todo], genes, axis=1), (old + rng.integers(1, sizes)) % sizes, old
            )
            candidate = rows[todo]
            np.put_along_axis(candidate, genes, new, axis=1)
            good = self.is_valid(candidate)
            result[todo[good]] = candidate[good]
            todo = todo[~good]
        return result

    def crossover(self, first: Rows, second: Rows, rng: np.random.Generator) -> Rows:
        """Mix two batches of parents gene by gene (uniform crossover); invalid children become `first`."""
        children = np.where(rng.random(first.shape) < 0.5, first, second)
        return np.where(self.is_valid(children)[:, None], children, first)

    def neighbors(self, row: NDArray[np.int64]) -> Rows:
        """Return all valid rows that differ from one `row` in one active gene; shape `(m, genes)`."""
        active = self.active(row[None])[0]
        edits = [
            (gene, choice)
            for gene in np.flatnonzero(active)
            for choice in range(self.sizes[gene])
            if choice != row[gene]
        ]
        rows = np.repeat(row[None], len(edits), axis=0)
        if edits:
            gene_ids, choices = np.array(edits).T
            rows[np.arange(len(edits)), gene_ids] = choices
        return rows[self.is_valid(rows)]

    # -- text ----------------------------------------------------------------------------------------------

    def format(self, rows: Rows) -> list[str]:
        """Write each row in the space's notation; here the choices' labels, joined by commas."""
        return [",".join(str(gene.choices[i]) for gene, i in zip(self.genes, row, strict=True)) for row in rows]

    def parse(self, texts: Sequence[str]) -> Rows:
        """Read what `format` writes.

        Raises:
            ArchitectureError: If a text has the wrong number of parts or names an unknown choice.
        """
        rows = np.zeros((len(texts), len(self.genes)), dtype=np.int64)
        for i, text in enumerate(texts):
            labels = text.split(",")
            if len(labels) != len(self.genes):
                raise ArchitectureError(
                    f"An architecture of space {self.name!r} has {len(self.genes)} comma-separated parts, "
                    f"but {text!r} has {len(labels)}."
                )
            for g, (gene, label) in enumerate(zip(self.genes, labels, strict=True)):
                rows[i, g] = choice_index(gene, label.strip())
        return self.check(rows)


def choice_index(gene: Gene, label: str) -> int:
    """Return the index of the choice of `gene` that is written `label`.

    Raises:
        ArchitectureError: If there is none.
    """
    for index, choice in enumerate(gene.choices):
        if str(choice) == label:
            return index
    raise ArchitectureError(unknown(f"choice of gene {gene.name!r}", label, map(str, gene.choices)))


class JointSpace(GeneSpace):
    """Several gene spaces side by side, such as architecture, quantization and accelerator.

    Args:
        **parts: The spaces, by the name of their part; their genes are prefixed with it.
    """

    def __init__(self, **parts: GeneSpace) -> None:
        if not parts:
            raise ArchitectureError("A joint space needs at least one part, for instance architecture=SPACE.")
        self.parts = parts
        self.genes = tuple(
            Gene(f"{name}.{gene.name}", gene.choices, gene.ordered)
            for name, space in parts.items()
            for gene in space.genes
        )
        ends = np.cumsum([len(space.genes) for space in parts.values()])
        self._slices = {
            name: slice(int(end) - len(space.genes), int(end))
            for (name, space), end in zip(parts.items(), ends, strict=True)
        }
        self._frozen: dict[str, Rows] = {}

    @property
    def name(self) -> str:  # type: ignore[override]
        """The parts' names, joined."""
        return "+".join(space.name for space in self.parts.values())

    @property
    def scale_arguments(self) -> dict[str, Any]:
        """The parts' fingerprints and what is frozen."""
        frozen = {f"frozen.{name}": row.tolist() for name, row in self._frozen.items()}
        return {name: space.fingerprint for name, space in self.parts.items()} | frozen

    def part(self, name: str) -> slice:
        """Return the columns of part `name`: `rows[:, space.part("architecture")]`.

        Raises:
            ArchitectureError: If there is no such part.
        """
        if name not in self._slices:
            raise ArchitectureError(unknown("part", name, self._slices))
        return self._slices[name]

    def freeze(self, part: str, row: Any) -> "JointSpace":
        """Return this space with one part fixed to `row`: sampling and mutation leave it alone.

        Raises:
            ArchitectureError: If there is no such part, or `row` is not exactly one valid row of it.
        """
        self.part(part)
        rows = self.parts[part].check(row)
        if len(rows) != 1:
            raise ArchitectureError(f"Part {part!r} is frozen to one row, but got {len(rows)}.")
        result = JointSpace(**self.parts)
        result._frozen = {**self._frozen, part: rows}
        return result

    def _join(self, method: str, rows: Rows) -> list[Any]:
        return [getattr(space, method)(rows[:, self._slices[name]]) for name, space in self.parts.items()]

    def is_valid(self, rows: Rows) -> Mask:
        """A row is valid where all its parts are and the frozen ones are as frozen."""
        valid: Mask = np.logical_and.reduce(self._join("is_valid", rows))
        for name, row in self._frozen.items():
            valid &= (rows[:, self._slices[name]] == row).all(axis=1)
        return valid

    def canonical(self, rows: Rows) -> Rows:
        """Canonicalise each part on its own; frozen parts stay as frozen, since no other row of theirs is valid."""
        result = np.concatenate(self._join("canonical", rows), axis=1)
        for name, row in self._frozen.items():
            result[:, self._slices[name]] = row
        return result

    def active(self, rows: Rows) -> Mask:
        """Genes active in their part and not frozen."""
        mask = np.concatenate(self._join("active", rows), axis=1)
        for name in self._frozen:
            mask[:, self._slices[name]] = False
        return mask

    def enumerate_classes(self) -> Rows:
        """Combine the parts' classes; a frozen part has one.

        Raises:
            ArchitectureError: If a part has too many rows to look at, or there are too many combinations.
        """
        lists = [
            self._frozen[name] if name in self._frozen else space.enumerate_classes()
            for name, space in self.parts.items()
        ]
        lengths = [len(rows) for rows in lists]
        picks = np.unravel_index(np.arange(self._listable(prod(lengths))), lengths)
        return np.concatenate([rows[pick] for rows, pick in zip(lists, picks, strict=True)], axis=1)

    def sample(self, n: int, rng: np.random.Generator) -> Rows:
        """Sample each part by its own rule; frozen parts repeat their row."""
        columns = [
            np.repeat(self._frozen[name], n, axis=0) if name in self._frozen else space.sample(n, rng)
            for name, space in self.parts.items()
        ]
        return np.concatenate(columns, axis=1)

    def format(self, rows: Rows) -> list[str]:
        """Write the parts' notations, joined by ` ; `."""
        return [" ; ".join(texts) for texts in zip(*self._join("format", rows), strict=True)]

    def parse(self, texts: Sequence[str]) -> Rows:
        """Read what `format` writes."""
        split = [text.split(" ; ") for text in texts]
        for text, pieces in zip(texts, split, strict=True):
            if len(pieces) != len(self.parts):
                raise ArchitectureError(
                    f"A joint architecture has {len(self.parts)} parts ({', '.join(self.parts)}) "
                    f"separated by ' ; ', but {text!r} has {len(pieces)}."
                )
        columns = [
            space.parse([pieces[i] for pieces in split]) for i, space in enumerate(self.parts.values())
        ]
        return self.check(np.concatenate(columns, axis=1))
