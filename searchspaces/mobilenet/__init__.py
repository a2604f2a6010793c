"""The MobileNetV3 space of once-for-all networks."""

from searchspaces.mobilenet.space import MobileNet

__all__ = ["MobileNet"]
