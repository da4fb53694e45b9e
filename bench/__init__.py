"""Benchmarks: each module prints a table and writes rows of one JSON format."""

from __future__ import annotations
