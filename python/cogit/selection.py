"""Which tokens of a text are recorded: the last, the mean of the last few, the answer, or all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

Kind = Literal["last", "tail", "answer", "all", "after-first"]
_TAIL = re.compile(r"tail-(\d{1,6})", re.ASCII)


@dataclass(frozen=True)
class Selection:
    """Tokens of a text, counted without padding.

    kind: ``last`` token, mean of the last ``tail`` tokens, mean of the ``answer`` (what follows a
    pair's prompt), ``all`` tokens one by one, or all but the first (``after-first``). The first
    token is an attention sink with a norm of its own: only ``all`` takes it.
    """

    kind: Kind = "tail"
    tail: int = 4

    def __post_init__(self) -> None:
        if self.tail < 1:
            message = f"[record] expected tail >= 1, got {self.tail}"
            raise ValueError(message)

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Read ``last``, ``tail-4``, ``answer``, ``all`` or ``after-first``; else ValueError."""
        if text in get_args(Kind) and text != "tail":
            return cls(cast("Kind", text))
        if (match := _TAIL.fullmatch(text)) and int(match[1]):
            return cls("tail", int(match[1]))
        message = (
            f"[select] expected last, tail-K (mean of the last K), answer, all or after-first, "
            f"got {text!r}"
        )
        raise ValueError(message)

    @property
    def averages(self) -> bool:
        """True where a text gives one row; else it gives one for each token."""
        return self.kind in ("last", "tail", "answer")

    def span(self, n_tokens: int, n_prompt: int) -> tuple[int, int]:
        """The half-open range of tokens to take; it is empty where a text is too short.

        n_prompt: how many leading tokens are the pair's prompt.
        """
        if self.kind == "all":
            return 0, n_tokens
        first = {
            "last": n_tokens - 1,
            "tail": n_tokens - self.tail,
            "answer": n_prompt,
            "after-first": 1,
        }[self.kind]
        return max(1, first), n_tokens

    def __str__(self) -> str:
        return f"tail-{self.tail}" if self.kind == "tail" else self.kind
