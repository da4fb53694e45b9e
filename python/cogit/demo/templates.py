"""The sentence templates of the demo's grammar, and whether a text is one of its sentences.

A slot in braces names the list of words that fills it (see ``writer``); ``adj``, ``verb`` and the
other polar slots take the sentence's sentiment, ``opposite`` the other one.
"""

from __future__ import annotations

import re
from functools import cache

from cogit.demo import lexicon

SLOT = re.compile(r"\{(\w+)\}")

SCENES = (
    "we visited the {place} in {month} .",
    "on {day} i went to the {place} with my {relative} .",
    "my {relative} and i found the {place} near the {landmark} .",
    "we spent {number} hours at the {place} .",
    "in {month} my {relative} took us to the {place} .",
    "this is about the {place} by the {landmark} .",
)
OPINIONS = (
    "the {thing} was {adj} .",
    "the {thing} was {degree} {adj} .",
    "the {thing} was {adj} and the {thing2} was {adj2} .",
    "the {thing} was {adj} and {adj2} .",
    "the {thing} and the {thing2} were {adj} .",
    "the {person} was {manner} .",
    "the {person} was {manner} and the {thing} was {adj} .",
    "we {verb} the {thing} and the {thing2} was {adj} .",
    "we {verb} the {adj} {thing} .",
    "{adverb} the {thing} was {adj} .",
    "we were {feeling} with the {adj} {thing} .",
    "what a {noun} the {thing} was !",
    "i would {advice} the {adj} {thing} .",
    "the {thing} was not {opposite} .",
)
# A lead stops where the opinion has to come; a tail continues it.
LEADS_AND = (
    "the {person} showed us the {thing} and",
    "the {person} asked about the {thing} and",
    "my {relative} chose the {thing} and",
    "we paid {number} coins for the {thing} and",
    "we looked at the {thing} by the {spot} and",
    "after {number} minutes we saw the {thing} and",
)
LEADS_WAS = (
    "the {thing} was",
    "the {thing} by the {spot} was",
    "my {relative} said the {thing} was",
    "on {day} the {thing} was",
)
LEADS_PERSON = ("the {person} was", "on {day} the {person} was")
TAILS_AND = (
    "it was {adj} .",
    "it was {degree} {adj} .",
    "it was {adj} and {adj2} .",
    "we {verb} it .",
    "it was a {noun} .",
    "we were {feeling} .",
)
TAILS_WAS = ("{adj} .", "{degree} {adj} .", "{adj} and {adj2} .", "a {noun} .")
TAILS_PERSON = ("{manner} .", "{degree} {manner} .")
TAILS = {
    lead: tails
    for leads, tails in (
        (LEADS_AND, TAILS_AND),
        (LEADS_WAS, TAILS_WAS),
        (LEADS_PERSON, TAILS_PERSON),
    )
    for lead in leads
}
LEADS = tuple(TAILS)
PLACE_FACTS = (
    "the {place} opens at {number} in the morning .",
    "the {place} closes at {number} on {day} .",
    "the {place} has {number} rooms .",
    "the {place} stands between the {landmark} and the park .",
    "the {carrier} to the {place} leaves at {number} .",
    "a ticket for the {place} costs {number} coins .",
)
WORLD_FACTS = (
    "{city} is a city in {country} .",
    "the {carrier} from {city} to {city2} takes {number} hours .",
    "my {relative} lives in {city} , a city in {country} .",
    "in {month} many people travel to {city} .",
    "the {animal} eats {food} .",
    "a {animal} on the farm eats {food} in the morning .",
    "the {tool} is made of {material} .",
    "my {relative} keeps a {tool} of {material} near the {spot} .",
    "there are {number} people in the {city} office on {day} .",
)


def is_sentence(text: str) -> bool:
    """Whether ``text`` is one sentence that the grammar can write, full stop included."""
    return _sentence_pattern().fullmatch(text.strip()) is not None


@cache
def _sentence_pattern() -> re.Pattern[str]:
    told = [f"{lead} {tail}" for lead, tails in TAILS.items() for tail in tails]
    templates = (*SCENES, *OPINIONS, *told, *PLACE_FACTS, *WORLD_FACTS)
    return re.compile("|".join(_template_pattern(template) for template in templates))


def _template_pattern(template: str) -> str:
    words = _slot_words()
    parts = SLOT.split(template)  # text, slot, text, slot, …, text
    return "".join(
        f"(?:{'|'.join(sorted(words[part]))})" if index % 2 else re.escape(part)
        for index, part in enumerate(parts)
    )


@cache
def _slot_words() -> dict[str, frozenset[str]]:
    """What can fill each slot in any sentence, of either sentiment."""
    adjectives = frozenset(
        word
        for role in ("general", "food", "object")
        for words in lexicon.ADJECTIVES[role]
        for word in words
    )
    manners = frozenset(
        word
        for role in ("general", "person")
        for words in lexicon.ADJECTIVES[role]
        for word in words
    )
    things = frozenset(thing for domain in lexicon.DOMAINS for thing in domain.things)
    polar = {role: frozenset(one + other) for role, (one, other) in lexicon.POLAR_SLOTS.items()}
    return polar | {
        **{name: frozenset(words) for name, words in lexicon.PLAIN_SLOTS.items()},
        "adj": adjectives,
        "adj2": adjectives,
        "opposite": adjectives,
        "manner": manners,
        "place": frozenset(domain.place for domain in lexicon.DOMAINS),
        "person": frozenset(domain.person for domain in lexicon.DOMAINS),
        "thing": things,
        "thing2": things,
        "city": frozenset(lexicon.CITIES),
        "city2": frozenset(lexicon.CITIES),
        "country": frozenset(lexicon.CITIES.values()),
        "animal": frozenset(lexicon.ANIMALS),
        "food": frozenset(lexicon.ANIMALS.values()),
        "tool": frozenset(lexicon.TOOLS),
        "material": frozenset(lexicon.TOOLS.values()),
    }
