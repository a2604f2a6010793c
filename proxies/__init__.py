"""What a network tells before it is trained: zero-cost proxies, and the engine that scores architectures by them."""

from proxies.base import Need, Proxy
from proxies.engine import score
from proxies.gradients import GradNorm, Snip
from proxies.nwot import Nwot
from proxies.probe import Probe
from proxies.size import Macs, Params
from proxies.synflow import SynFlow

__all__ = ["GradNorm", "Macs", "Need", "Nwot", "Params", "Probe", "Proxy", "Snip", "SynFlow", "score"]
