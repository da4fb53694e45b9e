"""A seeded grammar of everyday reviews and facts whose sentiment is exact.

The demo model is trained on ``corpus``; prompts, contrast pairs and facts come from the same
grammar in three disjoint splits. A split owns combinations of a sentence's template and its nouns,
whatever the seed: no opinion, lead or fact of one split is ever written for another. Scenes
("we visited the hotel in april .") only set the place and are shared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cogit.demo import lexicon
from cogit.demo.templates import is_sentence
from cogit.demo.writer import SIGNS, SPLITS, Sign, Split, Writer, split_of
from cogit.pairs import ContrastPair

__all__ = [
    "SIGNS",
    "SPLITS",
    "Sign",
    "Split",
    "context_prompts",
    "contrast_pairs",
    "corpus",
    "facts",
    "is_sentence",
    "open_prompts",
    "sentiment",
    "sentiment_words",
    "split_of",
]

_WORD = re.compile(r"[a-z]+|[.!]")

# Shares of documents: facts only, reviews only; the rest are reviews with facts between.
_FACTS_ONLY, _REVIEWS_ONLY = 0.25, 0.4
_FACT_SHARE = 0.4


def sentiment_words(text: str) -> tuple[int, int]:
    """How many words of ``text`` speak for and against: (positive, negative).

    "not" turns the next word round, or the one after a word of degree ("not very good").
    """
    positive = negative = 0
    turned = False
    for word in _WORD.findall(text):
        sign = (word in lexicon.POSITIVE) - (word in lexicon.NEGATIVE)
        if turned:
            sign = -sign
        positive += sign > 0
        negative += sign < 0
        turned = word == "not" or (turned and word in lexicon.DEGREES)
    return positive, negative


def sentiment(text: str) -> int:
    """+1 where positive words prevail, -1 where negative ones do, 0 for a draw or none."""
    positive, negative = sentiment_words(text)
    return (positive > negative) - (positive < negative)


def contrast_pairs(n: int, seed: int, split: Split = "train") -> list[ContrastPair]:
    """``n`` distinct pairs of one text in a positive and a negative wording."""
    writer = Writer(seed, split, "pairs")

    def draw() -> ContrastPair:
        domain = writer.domain()
        scene = [writer.scene(domain)] if writer.random.random() < 0.5 else []
        n_sentences = writer.random.choice((1, 2))
        state = writer.random.getstate()
        texts = []
        for sign in SIGNS:
            # The same draws for both signs: only the polar words can differ.
            writer.random.setstate(state)
            opinions = [writer.opinion(domain, sign) for _ in range(n_sentences)]
            texts.append(" ".join(scene + opinions))
        return ContrastPair(positive=texts[0], negative=texts[1])

    return writer.distinct(n, draw)


def open_prompts(n: int, seed: int, split: Split = "test") -> list[str]:
    """``n`` distinct neutral starts after which either sentiment fits equally well."""
    writer = Writer(seed, split, "open")

    def draw() -> str:
        domain = writer.domain()
        return f"{writer.scene(domain)} {writer.lead(domain)}"

    return writer.distinct(n, draw)


def context_prompts(n: int, sentiment: Sign, seed: int, split: Split = "test") -> list[str]:
    """``n`` distinct starts whose context, two opinions, has the given sentiment (+1 or -1).

    Raises ValueError for any other sentiment.
    """
    if sentiment not in (1, -1):
        message = f"[grammar] expected sentiment 1 or -1, got {sentiment!r}"
        raise ValueError(message)
    writer = Writer(seed, split, f"context{sentiment:+d}")

    def draw() -> str:
        domain = writer.domain()
        opinions = " ".join(writer.opinion(domain, sentiment) for _ in range(2))
        return f"{writer.scene(domain)} {opinions} {writer.lead(domain)}"

    return writer.distinct(n, draw)


def facts(n: int, seed: int, split: Split = "test") -> list[str]:
    """``n`` distinct texts of four facts each, without any sentiment."""
    writer = Writer(seed, split, "facts")
    return writer.distinct(n, lambda: writer.facts(4))


def corpus(n_documents: int, seed: int) -> Iterator[str]:
    """Training documents of all splits: reviews of one sentiment, facts, and both mixed."""
    writer = Writer(seed, None, "corpus")
    for _ in range(n_documents):
        kind = writer.random.random()
        if kind < _FACTS_ONLY:
            yield writer.facts(writer.random.randint(4, 8))
        else:
            yield writer.review(0.0 if kind < _FACTS_ONLY + _REVIEWS_ONLY else _FACT_SHARE)
