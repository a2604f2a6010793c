"""Evaluation suites of `nasflow bench`."""

from nasflow.suites.accuracy_few_shot import AccuracyFewShot, Learnable
from nasflow.suites.base import Cell, Comparison, Row, Suite, UnavailableError, cells
from nasflow.suites.build_throughput import BuildThroughput
from nasflow.suites.latency_few_shot import DeviceTask, LatencyFewShot
from nasflow.suites.measurement import Measured, MeasurementSuite
from nasflow.suites.proxy_correlation import ProxyCorrelation, Ranked
from nasflow.suites.proxy_throughput import ProxyThroughput
from nasflow.suites.search import Benchmark, SearchComparison

__all__ = [
    "AccuracyFewShot",
    "Benchmark",
    "BuildThroughput",
    "Cell",
    "Comparison",
    "DeviceTask",
    "LatencyFewShot",
    "Learnable",
    "Measured",
    "MeasurementSuite",
    "ProxyCorrelation",
    "ProxyThroughput",
    "Ranked",
    "Row",
    "SearchComparison",
    "Suite",
    "UnavailableError",
    "cells",
]
