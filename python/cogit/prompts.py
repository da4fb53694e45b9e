"""Prompts of a user's own, those that come with the package, and sets that may share no text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from cogit.packaged import packaged_path
from cogit.prompt_sources import SUBJECT, read_prompts


def load_prompts(source: str | Path | Mapping[str, object]) -> list[str]:
    """Read prompts, in their order; repeated ones stay.

    - a text file, a prompt a line; blank lines are left out, spaces at either end stay;
    - JSONL (``.jsonl``, ``.json``): a string a line, or ``{"prompt": …}``;
    - a CSV file (``.csv``) with a column prompt;
    - ``packaged:NAME``, a file that comes with the package (see ``cogit.packaged``);
    - a data set, through the optional package ``datasets``: a mapping of ``dataset`` (hub id or
      local folder) and optionally ``config``, ``split``, ``column`` (by default prompt) and
      ``streaming``, or the same as one string:
      ``dataset:NAME?config=…&split=train[400:600]&column=text``.

    Raises FileNotFoundError, BackendMissingError where ``datasets`` is not installed, OSError for a
    disk that is too full for the data set, or ValueError naming the file and the line, for no
    prompt, more than a million, or a line above a million characters.
    """
    found = list(read_prompts(source))
    if not found:
        name = source.get("dataset") if isinstance(source, Mapping) else source
        message = f"[{SUBJECT}] expected at least one prompt in {name}, got none"
        raise ValueError(message)
    return found


def packaged(name: str) -> list[str]:
    """The packaged prompts of a name in ``cogit.packaged.PROMPTS``, else ValueError."""
    return load_prompts(packaged_path(name, SUBJECT))


def normalised(text: str) -> str:
    """What two texts have in common that differ in case, spaces or Unicode form alone."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def require_disjoint(sets: Mapping[str, Iterable[str]]) -> None:
    """ValueError where two sets share a text, or one that differs in case and spaces alone.

    sets: texts by the name of their set, such as ``train``, ``calibration`` and ``test``. A text
    may be in one set twice. Evaluating on what was trained on proves nothing.
    """
    owner: dict[str, tuple[str, str]] = {}
    shared: dict[tuple[str, str, str], tuple[str, str]] = {}
    for name, texts in sets.items():
        for text in texts:
            key = normalised(text)
            first, original = owner.setdefault(key, (name, text))
            if first != name:
                shared.setdefault((first, name, key), (original, text))
    if not shared:
        return
    (first, second, _), (original, text) = next(iter(shared.items()))
    alike = "" if original == text else f", which is {text[:80]!r} there"
    more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
    message = (
        f"[overlap] expected sets without common texts, got {original[:80]!r} in {first} and in "
        f"{second}{alike}{more}; take them out of one"
    )
    raise ValueError(message)
