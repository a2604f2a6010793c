"""Latency files of HELP (arXiv 2106.08630): one list of figures a device, written by torch."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import TableError
from searchspaces.importing.reading import expecting, read_torch
from searchspaces.table import Column


def read_latencies(folder: Path, rows: int) -> tuple[dict[str, NDArray[np.float64]], list[Column], list[Path]]:
    """Read all devices of a folder.

    Args:
        folder: Folder with one `DEVICE.pt` for each device.
        rows: Number of architectures.

    Returns:
        Latencies in ms by column, each of shape `(rows,)`, descriptions of the columns, and the files.

    Raises:
        TableError: If there are no such files, or one of them does not hold `rows` positive numbers.
    """
    expected = f"a list of {rows:,} latencies in ms, saved by torch"
    paths = sorted(folder.glob("*.pt"))
    if not paths:
        raise TableError(f"{folder} has no files DEVICE.pt, each {expected}. Check the path.")
    values, columns = {}, []
    for path in paths:
        with expecting(path, expected):
            latencies = np.array(read_torch(path, expected), dtype=np.float64)
        if latencies.shape != (rows,) or not (np.isfinite(latencies) & (latencies > 0)).all():
            raise TableError(
                f"{path} must be {expected}, but holds {latencies.shape} numbers, {np.sum(~(latencies > 0))} of them "
                "not positive: it is truncated or of another space."
            )
        name = f"{path.stem}_latency_ms"
        values[name] = latencies
        columns.append(Column(name, "ms", "minimize", f"device {path.stem}, HELP (arXiv 2106.08630)"))
    return values, columns, paths
