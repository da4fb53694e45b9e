"""Judges of generated text as plug-ins: each gives one signed score in [-1, 1]."""

from __future__ import annotations

from cogit.evaluation.judges.base import FunctionJudge, Judge, labels
from cogit.evaluation.judges.registry import make_judge, register_judge
from cogit.evaluation.judges.spec import JudgeSpec

__all__ = ["FunctionJudge", "Judge", "JudgeSpec", "labels", "make_judge", "register_judge"]
