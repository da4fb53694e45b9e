"""A user's list of words with values as a judge: a text file or JSON, offline."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cogit.evaluation.judges.base import judged
from cogit.evaluation.judges.spec import JudgeSpec
from cogit.sampling import Sample
from cogit.text_files import open_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_FILE = 2**24  # characters
MAX_WORDS = 1_000_000
MAX_VALUE = 1e6
REACH = 3
_WHERE = "judge lexicon"
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


class LexiconJudge:
    """The balance Σv / Σ|v| of the values of a text's words; 0 where none is listed.

    Words are compared in lower case, as whole words; an apostrophe or a hyphen within one belongs
    to it. negation: words that turn the value of a listed word round that follows among the next
    three words ("not very good"); two of them cancel.
    """

    name = "lexicon"

    def __init__(
        self, values: Mapping[str, float], *, negation: Iterable[str] = (), source: str = ""
    ) -> None:
        """values: word to value, positive or negative. source: where they come from, in words.

        ValueError for a word that no text could hold, or a value that is not finite.
        """
        if not values:
            message = f"[{_WHERE}] expected at least one word, got none in {source or 'the values'}"
            raise ValueError(message)
        self._values: dict[str, float] = {}
        for word, value in values.items():
            folded = _one_word(word, source)
            if not math.isfinite(value) or abs(value) > MAX_VALUE:
                _refuse(f"values within ±{MAX_VALUE:g}", f"{value} for {word!r}", source)
            if folded in self._values:
                _refuse("each word once", f"{folded!r} twice", source)
            self._values[folded] = float(value)
        self._negation = frozenset(_one_word(word, "the negation") for word in negation)
        self._source = source

    @classmethod
    def load(cls, path: Path, *, negation: Iterable[str] = ()) -> LexiconJudge:
        """Read ``word<TAB or comma>value`` lines, or a JSON object where the suffix is .json.

        Empty lines, lines that begin with ``#`` and a heading ``word,value`` are left out.
        Raises FileNotFoundError, or ValueError naming what is wrong and where.
        """
        if path.exists() and not path.is_file():
            _refuse("a file", "something else", str(path))
        with open_text(path, _WHERE) as stream:
            text = stream.read(MAX_FILE + 1)
        if len(text) > MAX_FILE:
            _refuse(f"at most {MAX_FILE} characters", "more", str(path))
        pairs = _json(text, path) if path.suffix.lower() == ".json" else _lines(text, path)
        values: dict[str, float] = {}
        for word, value in pairs:
            if word in values:
                _refuse("each word once", f"{word[:60]!r} twice", str(path))
            if len(values) == MAX_WORDS:
                _refuse(f"at most {MAX_WORDS} words", "more", str(path))
            values[word] = value
        return cls(values, negation=negation, source=path.name)

    @classmethod
    def from_spec(cls, spec: JudgeSpec) -> LexiconJudge:
        spec.require_options(["negation"])
        path = Path(spec.require_source("FILE")).expanduser()
        return cls.load(path, negation=spec.words("negation"))

    def scores(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        return judged(self.name, samples, lambda kept: [self._score(samples[i].text) for i in kept])

    def describe(self) -> dict[str, Any]:
        listed = json.dumps(sorted(self._values.items()), ensure_ascii=False)
        return {
            "name": self.name,
            "decides": "the balance of the values of the words that are listed",
            "source": self._source,
            "words": len(self._values),
            "words_sha256": hashlib.sha256(listed.encode()).hexdigest(),
            "negation": sorted(self._negation),
        }

    def _score(self, text: str) -> float:
        words = _words(text)
        total = size = 0.0
        for i, word in enumerate(words):
            value = self._values.get(word)
            if value is None:
                continue
            before = words[max(0, i - REACH) : i]
            turned = sum(other in self._negation for other in before) % 2
            total += -value if turned else value
            size += abs(value)
        # Sums of the same terms in one order: rounding cannot leave [-1, 1] by more than itself.
        return max(-1.0, min(1.0, total / size)) if size else 0.0


def _words(text: str) -> list[str]:
    return _WORD.findall(_folded(text))


def _folded(text: str) -> str:
    # Typographic apostrophes and those of keyboards are one.
    return text.replace("\u2019", "'").casefold()


def _one_word(word: str, source: str) -> str:
    folded = _folded(word)
    if not _WORD.fullmatch(folded):
        _refuse("single words of letters and digits", repr(word[:60]), source)
    return folded


def _lines(text: str, path: Path) -> Iterator[tuple[str, float]]:
    seen = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        separator = "\t" if "\t" in line else ","
        cells = [cell.strip() for cell in line.split(separator)]
        seen += 1
        if seen == 1 and [cell.lower() for cell in cells] == ["word", "value"]:
            continue
        where = f"line {number} of {path}"
        if len(cells) != 2:
            _refuse("a word, a tab or comma, and a value", repr(line[:60]), where)
        try:
            yield cells[0], float(cells[1])
        except ValueError:
            _refuse("a number", repr(cells[1][:60]), where)


def _json(text: str, path: Path) -> Iterator[tuple[str, float]]:
    try:
        # As pairs: a dict would silently keep the last of two equal names.
        data = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        message = f"[{_WHERE}] expected a JSON object in {path}, got: {str(error)[:100]}"
        raise ValueError(message) from error
    if not isinstance(data, tuple):
        _refuse("a JSON object of words and values", type(data).__name__, str(path))
    for word, value in data:
        if isinstance(value, bool) or not isinstance(value, int | float):
            _refuse("a number", f"{str(value)[:60]!r} for {word[:60]!r}", str(path))
        try:
            yield word, float(value)
        except OverflowError:
            _refuse(f"values within ±{MAX_VALUE:g}", f"a larger one for {word[:60]!r}", str(path))


def _refuse(expected: str, got: str, where: str) -> NoReturn:
    message = f"[{_WHERE}] expected {expected}, got {got}" + (f" in {where}" if where else "")
    raise ValueError(message)
