"""Do two classes of texts differ in what they say, and in nothing else? Checks before any fit.

Limits are those of the source systems' protocol. What each number is:

- counts: how many texts one class has more than the other, at most 5;
- length: difference of the mean numbers of words, below 1;
- first words: the largest difference between the classes in the share of texts that begin with one
  word, below 15 %;
- explicit words: share of texts, in the class with more of them, that hold a word of the list of
  those that name the concept outright, below 30 %;
- structure: how far above chance the form alone tells the class (``structural_accuracy`` − 0.5;
  below .05 passes, below .10 is a warning);
- duplicates: share of texts of a class that it holds already, but for case and spaces (none passes,
  below 5 % is a warning, since pairs may share a text);
- overlap: texts that are in both classes, none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cogit.prompts import normalised
from cogit.stimulus_structure import first_word, structural_accuracy, words
from cogit.text_files import read_lines

MAX_COUNT_DIFFERENCE = 5
MAX_LENGTH_DIFFERENCE = 1.0
MAX_FIRST_WORD = 0.15
MAX_EXPLICIT = 0.30
WARN_STRUCTURE, MAX_STRUCTURE = 0.05, 0.10
MAX_DUPLICATES = 0.05
MIN_VALENCE = 2.0
# Below this, held-out accuracy says little: its standard error is 0.11 with 10 + 10 texts.
MIN_TEXTS = 10
PASS, WARN, FAIL = "pass", "warning", "fail"


@dataclass(frozen=True)
class Check:
    """One number beside its limit. status: ``pass``, ``warning`` or ``fail``."""

    name: str
    status: str
    found: float | None
    limit: float
    note: str = ""


@dataclass(frozen=True)
class StimulusReport:
    """What was checked; it holds where no check failed."""

    n_positive: int
    n_negative: int
    explicit: str
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        return all(check.status != FAIL for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": "cogit stimulus checks",
            "format_version": 1,
            "n_positive": self.n_positive,
            "n_negative": self.n_negative,
            "explicit_words": self.explicit,
            "holds": self.holds,
            "checks": [asdict(check) for check in self.checks],
        }


@dataclass(frozen=True)
class ExplicitWords:
    """Words in lower case that name the concept outright, and where they are from."""

    words: frozenset[str]
    origin: str

    @classmethod
    def vader(cls) -> ExplicitWords:
        """Of sentiment: VADER's words of absolute valence 2 and more (Hutto and Gilbert 2014)."""
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        lexicon = SentimentIntensityAnalyzer().lexicon
        found = {
            word
            for word, valence in lexicon.items()
            if abs(valence) >= MIN_VALENCE and word.isalpha() and len(word) > 1
        }
        origin = (
            f"{len(found)} words of VADER's lexicon, of absolute valence {MIN_VALENCE:g} or more"
        )
        return cls(frozenset(found), origin)

    @classmethod
    def read(cls, path: Path) -> ExplicitWords:
        """A word a line; ValueError for a line with more than one."""
        found: set[str] = set()
        for line in read_lines(path, "explicit", "a word"):
            split = words(line)
            if len(split) != 1:
                message = (
                    f"[explicit] expected one word a line in {path}, got {line.strip()[:80]!r}"
                )
                raise ValueError(message)
            found.add(split[0])
        return cls(frozenset(found), f"{len(found)} words of {path}")


def check_stimuli(
    positive: Sequence[str],
    negative: Sequence[str],
    *,
    explicit: ExplicitWords | None = None,
    matched: bool = False,
    seed: int = 0,
) -> StimulusReport:
    """Run every check of this module on two classes of texts.

    explicit: by default VADER's, which are words of sentiment; give your own for another concept.
    matched: text i of either class is one pair. seed: draws the folds of the structural check.
    Raises ValueError for an empty class, or matched classes of different sizes.
    """
    if not positive or not negative or (matched and len(positive) != len(negative)):
        message = (
            f"[stimuli] expected texts in both classes, as many in both where matched, got "
            f"{len(positive)} and {len(negative)}"
        )
        raise ValueError(message)
    explicit = explicit or ExplicitWords.vader()
    both = positive, negative
    checks = (
        _counts(*both),
        _lengths(*both),
        _first_words(*both),
        _explicit(*both, explicit.words),
        _structure(*both, matched=matched, seed=seed),
        _duplicates(*both),
        _overlap(*both),
    )
    return StimulusReport(len(positive), len(negative), explicit.origin, checks)


def _counts(positive: Sequence[str], negative: Sequence[str]) -> Check:
    found = abs(len(positive) - len(negative))
    status = PASS if found <= MAX_COUNT_DIFFERENCE else FAIL
    return Check(
        "counts", status, found, MAX_COUNT_DIFFERENCE, f"{len(positive)} and {len(negative)} texts"
    )


def _lengths(positive: Sequence[str], negative: Sequence[str]) -> Check:
    means = [sum(len(words(text)) for text in texts) / len(texts) for texts in (positive, negative)]
    found = abs(means[0] - means[1])
    status = PASS if found < MAX_LENGTH_DIFFERENCE else FAIL
    note = f"{means[0]:.2f} and {means[1]:.2f} words on average"
    return Check("length", status, found, MAX_LENGTH_DIFFERENCE, note)


def _first_words(positive: Sequence[str], negative: Sequence[str]) -> Check:
    shares = [
        {word: n / len(texts) for word, n in Counter(map(first_word, texts)).items()}
        for texts in (positive, negative)
    ]
    differences = {
        word: abs(shares[0].get(word, 0.0) - shares[1].get(word, 0.0))
        for word in sorted({*shares[0], *shares[1]})
    }
    word = max(differences, key=lambda one: differences[one])
    found = differences[word]
    status = PASS if found < MAX_FIRST_WORD else FAIL
    note = (
        f"{word!r} begins {shares[0].get(word, 0.0):.0%} and {shares[1].get(word, 0.0):.0%}"
        if found
        else "the same in both classes"
    )
    return Check("first words", status, found, MAX_FIRST_WORD, note)


def _explicit(positive: Sequence[str], negative: Sequence[str], listed: Collection[str]) -> Check:
    used = [[set(words(text)) & set(listed) for text in texts] for texts in (positive, negative)]
    shares = [sum(map(bool, hits)) / len(hits) for hits in used]
    found = max(shares)
    status = PASS if found < MAX_EXPLICIT else FAIL
    counts = Counter(sorted(word for hits in used for one in hits for word in one))
    most = ", ".join(word for word, _ in counts.most_common(5))
    note = f"in {shares[0]:.0%} and {shares[1]:.0%} of the texts{': ' if most else ''}{most}"
    return Check("explicit words", status, found, MAX_EXPLICIT, note)


def _structure(
    positive: Sequence[str], negative: Sequence[str], *, matched: bool, seed: int
) -> Check:
    least = min(len(positive), len(negative))
    if least < MIN_TEXTS:
        note = f"not judged: {least} texts in a class, of {MIN_TEXTS} needed"
        return Check("structure", WARN, None, MAX_STRUCTURE, note)
    accuracy = structural_accuracy(positive, negative, matched=matched, seed=seed)
    found = max(0.0, accuracy - 0.5)
    status = PASS if found < WARN_STRUCTURE else WARN if found < MAX_STRUCTURE else FAIL
    error = (0.25 / (len(positive) + len(negative))) ** 0.5
    note = f"form alone tells {accuracy:.1%} of held-out texts (standard error {error:.1%})"
    return Check("structure", status, found, MAX_STRUCTURE, note)


def _duplicates(positive: Sequence[str], negative: Sequence[str]) -> Check:
    repeated = [len(texts) - len(set(map(normalised, texts))) for texts in (positive, negative)]
    found = max(n / len(texts) for n, texts in zip(repeated, (positive, negative), strict=True))
    status = PASS if not found else WARN if found < MAX_DUPLICATES else FAIL
    note = f"{repeated[0]} and {repeated[1]} texts are there already"
    return Check("duplicates", status, found, MAX_DUPLICATES, note)


def _overlap(positive: Sequence[str], negative: Sequence[str]) -> Check:
    shared = sorted(set(map(normalised, positive)) & set(map(normalised, negative)))
    note = f"such as {shared[0][:60]!r}" if shared else "no text in both classes"
    return Check("overlap", FAIL if shared else PASS, len(shared), 0, note)
