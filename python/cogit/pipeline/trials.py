"""The trials of a study in SQLite: each finished one is on the disk before the next one begins."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogit.errors import ArtefactError
from cogit.pipeline.study_file import Trial

FILE = "study.sqlite"
_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS trials (
    key TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, name TEXT NOT NULL,
    changes TEXT NOT NULL, status TEXT NOT NULL, metrics TEXT NOT NULL DEFAULT '{}',
    error TEXT, seconds REAL
)
"""
STATUSES = ("waiting", "running", "done", "failed")


@dataclass(frozen=True)
class Row:
    """One trial. status: waiting, running (or interrupted while it ran), done or failed."""

    key: str
    number: int
    name: str
    changes: dict[str, Any]
    status: str
    metrics: dict[str, Any]
    error: str | None
    seconds: float | None

    @property
    def folder(self) -> str:
        """Of its run, below the study's."""
        return f"trial-{self.number:03d}"


class Trials:
    """The table of a study folder."""

    def __init__(self, folder: Path) -> None:
        """Opens or makes it; ArtefactError for a file that is no such table."""
        self._path = folder / FILE
        try:
            with self._open() as connection:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version not in (0, _VERSION):
                    message = f"expected version {_VERSION}, got {version}"
                    raise sqlite3.DatabaseError(message)
                connection.execute(_SCHEMA)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.DatabaseError as error:
            message = f"[study] expected the table of a study in {self._path}, got: {error}"
            raise ArtefactError(message) from error

    def add(self, trials: list[Trial]) -> None:
        """Those that are not there yet; nothing that is there is changed."""
        with self._open() as connection:
            for trial in trials:
                connection.execute(
                    "INSERT OR IGNORE INTO trials (key, number, name, changes, status) VALUES "
                    "(?, (SELECT COALESCE(MAX(number), 0) + 1 FROM trials), ?, ?, 'waiting')",
                    (trial.key, trial.name, json.dumps(dict(trial.changes))),
                )

    def rows(self) -> list[Row]:
        """All of them, by number."""
        with self._open() as connection:
            found = connection.execute(
                "SELECT key, number, name, changes, status, metrics, error, seconds FROM trials "
                "ORDER BY number"
            ).fetchall()
        return [
            Row(k, n, m, json.loads(c), s, json.loads(v), e, t) for k, n, m, c, s, v, e, t in found
        ]

    def mark(
        self,
        key: str,
        status: str,
        metrics: Mapping[str, Any] | None = None,
        error: str | None = None,
        seconds: float | None = None,
    ) -> None:
        """Set a trial's status and what is known of it."""
        if status not in STATUSES:
            message = f"[study] expected a status among {', '.join(STATUSES)}, got {status!r}"
            raise ValueError(message)
        with self._open() as connection:
            connection.execute(
                "UPDATE trials SET status = ?, metrics = ?, error = ?, seconds = ? WHERE key = ?",
                (status, json.dumps(dict(metrics or {})), error, seconds, key),
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction, on the disk when the block ends well."""
        with closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
            connection.execute("PRAGMA synchronous = FULL")
            yield connection
