"""The words of the demo's grammar: what is talked about, what is felt about it, what is known.

Every word that carries sentiment stands in ``POSITIVE`` or ``NEGATIVE`` and nowhere else, so that
the sentiment of any text written with these words is exact. Polar lists come in pairs of equal
length, entry by entry: a contrast pair swaps one for the other.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Domain:
    """A place that is reviewed, the things found there and the person who works there.

    quality: which polar adjectives beside the general ones suit its things.
    """

    place: str
    quality: str
    things: tuple[str, ...]
    person: str


DOMAINS = (
    Domain("restaurant", "food", ("soup", "bread", "fish", "salad", "rice", "wine"), "waiter"),
    Domain("cafe", "food", ("coffee", "tea", "cake", "pie", "juice", "bread"), "waiter"),
    Domain("hotel", "object", ("room", "bed", "bath", "view", "pool", "garden"), "porter"),
    Domain("cinema", "object", ("film", "story", "music", "seat", "screen", "hall"), "actor"),
    Domain("theatre", "object", ("play", "song", "stage", "dance", "music", "seat"), "actor"),
    Domain("museum", "object", ("tour", "picture", "statue", "map", "hall", "garden"), "guide"),
    Domain("library", "object", ("book", "story", "cover", "lamp", "room", "picture"), "guide"),
    Domain("shop", "object", ("coat", "lamp", "chair", "phone", "bag", "clock"), "seller"),
)

# Polar words by role: (positive, negative), entry by entry.
ADJECTIVES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "general": (
        ("good", "great", "lovely", "wonderful", "excellent", "superb", "perfect", "pleasant"),
        ("bad", "poor", "nasty", "terrible", "horrible", "awful", "dreadful", "dismal"),
    ),
    "food": (("delicious", "tasty", "fresh"), ("disgusting", "bland", "stale")),
    "object": (("beautiful", "charming", "splendid"), ("ugly", "boring", "shabby")),
    "person": (("friendly", "polite", "kind"), ("rude", "careless", "lazy")),
}
POLAR_SLOTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "verb": (
        ("loved", "liked", "enjoyed", "admired"),
        ("hated", "disliked", "regretted", "loathed"),
    ),
    "noun": (("delight", "treat", "joy", "success"), ("disaster", "mess", "shame", "failure")),
    "adverb": (("luckily", "happily"), ("sadly", "alas")),
    "feeling": (("happy", "glad", "pleased"), ("sad", "angry", "upset")),
    "advice": (("recommend", "praise"), ("avoid", "blame")),
}
_ROLES = (*ADJECTIVES.values(), *POLAR_SLOTS.values())
POSITIVE = frozenset(word for positive, _ in _ROLES for word in positive)
NEGATIVE = frozenset(word for _, negative in _ROLES for word in negative)
DEGREES = ("very", "really", "so", "quite")

PLAIN_SLOTS: dict[str, tuple[str, ...]] = {
    "degree": DEGREES,
    "relative": ("sister", "brother", "mother", "father", "uncle", "aunt", "cousin", "friend"),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "month": ("january", "march", "april", "june", "july", "august", "october", "december"),
    "landmark": ("river", "bridge", "church", "station", "harbour", "square"),
    "spot": ("door", "window", "wall", "stairs"),
    "carrier": ("train", "bus", "boat"),
}

# Facts are tables, so that they have something to be learned.
CITIES = {
    "paris": "france",
    "rome": "italy",
    "madrid": "spain",
    "berlin": "germany",
    "athens": "greece",
    "london": "england",
    "oslo": "norway",
    "cairo": "egypt",
}
ANIMALS = {
    "cow": "grass",
    "horse": "hay",
    "cat": "mice",
    "bear": "honey",
    "duck": "snails",
    "rabbit": "carrots",
    "goat": "leaves",
    "mouse": "cheese",
}
TOOLS = {
    "table": "wood",
    "bottle": "glass",
    "key": "iron",
    "scarf": "wool",
    "ring": "gold",
    "box": "paper",
    "brick": "clay",
    "boot": "leather",
}
