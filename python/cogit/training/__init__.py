"""Learning operators by gradients."""

from __future__ import annotations
