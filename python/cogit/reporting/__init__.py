"""Reports of evaluations, from their JSON alone: Markdown, one HTML page, plots.

``load_report`` and ``check_report`` read, ``write_report`` writes, ``write_comparison`` puts
several side by side. ``docs/report.md`` describes the format.
"""

from __future__ import annotations

from cogit.reporting.load import check_report, load_report
from cogit.reporting.schema import EvaluationReport
from cogit.reporting.write import write_comparison, write_report

__all__ = ["EvaluationReport", "check_report", "load_report", "write_comparison", "write_report"]
