"""Contrast pairs: two texts that differ in the one thing to be steered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_MAX_PAIRS = 1_000_000


@dataclass(frozen=True)
class ContrastPair:
    """Two matched texts, one of each class."""

    positive: str
    negative: str

    def __post_init__(self) -> None:
        if not self.positive.strip() or not self.negative.strip():
            message = "[pairs] expected two texts, got an empty one"
            raise ValueError(message)
        if self.positive == self.negative:
            message = f"[pairs] expected two different texts, got {self.positive!r} twice"
            raise ValueError(message)


def load_pairs(path: str | Path) -> list[ContrastPair]:
    """Read contrast pairs from a JSONL file, one ``{"positive": …, "negative": …}`` a line.

    Raises FileNotFoundError, or ValueError naming the file and the line.
    """
    source = Path(path)
    pairs: list[ContrastPair] = []
    with source.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            if number > _MAX_PAIRS:
                message = f"[pairs] expected at most {_MAX_PAIRS} lines in {source}"
                raise ValueError(message)
            try:
                row = json.loads(line)
                pairs.append(ContrastPair(str(row["positive"]), str(row["negative"])))
            except (ValueError, KeyError, TypeError) as error:
                message = (
                    f'[pairs] expected {{"positive": …, "negative": …}} in {source}:{number}, '
                    f"got {line.strip()[:80]!r} ({error})"
                )
                raise ValueError(message) from error
    return require_pairs(pairs, str(source))


def require_pairs(pairs: Sequence[ContrastPair], source: str = "the list") -> list[ContrastPair]:
    """At least two pairs, or ValueError: one pair spans no contrast that could be estimated."""
    if len(pairs) < 2:
        message = f"[pairs] expected at least 2 contrast pairs in {source}, got {len(pairs)}"
        raise ValueError(message)
    return list(pairs)
