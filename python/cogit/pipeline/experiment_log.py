"""``EXPERIMENT_LOG.md``: an entry for each run that succeeded, never rewritten.

It lies beside the run folder unless another place is named. An entry is one write to a file that
is opened for appending, so that two runs at a time do not cut into each other.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cogit import __version__

FILE = "EXPERIMENT_LOG.md"
_HEAD = "# Experiment log\n\nOne entry for each run that succeeded; entries are only added.\n"


@dataclass(frozen=True)
class Entry:
    """What an entry says. config, metrics: names and values, in their order."""

    title: str
    run: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    seconds: float
    cost: str | None = None

    def text(self) -> str:
        """Markdown; line breaks within values would make other entries, so there are none."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        lines = [f"\n## {now} {_flat(self.title)}\n"]
        lines.append(f"- run: {_flat(self.run)}")
        lines.append(f"- commit: {commit()}")
        lines.append(f"- config: {_pairs(self.config)}")
        lines.append(f"- metrics: {_pairs(self.metrics)}")
        lines.append(f"- seconds: {self.seconds:.1f}")
        lines.append(f"- cost: {self.cost or 'no rate given'}")
        return "\n".join(lines) + "\n"


def append(path: Path, entry: Entry) -> None:
    """Add an entry; OSError where it cannot be written."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    try:
        head = _HEAD if os.fstat(handle).st_size == 0 else ""
        os.write(handle, (head + entry.text()).encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def commit(folder: Path | None = None) -> str:
    """The commit of the repository that is worked in, else cogit's version."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=folder or Path.cwd(),
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return f"none, cogit {__version__}"
    found = done.stdout.strip()
    return found if done.returncode == 0 and found else f"none, cogit {__version__}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_value(one)}" for key, one in values.items() if one is not None)


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _flat(str(value))


def _flat(text: str) -> str:
    return " ".join(text.split())
