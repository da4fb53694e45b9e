"""Rows of contrast pairs in files: JSONL, CSV, two text files, or a data set of ``datasets``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogit.data_rows import (
    DATASET,
    PACKAGED,
    csv_rows,
    json_rows,
    limited,
    numbered_lines,
    refuse_folder,
)
from cogit.text_files import is_there

SUBJECT = "pairs"
# Names of the two texts, in the order in which they are looked for.
_NAMES = (("positive", "negative"), ("chosen", "rejected"))


@dataclass(frozen=True)
class Row:
    """What a source holds at one place; the fields may still be of any type."""

    positive: Any
    negative: Any
    prompt: Any
    where: str
    excerpt: str


def read_rows(source: str | Path | Mapping[str, object]) -> Iterator[Row]:
    """The rows of any source that ``load_pairs`` names; ValueError past MAX_ROWS of them."""
    rows: Iterator[Row]
    if isinstance(source, Mapping):
        from cogit.dataset_rows import dataset_rows
        from cogit.pair_datasets import DatasetSpec

        rows = (_row(data, where) for where, data in dataset_rows(DatasetSpec.of(source)))
    elif str(source).startswith(DATASET):
        from cogit.pair_datasets import DatasetSpec

        return read_rows(DatasetSpec.parse(str(source).removeprefix(DATASET)).to_mapping())
    elif str(source).startswith(PACKAGED):
        from cogit.packaged import packaged_path

        return read_rows(packaged_path(str(source).removeprefix(PACKAGED), SUBJECT))
    else:
        rows = _file_rows(source)
    return limited(rows, SUBJECT, str(source))


def _file_rows(source: str | Path) -> Iterator[Row]:
    path = Path(source)
    if not is_there(path) and str(source).count(",") == 1:
        return _text_rows(*(Path(part.strip()) for part in str(source).split(",")))
    refuse_folder(path, SUBJECT)
    if path.suffix.lower() == ".csv":
        return (_row(found.data, found.where) for found in csv_rows(path, SUBJECT, _header))
    return (_row(found.data, found.where, found.excerpt) for found in json_rows(path, SUBJECT))


def _header(fields: list[str], where: str) -> list[str]:
    names = [name.strip() for name in fields]
    known = any(set(pair) <= set(names) for pair in _NAMES)
    if not known or len(set(names)) < len(names):
        message = (
            f"[pairs] expected a header with the columns positive, negative and perhaps prompt in "
            f"{where}, got {','.join(names)[:80]!r}"
        )
        raise ValueError(message)
    return names


def _text_rows(positive: Path, negative: Path) -> Iterator[Row]:
    """Lines of two files, matched by number; a line that is blank in both is left out."""
    sides = [numbered_lines(path, SUBJECT) for path in (positive, negative)]
    while True:
        (number, first), (other, second) = (next(side, (0, "")) for side in sides)
        if not number and not other:
            return
        if not number or not other:
            longer, line = (positive, number) if number else (negative, other)
            shorter = negative if number else positive
            message = (
                f"[pairs] expected as many lines in {shorter} as in {longer}, got none to match "
                f"{longer}:{line}"
            )
            raise ValueError(message)
        texts = [line.rstrip("\r\n") for line in (first, second)]
        if any(text.strip() for text in texts):
            where = f"{positive}:{number} and {negative}:{number}"
            yield Row(texts[0], texts[1], "", where, " | ".join(texts)[:80])


def _row(data: Any, where: str, excerpt: str | None = None) -> Row:
    """The texts of a mapping; ValueError where it has neither pair of names."""
    shown = str(data)[:80] if excerpt is None else excerpt
    for first, second in _NAMES:
        if isinstance(data, Mapping) and first in data and second in data:
            prompt = data.get("prompt")
            return Row(data[first], data[second], "" if prompt is None else prompt, where, shown)
    wanted = " or ".join(" and ".join(pair) for pair in _NAMES)
    message = f"[pairs] expected {wanted} in {where}, got {shown!r}"
    raise ValueError(message)
