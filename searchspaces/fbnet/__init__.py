"""FBNet."""

from searchspaces.fbnet.space import FBNet

__all__ = ["FBNet"]
