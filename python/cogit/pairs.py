"""Contrast pairs: two texts that differ in the one thing to be steered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cogit.pair_sources import read_rows


@dataclass(frozen=True)
class ContrastPair:
    """Two matched texts, one of each class; continuations of ``prompt`` where there is one."""

    positive: str
    negative: str
    prompt: str = ""

    def __post_init__(self) -> None:
        texts: tuple[object, ...] = (self.positive, self.negative)
        if not all(isinstance(text, str) for text in texts):
            message = f"[pairs] expected two texts, got {self.positive!r} and {self.negative!r}"
            raise TypeError(message)
        prompt: object = self.prompt
        if not isinstance(prompt, str):
            message = f"[pairs] expected a text as prompt, got {prompt!r}"
            raise TypeError(message)
        if not self.positive.strip() or not self.negative.strip():
            message = "[pairs] expected two texts, got an empty one"
            raise ValueError(message)
        if self.positive == self.negative:
            message = f"[pairs] expected two different texts, got {self.positive!r} twice"
            raise ValueError(message)

    @property
    def texts(self) -> tuple[str, str]:
        """What a model reads: the prompt with either continuation."""
        return self.prompt + self.positive, self.prompt + self.negative


def load_pairs(source: str | Path | Mapping[str, object]) -> list[ContrastPair]:
    """Read contrast pairs from a user's own data.

    - a JSONL file, one ``{"positive": …, "negative": …}`` a line, or ``chosen`` and ``rejected``,
      with an optional ``prompt`` that both continue;
    - a CSV file (``.csv``) with these columns;
    - two text files matched by line, as ``positive.txt,negative.txt``;
    - a data set, through the optional package ``datasets``: a mapping of ``dataset`` (hub id or
      local folder) and optionally ``config``, ``split``, ``positive``, ``negative`` and ``prompt``
      (columns) and ``streaming``, or the same as one string:
      ``dataset:NAME?split=train[:100]&positive=chosen&negative=rejected``.

    Raises FileNotFoundError, BackendMissingError where ``datasets`` is not installed, or ValueError
    naming the file and the line.
    """
    pairs = []
    for row in read_rows(source):
        try:
            pairs.append(ContrastPair(row.positive, row.negative, row.prompt))
        except (ValueError, TypeError) as error:
            reason = str(error).removeprefix("[pairs] ")
            message = (
                f'[pairs] expected {{"positive": …, "negative": …}} in {row.where}, '
                f"got {row.excerpt!r} ({reason})"
            )
            raise ValueError(message) from error
    name = source.get("dataset", "the data set") if isinstance(source, Mapping) else source
    return require_pairs(pairs, str(name))


def require_pairs(pairs: Sequence[ContrastPair], source: str = "the list") -> list[ContrastPair]:
    """At least two pairs, or ValueError: one pair spans no contrast that could be estimated."""
    if len(pairs) < 2:
        message = f"[pairs] expected at least 2 contrast pairs in {source}, got {len(pairs)}"
        raise ValueError(message)
    return list(pairs)
