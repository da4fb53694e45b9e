"""The material of an evaluation, in parts that share no text (row Q53)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cogit.prompts import normalised, require_disjoint

SIGNS = (1, -1)


@dataclass(frozen=True)
class Suite:
    """Held-out material.

    prompts: open ones, for the effect. neutral_prompts: continued and judged, for the drift.
    neutral_texts: for the KL and the capability. calibration_prompts, calibration_texts: for
    matching strengths and nothing else. opposite: for each target sign, prompts whose context says
    the contrary. instructions: for each target sign, what stands before each prompt in the
    prompt-only arms; a newline or a space at its end is kept, else a space is put in.

    Raises ValueError for an empty text, one that stands in two parts or twice in one, a part that
    must not be empty, and ``opposite`` or ``instructions`` for one sign alone.
    """

    prompts: tuple[str, ...]
    neutral_prompts: tuple[str, ...]
    neutral_texts: tuple[str, ...]
    calibration_prompts: tuple[str, ...]
    calibration_texts: tuple[str, ...]
    opposite: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    instructions: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            texts = tuple(getattr(self, name))
            object.__setattr__(self, name, texts)
            if len(texts) < least:
                message = f"[suite] expected at least {least} {_words(name)}, got {len(texts)}"
                raise ValueError(message)
        opposite = {sign: tuple(texts) for sign, texts in self.opposite.items()}
        object.__setattr__(self, "opposite", opposite)
        for name in ("opposite", "instructions"):
            given = getattr(self, name)
            if given and (set(given) != set(SIGNS) or not all(given.values())):
                message = (
                    f"[suite] expected {name} for both signs, 1 and -1, or none, got "
                    f"{sorted(sign for sign, value in given.items() if value)}"
                )
                raise ValueError(message)
        if len({len(texts) for texts in opposite.values()}) > 1:
            message = "[suite] expected as many opposite prompts for 1 as for -1, got other numbers"
            raise ValueError(message)
        for name, texts in self.parts().items():
            _require_distinct(name, texts)
        require_disjoint(self.parts())

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Every part by name, those of ``opposite`` with their sign."""
        found = {_words(name): getattr(self, name) for name in _LEAST}
        return found | {f"opposite {sign:+d}": texts for sign, texts in self.opposite.items()}

    def require_unseen(self, training: Iterable[str]) -> None:
        """ValueError where a text of any part was trained on."""
        require_disjoint({**self.parts(), "training": tuple(dict.fromkeys(training))})

    def limited(self, n_prompts: int | None) -> Suite:
        """At most the first ``n_prompts`` prompts, and so many of each other part of prompts."""
        if n_prompts is None:
            return self
        return replace(
            self,
            prompts=self.prompts[:n_prompts],
            neutral_prompts=self.neutral_prompts[:n_prompts],
            opposite={sign: texts[:n_prompts] for sign, texts in self.opposite.items()},
        )

    def sizes(self) -> dict[str, Any]:
        """How many texts each part has."""
        return {name: len(texts) for name, texts in self.parts().items()}


_LEAST = {
    "prompts": 2,
    "neutral_prompts": 0,
    "neutral_texts": 1,
    "calibration_prompts": 0,
    "calibration_texts": 1,
}


def _words(name: str) -> str:
    return name.replace("_", " ")


def _require_distinct(name: str, texts: tuple[str, ...]) -> None:
    """A prompt given twice is no second piece of evidence."""
    seen: set[str] = set()
    for text in texts:
        key = normalised(text) if isinstance(text, str) else ""
        if not key:
            message = f"[suite] expected texts that are not empty, got {text!r} in {name}"
            raise ValueError(message)
        if key in seen:
            message = f"[suite] expected every text once, got {text[:60]!r} twice in {name}"
            raise ValueError(message)
        seen.add(key)
