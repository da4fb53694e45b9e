"""The pipeline: record, fit, generate, evaluate and reverse, each behind a gate with controls."""

from __future__ import annotations
