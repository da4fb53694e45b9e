"""Decision records: a numbered Markdown file with the questions that a decision should answer."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path

SECTIONS = {
    "Problem": "What has to be decided, and why now?",
    "Analysis": "What is known, measured or assumed?",
    "Options": "Which ways were looked at? At least two.",
    "Decision": "Which one is taken?",
    "Reasoning": "Why this one, in view of the analysis?",
    "Tradeoffs": "What does it cost, and who pays?",
    "Debt": "What is left undone, and when must it be paid back?",
    "Validation": "How will it show that the decision was right or wrong?",
    "Future": "What would make us decide again?",
}
_NUMBER = re.compile(r"(\d{4})-.*\.md", re.ASCII)
_TRIES = 100


def create_decision(folder: Path, title: str) -> Path:
    """Write the next record of a folder, which is made; never over another one.

    ValueError for a title without a letter or digit, or of more than 120 characters.
    """
    title = " ".join(title.split())
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].rstrip("-")
    if not slug or len(title) > 120:
        message = f"[log] expected a title of 1 to 120 characters with a letter, got {title[:40]!r}"
        raise ValueError(message)
    folder.mkdir(parents=True, exist_ok=True)
    found = (_NUMBER.fullmatch(path.name) for path in folder.iterdir())
    number = 1 + max((int(match[1]) for match in found if match), default=0)
    for one in range(number, number + _TRIES):
        path = folder / f"{one:04d}-{slug}.md"
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:  # another one came between
            continue
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(template(one, title))
        return path
    message = f"[log] expected a free number in {folder}, got none; try again"
    raise FileExistsError(message)


def template(number: int, title: str) -> str:
    """The record's text."""
    head = f"# {number}. {title}\n\nDate: {datetime.now(UTC).date().isoformat()}\nStatus: open\n"
    return head + "".join(f"\n## {name}\n\n<!-- {asks} -->\n" for name, asks in SECTIONS.items())
