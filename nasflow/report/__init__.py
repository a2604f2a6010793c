"""Reports: one search, or several compared."""

from nasflow.report.comparison import write_comparison
from nasflow.report.differences import Compared
from nasflow.report.page import write_report

__all__ = ["Compared", "write_comparison", "write_report"]
