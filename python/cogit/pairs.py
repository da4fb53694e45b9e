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
        texts: tuple[object, ...] = (self.positive, self.negative)
        if not all(isinstance(text, str) for text in texts):
            message = f"[pairs] expected two texts, got {self.positive!r} and {self.negative!r}"
            raise TypeError(message)
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
    try:
        with source.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if number > _MAX_PAIRS:
                    message = f"[pairs] expected at most {_MAX_PAIRS} lines in {source}"
                    raise ValueError(message)
                if line.strip():
                    pairs.append(_read_line(line, f"{source}:{number}"))
    except UnicodeDecodeError as error:
        message = f"[pairs] expected UTF-8 text in {source}, got {error.reason}"
        raise ValueError(message) from error
    return require_pairs(pairs, str(source))


def _read_line(line: str, where: str) -> ContrastPair:
    try:
        row = json.loads(line)
        return ContrastPair(row["positive"], row["negative"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = (
            f'[pairs] expected {{"positive": …, "negative": …}} in {where}, '
            f"got {line.strip()[:80]!r} ({error})"
        )
        raise ValueError(message) from error


def require_pairs(pairs: Sequence[ContrastPair], source: str = "the list") -> list[ContrastPair]:
    """At least two pairs, or ValueError: one pair spans no contrast that could be estimated."""
    if len(pairs) < 2:
        message = f"[pairs] expected at least 2 contrast pairs in {source}, got {len(pairs)}"
        raise ValueError(message)
    return list(pairs)
