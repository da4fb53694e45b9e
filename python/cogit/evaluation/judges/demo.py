"""The exact sentiment of texts in the words of the demo model's grammar."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cogit.demo.grammar import sentiment_words
from cogit.demo.lexicon import NEGATIVE, POSITIVE
from cogit.evaluation.judges.base import judged
from cogit.evaluation.judges.spec import JudgeSpec
from cogit.sampling import Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class DemoJudge:
    """(positive − negative) / (positive + negative) words; its sign is ``grammar.sentiment``."""

    name = "demo"

    @classmethod
    def from_spec(cls, spec: JudgeSpec) -> DemoJudge:
        spec.require_no_source()
        spec.require_options([])
        return cls()

    def scores(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        return judged(self.name, samples, lambda kept: [_score(samples[i].text) for i in kept])

    def describe(self) -> dict[str, Any]:
        words = "\n".join([*sorted(POSITIVE), "", *sorted(NEGATIVE)])
        return {
            "name": self.name,
            "decides": "polar words of the demo grammar, of which 'not' turns the next round",
            "lexicon_sha256": hashlib.sha256(words.encode()).hexdigest(),
        }


def _score(text: str) -> float:
    positive, negative = sentiment_words(text)
    return (positive - negative) / (positive + negative) if positive + negative else 0.0
