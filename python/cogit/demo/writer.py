"""Fills the grammar's templates by a seeded generator, within one split of its combinations."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from cogit.demo import lexicon, templates
from cogit.demo.lexicon import Domain

Split = Literal["train", "calibration", "test"]
Sign = Literal[1, -1]
SPLITS: tuple[Split, ...] = ("train", "calibration", "test")
SIGNS: tuple[Sign, ...] = (1, -1)
T = TypeVar("T")

_NOUN_SLOTS = frozenset(
    ("place", "thing", "thing2", "person", "city", "city2", "animal", "tool", "day", "number")
)
_MAX_DRAWS = 10_000
_MAX_TEXTS = 20_000

# How often a sentence of a review contradicts the review's sentiment.
_FLIP = 0.03
_PLACE_FACT, _LEAD, _SCENE = 0.4, 0.4, 0.8


def split_of(template: str, nouns: Sequence[str]) -> Split:
    """The split that owns a template with these nouns: 60, 20 and 20 % of all combinations."""
    bucket = zlib.crc32("|".join((template, *nouns)).encode()) % 10
    return "train" if bucket < 6 else "calibration" if bucket < 8 else "test"


class Writer:
    """Writes sentences of one split, or of all where split is None."""

    def __init__(self, seed: int, split: Split | None, purpose: str) -> None:
        if split is not None and split not in SPLITS:
            message = f"[grammar] expected a split of {', '.join(SPLITS)}, got {split!r}"
            raise ValueError(message)
        # A string seeds the generator by its digest: equal on every platform and Python.
        self.random = random.Random(f"{seed}/{split}/{purpose}")
        self._split = split

    def domain(self) -> Domain:
        return self.random.choice(lexicon.DOMAINS)

    def scene(self, domain: Domain) -> str:
        """A sentence that sets the place; scenes belong to every split."""
        return self._fill(self.random.choice(templates.SCENES), domain, 1)[0]

    def opinion(self, domain: Domain, sign: int, choices: Sequence[str] | None = None) -> str:
        return self._own(choices or templates.OPINIONS, domain, sign)

    def lead(self, domain: Domain) -> str:
        """The start of a sentence up to where its opinion has to come."""
        return self._own(templates.LEADS, domain, 1)

    def told(self, domain: Domain, sign: int) -> str:
        """A lead with the tail that gives the opinion."""
        template = self.random.choice(templates.LEADS)
        tail = self.random.choice(templates.TAILS[template])
        return self._own([f"{template} {tail}"], domain, sign)

    def fact(self, domain: Domain | None = None) -> str:
        """A sentence about the world, or about the domain's place where one is given."""
        return self._own(
            templates.PLACE_FACTS if domain else templates.WORLD_FACTS, domain or self.domain(), 1
        )

    def facts(self, n: int) -> str:
        """A text of ``n`` different facts."""
        domain = self.domain()
        sentences: dict[str, None] = {}
        while len(sentences) < n:
            about = domain if self.random.random() < _PLACE_FACT else None
            sentences.setdefault(self.fact(about))
        return " ".join(sentences)

    def review(self, fact_share: float) -> str:
        """A document of one sentiment, with facts between its opinions by ``fact_share``."""
        domain, sign = self.domain(), self.random.choice((1, -1))
        sentences = [self.scene(domain)] if self.random.random() < _SCENE else []
        for _ in range(self.random.randint(4, 8)):
            if self.random.random() < fact_share:
                about = domain if self.random.random() < _PLACE_FACT else None
                sentences.append(self.fact(about))
                continue
            told = -sign if self.random.random() < _FLIP else sign
            write = self.told if self.random.random() < _LEAD else self.opinion
            sentences.append(write(domain, told))
        return " ".join(sentences)

    def distinct(self, n: int, draw: Callable[[], T]) -> list[T]:
        """The first ``n`` different results of ``draw``; ValueError if the split holds fewer."""
        if not 1 <= n <= _MAX_TEXTS:
            message = f"[grammar] expected 1 to {_MAX_TEXTS} texts, got n={n}"
            raise ValueError(message)
        found: dict[T, None] = {}
        for _ in range(_MAX_DRAWS + 20 * n):
            if len(found) >= n:
                break
            found.setdefault(draw())
        if len(found) < n:
            message = (
                f"[grammar] expected at most {len(found)} texts of split {self._split}, got n={n}"
            )
            raise ValueError(message)
        return list(found)

    def _own(self, choices: Sequence[str], domain: Domain, sign: int) -> str:
        """A sentence by one of the templates, redrawn until the split owns its nouns."""
        for _ in range(_MAX_DRAWS):
            template = self.random.choice(choices)
            text, nouns = self._fill(template, domain, sign)
            if self._split is None or split_of(template, nouns) == self._split:
                return text
        message = f"[grammar] no sentence of split {self._split} for {domain.place} in {choices}"
        raise ValueError(message)

    def _fill(self, template: str, domain: Domain, sign: int) -> tuple[str, list[str]]:
        used: dict[str, str] = {}
        for slot in templates.SLOT.findall(template):
            used[slot] = self._word(slot, domain, sign, used)
        nouns = [word for slot, word in used.items() if slot in _NOUN_SLOTS]
        return template.format(**used), nouns

    def _word(self, slot: str, domain: Domain, sign: int, used: dict[str, str]) -> str:
        if slot in lexicon.PLAIN_SLOTS:
            return self.random.choice(lexicon.PLAIN_SLOTS[slot])
        if slot in _LOOKED_UP:
            table, key = _LOOKED_UP[slot]
            return table[used[key]]
        if slot in ("place", "person"):
            return domain.place if slot == "place" else domain.person
        if slot in ("thing", "city", "animal", "tool"):
            return self.random.choice(
                {
                    "thing": domain.things,
                    "city": tuple(lexicon.CITIES),
                    "animal": tuple(lexicon.ANIMALS),
                    "tool": tuple(lexicon.TOOLS),
                }[slot]
            )
        if slot in ("thing2", "city2"):
            pool = domain.things if slot == "thing2" else tuple(lexicon.CITIES)
            return self.random.choice([word for word in pool if word != used[slot[:-1]]])
        return self._polar(slot, domain, sign, used)

    def _polar(self, slot: str, domain: Domain, sign: int, used: dict[str, str]) -> str:
        if slot == "opposite":
            slot, sign = "adj", -sign
        side = 0 if sign > 0 else 1
        if slot in lexicon.POLAR_SLOTS:
            return self.random.choice(lexicon.POLAR_SLOTS[slot][side])
        special = "person" if slot == "manner" else domain.quality
        pool = lexicon.ADJECTIVES["general"][side] + lexicon.ADJECTIVES[special][side]
        return self.random.choice([word for word in pool if word != used.get("adj")])


_LOOKED_UP = {
    "country": (lexicon.CITIES, "city"),
    "food": (lexicon.ANIMALS, "animal"),
    "material": (lexicon.TOOLS, "tool"),
}
