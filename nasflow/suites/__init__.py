"""Evaluation suites of `nasflow bench`."""

from nasflow.suites.base import Cell, Row, Suite, cells
from nasflow.suites.build_throughput import BuildThroughput

__all__ = ["BuildThroughput", "Cell", "Row", "Suite", "cells"]
