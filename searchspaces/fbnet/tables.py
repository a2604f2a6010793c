"""Published tables of FBNet, of networks for images of 32 pixels as in HW-NAS-Bench (arXiv 2103.10584).

That the latencies are of this scale shows in them: over the 5,000 networks those of `eyeriss` and `fpga` have rank
correlations above 0.97 with the operations at this scale, and of about 0.9 with those at 224 pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from searchspaces.errors import ConfigError, TableError
from searchspaces.fbnet.space import FBNet
from searchspaces.genes import Rows
from searchspaces.importing.help_latencies import read_latencies
from searchspaces.importing.reading import expecting, numbers, read_csv, read_torch
from searchspaces.importing.source import Source, existing_folder
from searchspaces.importing.zero_cost import NOTES, zero_cost_columns
from searchspaces.table import Table

SPACE = FBNet(scale="cifar")
ARCHS = 5_000
SCORES = (
    "synflow", "zen", "epe_nas", "fisher", "flops", "grad_norm", "grasp", "jacov", "l2_norm", "nwot", "params", "plain",
    "snip",
)  # fmt: skip


def read_archs(path: Path) -> Rows:
    """Return the rows `(5000, 22)` of HELP's `arch.pt`.

    Raises:
        TableError: If the file is damaged or another one.
    """
    expected = f"a list of {ARCHS:,} architectures of 22 operations, saved by torch"
    with expecting(path, expected):
        rows = SPACE.check(np.array(read_torch(path, expected), dtype=np.int64))
    if len(rows) != ARCHS:
        raise TableError(f"{path} must be {expected}, but has {len(rows):,}.")
    return rows


class HelpLatencies(Source):
    """HELP's `data/fbnet`: `arch.pt` and `latency/DEVICE.pt`."""

    space = SPACE

    def tables(self, path: Path) -> Iterator[tuple[str, Table]]:
        """Yield `help_latency`, with a column for each device.

        Raises:
            TableError: If a file is missing or damaged.
        """
        existing_folder(path, self.files)
        rows = read_archs(path / "arch.pt")
        values, columns, paths = read_latencies(path / "latency", ARCHS)
        yield "help_latency", self.table(rows, values, columns, [path / "arch.pt", *paths])


@dataclass(frozen=True, kw_only=True)
class CsvScores(Source):
    """Zero-cost scores of HELP's architectures in a CSV file, by their number there.

    Attributes:
        archs: HELP's `arch.pt`.
    """

    space = SPACE
    archs: str | None = None

    def tables(self, path: Path) -> Iterator[tuple[str, Table]]:
        """Yield `zero_cost`.

        Raises:
            ConfigError: If `archs` is not given.
            TableError: If a file is damaged or another one, or a number is no architecture.
        """
        if self.archs is None:
            raise ConfigError("Networks have the numbers of HELP's arch.pt: give source.archs=HELP/data/fbnet/arch.pt.")
        records = read_csv(path, ["index", *SCORES], ARCHS)
        index = numbers(path, "index", records["index"]).astype(np.int64)
        if sorted(index.tolist()) != list(range(ARCHS)):
            raise TableError(f"{path} must have each index from 0 to {ARCHS - 1} once, but has not.")
        rows = read_archs(Path(self.archs))[index]
        values = {name: numbers(path, name, records[name]) for name in SCORES}
        columns = zero_cost_columns(SCORES)
        yield "zero_cost", self.table(rows, values, columns, [path, Path(self.archs)], NOTES)
