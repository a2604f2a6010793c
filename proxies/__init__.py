"""What a network tells before it is trained: zero-cost proxies, and the engine that scores architectures by them."""

from proxies.base import Need, Proxy
from proxies.engine import score
from proxies.gradients import Fisher, GradNorm, Grasp, Plain, Snip
from proxies.jacobian import EpeNas, Jacov
from proxies.nwot import Nwot
from proxies.probe import Probe
from proxies.size import Flops, Macs, Params
from proxies.synflow import SynFlow
from proxies.vote import VOTERS, vote
from proxies.weights import L2Norm, uniform_weights
from proxies.zen import Zen

__all__ = [
    "VOTERS",
    "EpeNas",
    "Fisher",
    "Flops",
    "GradNorm",
    "Grasp",
    "Jacov",
    "L2Norm",
    "Macs",
    "Need",
    "Nwot",
    "Params",
    "Plain",
    "Probe",
    "Proxy",
    "Snip",
    "SynFlow",
    "Zen",
    "score",
    "uniform_weights",
    "vote",
]
