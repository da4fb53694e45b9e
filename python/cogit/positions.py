"""Which tokens of a sequence an intervention acts on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["all", "prompt", "generated", "range"]
_RANGE = re.compile(r"(\d{1,9})-(\d{1,9})?", re.ASCII)


@dataclass(frozen=True)
class Positions:
    """Token positions, counted from 0 in each sequence, padding not counted.

    ``prompt`` is every token of the prompt, ``generated`` every token after it, ``range`` the
    half-open [start, stop). The first token of a sequence collects attention from all others (an
    attention sink) and is left alone unless ``first_token`` is set.
    """

    kind: Kind = "all"
    start: int = 0
    stop: int | None = None
    first_token: bool = False

    def __post_init__(self) -> None:
        if self.kind not in {"all", "prompt", "generated", "range"}:
            message = (
                f"[positions] expected all, prompt, generated or a range such as 4-12, "
                f"got {self.kind!r}"
            )
            raise ValueError(message)
        given: tuple[object, ...] = (self.start, self.stop, self.first_token)
        kinds = (int, int | None, bool)
        if not all(isinstance(value, kind) for value, kind in zip(given, kinds, strict=True)):
            message = (
                f"[positions] expected whole numbers and a boolean first_token, got start "
                f"{self.start!r} stop {self.stop!r} first_token {self.first_token!r}"
            )
            raise TypeError(message)
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            message = (
                f"[positions] expected 0 <= start < stop, got start {self.start} stop {self.stop}"
            )
            raise ValueError(message)
        if self.kind == "range" and self.stop == 1 and not self.first_token:
            message = (
                "[positions] expected a range beyond the first token, got 0-1; set first_token to "
                "steer that one"
            )
            raise ValueError(message)

    @classmethod
    def parse(cls, text: str, *, first_token: bool = False) -> Positions:
        """Read ``all``, ``prompt``, ``generated``, ``4-12`` (half-open) or ``4-`` (to the end)."""
        match = _RANGE.fullmatch(text.strip())
        if match is None:
            return cls(text.strip(), first_token=first_token)  # type: ignore[arg-type]
        stop = None if match[2] is None else int(match[2])
        return cls("range", int(match[1]), stop, first_token=first_token)

    def window(self, n_prompt: int) -> tuple[int, int | None]:
        """The half-open window of positions, for a prompt of ``n_prompt`` tokens."""
        begin, end = {
            "all": (0, None),
            "prompt": (0, n_prompt),
            "generated": (n_prompt, None),
            "range": (self.start, self.stop),
        }[self.kind]
        return (begin if self.first_token else max(begin, 1)), end

    def __str__(self) -> str:
        stop = "" if self.stop is None else self.stop
        text = f"{self.start}-{stop}" if self.kind == "range" else self.kind
        return f"{text}, first token included" if self.first_token else text
