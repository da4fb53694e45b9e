"""VADER: a lexicon of valences with rules for negation, degree and emphasis, offline.

Hutto & Gilbert 2014. Its compound score is the sum of valences s as s/√(s² + 15).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.errors import BackendMissingError
from cogit.evaluation.judges.base import judged
from cogit.evaluation.judges.spec import JudgeSpec
from cogit.sampling import Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEUTRAL = 0.05  # the authors' own threshold


class VaderJudge:
    """The compound score of VADER; 0 within ``threshold`` of neutral."""

    name = "vader"

    def __init__(self, threshold: float = NEUTRAL) -> None:
        """BackendMissingError without the package, ValueError for a threshold outside [0, 1)."""
        if not 0 <= threshold < 1:
            message = f"[judge vader] expected a threshold in [0, 1), got {threshold}"
            raise ValueError(message)
        try:
            from vaderSentiment import vaderSentiment
        except ImportError as error:
            message = "[judge vader] expected the package vaderSentiment, got none; install it"
            raise BackendMissingError(message) from error
        self._analyzer = vaderSentiment.SentimentIntensityAnalyzer()
        self._folder = Path(str(vaderSentiment.__file__)).parent
        self._threshold = threshold

    @classmethod
    def from_spec(cls, spec: JudgeSpec) -> VaderJudge:
        spec.require_no_source()
        spec.require_options(["threshold"])
        return cls(spec.number("threshold", NEUTRAL))

    def scores(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        return judged(self.name, samples, lambda kept: [self._score(samples[i].text) for i in kept])

    def describe(self) -> dict[str, Any]:
        lexicon = (self._folder / "vader_lexicon.txt").read_bytes()
        return {
            "name": self.name,
            "decides": "VADER's compound score of the continuation",
            "version": metadata.version("vaderSentiment"),
            "lexicon_sha256": hashlib.sha256(lexicon).hexdigest(),
            "threshold": self._threshold,
        }

    def _score(self, text: str) -> float:
        compound = float(self._analyzer.polarity_scores(text)["compound"])
        return compound if abs(compound) >= self._threshold else 0.0
