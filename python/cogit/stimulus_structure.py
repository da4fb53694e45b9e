"""How well the form of a text alone tells its class: words counted, not read.

A contrast that a classifier finds without reading the words is one of form, and a direction that is
fitted on it steers form.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.float64]

FOLDS, REPEATS = 5, 20
# First words that so many texts share count as a feature each, at most MAX_FIRST of them.
MIN_FIRST, MAX_FIRST = 4, 12
_SHRINKAGE = 0.1
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_COUNTED = (",", ";", ":", "?", "!", ".", "…", "-", "–", "—", '"', "“", "(", "\n")


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return [word.casefold() for word in _WORD.findall(text)]


def first_word(text: str) -> str:
    """The first word in lower case, or the empty string where there is none."""
    match = _WORD.search(text)
    return match[0].casefold() if match else ""


def structure(texts: Sequence[str]) -> Rows:
    """Features (text, feature) of form alone: length, marks, capitals, digits, first words."""
    counts = Counter(first_word(text) for text in texts)
    firsts = [word for word, n in counts.most_common(MAX_FIRST) if n >= MIN_FIRST]
    return np.array([_features(text, firsts) for text in texts], dtype=np.float64)


def _features(text: str, firsts: Sequence[str]) -> list[float]:
    found = _WORD.findall(text)
    letters = sum(map(len, found))
    stripped = text.rstrip()
    return [
        float(len(found)),
        float(len(text)),
        letters / max(1, len(found)),
        float(sum(word[0].isupper() for word in found[1:])),
        float(sum(word.isupper() and len(word) > 1 for word in found)),
        float(bool(found) and found[0][0].isupper()),
        float(sum(character.isdigit() for character in text)),
        float(stripped.endswith((".", "!", "?", "…"))),
        float(len(text) - len(text.strip())),
        *(float(text.count(mark)) for mark in _COUNTED),
        *(float(first_word(text) == word) for word in firsts),
    ]


def structural_accuracy(
    positive: Sequence[str], negative: Sequence[str], *, matched: bool, seed: int = 0
) -> float:
    """Held-out accuracy of a linear discriminant on ``structure``, the mean of both classes'.

    FOLDS-fold cross-validation, REPEATS times over, folds drawn by seed; a tie counts one half, so
    that equal forms give 0.5 exactly. matched: text i of either class is one pair, which stays in
    one fold. The discriminant is Fisher's, on features scaled by the training folds, with the
    covariance shrunk towards the identity (Friedman 1989).

    Raises ValueError for matched classes of different sizes, or fewer than FOLDS texts in one.
    """
    n_positive, n_negative = len(positive), len(negative)
    if min(n_positive, n_negative) < FOLDS or (matched and n_positive != n_negative):
        message = (
            f"[stimuli] expected at least {FOLDS} texts a class, as many in both where matched, "
            f"got {n_positive} and {n_negative}"
        )
        raise ValueError(message)
    rows = structure([*positive, *negative])
    labels = np.repeat([1.0, -1.0], [n_positive, n_negative])
    rng = np.random.default_rng(seed)
    right = np.zeros(len(labels))
    for _ in range(REPEATS):
        first = rng.permutation(n_positive) % FOLDS
        second = first if matched else rng.permutation(n_negative) % FOLDS
        fold = np.concatenate([first, second])
        for number in range(FOLDS):
            held = fold == number
            scores = _scores(rows[~held], labels[~held], rows[held])
            right[held] += 0.5 + 0.5 * np.sign(scores) * labels[held]
    right /= REPEATS
    return float((right[labels > 0].mean() + right[labels < 0].mean()) / 2)


def _scores(rows: Rows, labels: NDArray[Any], others: Rows) -> Rows:
    """Above zero for the first class, below for the second, zero for a tie."""
    centre, scale = rows.mean(axis=0), rows.std(axis=0)
    used = scale > 0
    if not used.any():
        return np.zeros(len(others))
    rows = (rows[:, used] - centre[used]) / scale[used]
    others = (others[:, used] - centre[used]) / scale[used]
    one, other = rows[labels > 0], rows[labels < 0]
    means = one.mean(axis=0), other.mean(axis=0)
    within = np.concatenate([one - means[0], other - means[1]])
    covariance = (1 - _SHRINKAGE) * within.T @ within / len(within)
    covariance += _SHRINKAGE * np.eye(len(covariance))
    weights = np.linalg.solve(covariance, means[0] - means[1])
    scores: Rows = (others - (means[0] + means[1]) / 2) @ weights
    scores[np.abs(scores) < 1e-9] = 0.0  # rounding of classes without any difference
    return scores
