"""Fingerprints of phases: what a result was made from, in eight hexadecimal digits.

Each phase's fingerprint is the start of the SHA-256 of everything that decides its results, the
fingerprint of the phase before it included. A result is used again only under the same one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LENGTH = 8


@dataclass(frozen=True)
class Lineage:
    """fields: JSON values that decide a phase's results. before: the phase before, or None."""

    phase: str
    fields: Mapping[str, Any]
    before: str | None = None

    @property
    def fingerprint(self) -> str:
        """The first eight digits of the SHA-256 over name, fields and predecessor."""
        return fingerprint(self.to_json())

    def to_json(self) -> dict[str, Any]:
        return {"phase": self.phase, "before": self.before, "fields": dict(self.fields)}

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Which fields differ from those of a stored lineage, as words for people."""
        theirs: Mapping[str, Any] = other.get("fields", {})
        names = sorted({*self.fields, *theirs})
        # Through JSON, as the stored ones went: a tuple there is a list.
        mine = json.loads(json.dumps(dict(self.fields)))
        return [
            f"{name} {_short(theirs.get(name))} then, {_short(mine.get(name))} now"
            for name in names
            if theirs.get(name) != mine.get(name)
        ]


def fingerprint(data: Mapping[str, Any]) -> str:
    """Eight digits of the SHA-256 of canonical JSON; ValueError for NaN or infinity."""
    text = json.dumps(data, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def texts_hash(*parts: Sequence[Sequence[str]] | Sequence[str]) -> str:
    """SHA-256 of texts in their order, whatever file they came from."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:20]}…"
