"""The command lines ``cogit`` and ``cogit-infer``; one file a subcommand, frameworks load late."""

from __future__ import annotations
