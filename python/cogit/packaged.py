"""Prompts, texts and contrast pairs in plain English that come with the package.

For real models; the demo model reads its own grammar. No text is in two of the files.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

# What each file is for, by the name that a caller gives.
PROMPTS = {
    "open_prompts": "starts that can go on well or badly",
    "neutral_prompts": "starts about plain facts, for the drift of what should not change",
    "neutral": "sentences about plain facts, for KL and capability",
}
PAIRS = {"pairs_sentiment": "things that went well and the same things that did not"}
_FILES = {**dict.fromkeys(PROMPTS, ".txt"), **dict.fromkeys(PAIRS, ".jsonl")}


def packaged_path(name: str, subject: str) -> Path:
    """The file of a name of PROMPTS or PAIRS, with or without its ending.

    subject: ``prompts`` or ``pairs``, which is what the file must hold, else ValueError.
    """
    known = PAIRS if subject == "pairs" else PROMPTS
    stem = name.removesuffix(".txt" if subject != "pairs" else ".jsonl")
    if stem not in known:
        message = f"[{subject}] expected a packaged file among {', '.join(known)}, got {name!r}"
        raise ValueError(message)
    # Wheels are unpacked by pip, so that the resource is a file.
    return Path(str(files("cogit").joinpath("data", stem + _FILES[stem])))
