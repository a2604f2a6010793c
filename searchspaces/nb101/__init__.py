"""NAS-Bench-101."""

from searchspaces.nb101.classes import enumerate_classes
from searchspaces.nb101.space import NB101

__all__ = ["NB101", "enumerate_classes"]
