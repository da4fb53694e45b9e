"""The four errors of cogit's own; everything else is a ValueError, TypeError or OSError.

The command line turns any of them into one line and exit code 2.
"""

from __future__ import annotations


class ArtefactError(ValueError):
    """A file that cannot be used: truncated, foreign, of another version or another model."""


class BackendMissingError(RuntimeError):
    """A compiled part or an optional library is absent or of the wrong version."""


class InterventionError(ValueError):
    """A configured intervention that did not land where it was asked for, or changes nothing."""


class MemoryRefusedError(MemoryError):
    """What was asked for needs more memory than is free, and nobody said to go on."""
