"""NAS-Bench-201."""

from searchspaces.nb201.space import NB201

__all__ = ["NB201"]
