"""HW-NAS-Bench's costs of NAS-Bench-201 networks on six devices (arXiv 2103.10584).

The file's other part is a look-up table of the blocks of another space, to be summed up, and not a table of
architectures: it is left out.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from searchspaces.errors import TableError
from searchspaces.importing.pickles import read_pickle
from searchspaces.importing.reading import expecting
from searchspaces.importing.source import Source
from searchspaces.nb201.space import CELLS, NB201
from searchspaces.table import Column, Table

_EXPECTED = "HW-NAS-Bench's pickle, with the part 'nasbench201'"
_KINDS = {"latency": ("_ms", "ms"), "energy": ("_mj", "mJ"), "arithmetic_intensity": ("", "")}


class HwNasBench(Source):
    """HW-NAS-Bench's `HW-NAS-Bench-v1_0.pickle`."""

    space = NB201(scale="full")

    def tables(self, path: Path) -> Iterator[tuple[str, Table]]:
        """Yield `hw_nas_bench_DATASET` for each data set.

        Raises:
            TableError: If the file is damaged or has another structure, or a data set does not have all cells.
        """
        content = read_pickle(path, _EXPECTED)
        with expecting(path, _EXPECTED):
            for dataset, part in content["nasbench201"].items():
                configs = part["config"]
                configs = list(configs.values()) if isinstance(configs, dict) else configs
                rows = self.space.parse([config["arch_str"] for config in configs])
                figures = {name: figure for name, figure in part.items() if name != "config"}
                columns = [_describe(name) for name in figures]
                arrays = [np.array(figure, dtype=np.float64) for figure in figures.values()]
                values = {column.name: array for column, array in zip(columns, arrays, strict=True)}
                for name, value in values.items():
                    if len(rows) != CELLS or value.shape != (CELLS,):
                        raise TableError(
                            f"{path} must have {CELLS:,} cells and figures for each data set, but has {len(rows):,} "
                            f"cells and {value.shape} figures {name} for {dataset!r}."
                        )
                name = f"hw_nas_bench_{dataset.lower().replace('-', '_')}"
                yield name, self.table(rows, values, columns, [path])


def _describe(name: str) -> Column:
    kind = next((kind for kind in _KINDS if name.endswith(f"_{kind}")), None)
    if kind is None:
        raise ValueError(f"its figure {name!r} is none of {', '.join(_KINDS)}")
    suffix, unit = _KINDS[kind]
    device = name.removesuffix(f"_{kind}")
    where = f"device {device}, HW-NAS-Bench (arXiv 2103.10584)"
    return Column(f"{name}{suffix}", unit, "minimize" if unit else None, where)
