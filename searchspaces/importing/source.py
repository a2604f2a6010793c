"""Sources of published tables: who made them, under which licence, and how their files become tables."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import ArrayLike

from searchspaces.arch import ArchBatch
from searchspaces.errors import TableError
from searchspaces.genes import GeneSpace
from searchspaces.table import Column, Table

logger = logging.getLogger(__name__)

_LISTED = 64


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A publication whose files can be imported.

    A subclass sets `space`, at the scale of the publication, and implements `tables`.

    Attributes:
        title: What it is, in a line.
        files: The file or folder that `path` must be.
        url: Where users get it.
        licence: Its licence, as far as its authors state one.
        checksums: SHA-256 by file name, of files that everyone gets alike.
    """

    title: str
    files: str
    url: str
    licence: str
    checksums: Mapping[str, str] = field(default_factory=dict)
    space: ClassVar[GeneSpace]

    @abstractmethod
    def tables(self, path: Path) -> Iterator[tuple[str, Table]]:
        """Read the files under `path` and yield tables with their names, which are file names without an ending.

        Raises:
            TableError: If a file is missing, truncated, damaged or another one.
        """

    def table(
        self,
        rows: Any,
        values: Mapping[str, ArrayLike],
        columns: Sequence[Column],
        paths: Sequence[Path],
        notes: str = "",
    ) -> Table:
        """Return a table with the provenance that every imported table has.

        Args:
            rows: Integer array `(n, genes)`.
            values: Figures by column name, each of shape `(n,)`.
            columns: Their descriptions.
            paths: The files that they were read from.
            notes: What a user of the figures must know.
        """
        table = Table(ArchBatch(self.space, rows), values, columns)
        table.provenance = {
            "source": self.title,
            "url": self.url,
            "licence": self.licence,
            "files": self._checked(paths),
            "content_sha256": content_digest(table),
        }
        if notes:
            table.provenance["notes"] = notes
        return table

    def _checked(self, paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
        """Digest the files and compare with the known checksums; many files get one digest over all of theirs."""
        facts: dict[str, dict[str, Any]] = {}
        for path in paths:
            with path.open("rb") as file:
                digest = file_digest(file, "sha256").hexdigest()
            facts[path.name] = {"sha256": digest, "bytes": path.stat().st_size}
            if path.name in self.checksums:
                facts[path.name]["as_published"] = digest == self.checksums[path.name]
        differing = [name for name, fact in facts.items() if not fact.get("as_published", True)]
        if differing:
            logger.warning(
                "%d of %d files differ from those that this import was checked with, the first is %s. They can be read "
                "and have the right shape, but compare them with the publication.",
                len(differing),
                len(paths),
                differing[0],
            )
        if len(facts) > _LISTED:
            lines = "".join(f"{facts[name]['sha256']}  {name}\n" for name in sorted(facts))
            total = sum(fact["bytes"] for fact in facts.values())
            return {f"{len(facts)} files": {"sha256": sha256(lines.encode()).hexdigest(), "bytes": total}}
        return facts


def content_digest(table: Table) -> str:
    """Return the SHA-256 of a table's rows, columns and figures, by which damage shows."""
    digest = sha256(table.archs.rows.astype("<i8").tobytes())
    for name in sorted(table.values):
        digest.update(repr(table.columns[name]).encode())
        digest.update(table.values[name].astype("<f8").tobytes())
    return digest.hexdigest()


def existing_folder(path: Path, expected: str) -> Path:
    """Return `path`.

    Raises:
        TableError: If it is no folder.
    """
    if not path.is_dir():
        raise TableError(f"{path} is no folder. Expected is {expected}: check the path, or get it from its authors.")
    return path
