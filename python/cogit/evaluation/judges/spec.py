"""The text form of a judge: ``kind``, ``kind:source``, each with ``?option=value&...``."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

_MAX_SPEC = 2**14


@dataclass(frozen=True)
class JudgeSpec:
    """kind: which judge. source: what stands between the colon and the question mark."""

    kind: str
    source: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> JudgeSpec:
        """ValueError for options that are malformed or named twice.

        Options are percent-encoded as in an address: ``+`` or ``%20`` for a space, ``%26`` for an
        ampersand.
        """
        if len(text) > _MAX_SPEC:
            message = f"[judge] expected at most {_MAX_SPEC} characters, got {len(text)}"
            raise ValueError(message)
        head, mark, query = text.partition("?")
        kind, _, source = head.partition(":")
        options: dict[str, str] = {}
        try:
            pairs = parse_qsl(query, strict_parsing=True, keep_blank_values=True) if mark else []
        except ValueError as error:
            message = f"[judge] expected option=value&... after ?, got {query[:60]!r}"
            raise ValueError(message) from error
        for name, value in pairs:
            if name in options:
                message = f"[judge] expected each option once, got {name} twice"
                raise ValueError(message)
            options[name] = value
        return cls(kind, source, options)

    def require_options(self, known: Collection[str]) -> None:
        """ValueError for an option that is not among the known ones."""
        for name in self.options:
            if name not in known:
                listed = ", ".join(known) or "none"
                message = f"[judge {self.kind}] expected options among {listed}, got {name!r}"
                raise ValueError(message)

    def require_source(self, what: str) -> str:
        """The source; ValueError without one. what: in words, such as "a file"."""
        if not self.source:
            message = f"[judge {self.kind}] expected {self.kind}:{what}, got no {what.lower()}"
            raise ValueError(message)
        return self.source

    def require_no_source(self) -> None:
        if self.source:
            message = f"[judge {self.kind}] expected nothing after it, got {self.source[:60]!r}"
            raise ValueError(message)

    def number(self, name: str, default: float) -> float:
        """An option that is a finite number; ValueError otherwise."""
        text = self.options.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            message = f"[judge {self.kind}] expected a number for {name}, got {text[:60]!r}"
            raise ValueError(message)
        return value

    def whole(self, name: str, default: int) -> int:
        """An option that is a whole number; ValueError otherwise."""
        value = self.number(name, default)
        if value != int(value):
            message = f"[judge {self.kind}] expected a whole number for {name}, got {value}"
            raise ValueError(message)
        return int(value)

    def words(self, name: str) -> tuple[str, ...]:
        """An option that is a list of words with commas between; none by default."""
        return tuple(word.strip() for word in self.options.get(name, "").split(",") if word.strip())


def judge_place(text: str | None) -> Path | None:
    """The file or folder that a judge reads, where its source is one that is there."""
    spec = JudgeSpec.parse(text or "")
    if spec.kind not in ("lexicon", "classifier") or not spec.source:
        return None
    place = Path(spec.source).expanduser()
    return place if place.exists() else None
