"""What a judge is: texts in, one signed score each out; the label is the sign of the score.

There is no second number beside the score, so a label and an average cannot contradict each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cogit.sampling import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Judge(Protocol):
    """Scores generated texts, without their prompts."""

    @property
    def name(self) -> str:
        """A short name for reports."""

    def scores(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        """(sample,) in [-1, 1]: above 0 the positive class, below 0 the negative, 0 undecided.

        A text without anything but white space scores 0.
        """

    def describe(self) -> dict[str, Any]:
        """What decides, as JSON: files' hashes, model, thresholds."""


def labels(scores: NDArray[np.float64]) -> NDArray[np.int8]:
    """+1, -1 or 0 for each score: its sign, and nothing else."""
    return np.asarray(np.sign(scores), dtype=np.int8)


def judged(
    name: str, samples: Sequence[Sample], score: Callable[[Sequence[int]], Sequence[float]]
) -> NDArray[np.float64]:
    """Scores of the samples: 0 for empty texts, those of ``score`` for the others.

    score: takes the indices of samples that hold text. Raises ValueError, naming the sample, for
    anything but one finite number in [-1, 1] each.
    """
    result = np.zeros(len(samples))
    kept = [i for i, sample in enumerate(samples) if sample.text.strip()]
    if not kept:
        return result
    found = score(kept)
    if len(found) != len(kept):
        message = f"[judge {name}] expected {len(kept)} scores, got {len(found)}"
        raise ValueError(message)
    for index, value in zip(kept, found, strict=True):
        result[index] = _checked(name, index, value)
    return result


class FunctionJudge:
    """A Python function of a text as a judge."""

    def __init__(self, name: str, function: Callable[[str], float]) -> None:
        """function: text to a number in [-1, 1]; it is not asked about empty texts."""
        self._name, self._function = name, function

    @property
    def name(self) -> str:
        return self._name

    def scores(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        return judged(
            self._name, samples, lambda kept: [self._function(samples[i].text) for i in kept]
        )

    def describe(self) -> dict[str, Any]:
        return {"name": self._name, "decides": "a Python function of the text"}


def _checked(name: str, index: int, value: object) -> float:
    # A NumPy number is one too; bool is a label without a side, and no score.
    if isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_):
        score = float(value)
        if math.isfinite(score) and -1 <= score <= 1:
            return score
    got = str(value)[:60]
    message = f"[judge {name}] expected a finite score in [-1, 1] for sample {index}, got {got!r}"
    raise ValueError(message)
