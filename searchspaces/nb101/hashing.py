"""The module hash of NAS-Bench-101, by which its published tables name cells (arXiv 1902.09635)."""

from hashlib import md5

from searchspaces.genes import Rows
from searchspaces.nb101.cells import INNER, VERTICES, adjacency, prune

_INPUT_LABEL, _OUTPUT_LABEL = -1, -2


def module_hashes(rows: Rows) -> list[str]:
    """Return the published hash of each row's pruned cell: equal for isomorphic cells.

    Vertices start from a digest of their out-degree, in-degree and operation, take in their neighbours' digests as
    many times as the cell has vertices, and the sorted digests make the hash.
    """
    pruned = prune(rows)
    operations = pruned[:, -INNER:].tolist()
    return [
        _module_hash(matrix, [_INPUT_LABEL, *labels, _OUTPUT_LABEL])
        for matrix, labels in zip(adjacency(pruned).tolist(), operations, strict=True)
    ]


def _module_hash(matrix: list[list[bool]], labels: list[int]) -> str:
    targets = {v: [w for w in range(VERTICES) if matrix[v][w]] for v in range(VERTICES)}
    sources = {v: [w for w in range(VERTICES) if matrix[w][v]] for v in range(VERTICES)}
    live = [v for v in range(VERTICES) if targets[v] or sources[v]]
    digests = {v: _digest(str((len(targets[v]), len(sources[v]), labels[v]))) for v in live}
    for _ in live:
        digests = {
            v: _digest(
                "".join(sorted(digests[w] for w in sources[v]))
                + "|"
                + "".join(sorted(digests[w] for w in targets[v]))
                + "|"
                + digests[v]
            )
            for v in live
        }
    return _digest(str(sorted(digests.values())))


def _digest(text: str) -> str:
    return md5(text.encode(), usedforsecurity=False).hexdigest()
