"""Rows of contrast pairs in files: JSONL, CSV, two text files, or a data set of ``datasets``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cogit.text_files import is_there, open_text

MAX_ROWS = 1_000_000
MAX_LINE = 2**20
_DATASET = "dataset:"
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
        from cogit.pair_datasets import DatasetSpec, dataset_rows

        rows = (_row(data, where) for where, data in dataset_rows(DatasetSpec.of(source)))
    elif str(source).startswith(_DATASET):
        from cogit.pair_datasets import DatasetSpec

        return read_rows(DatasetSpec.parse(str(source).removeprefix(_DATASET)).to_mapping())
    else:
        rows = _file_rows(source)
    return _limited(rows, str(source))


def _file_rows(source: str | Path) -> Iterator[Row]:
    path = Path(source)
    if not is_there(path) and str(source).count(",") == 1:
        return _text_rows(*(Path(part.strip()) for part in str(source).split(",")))
    if is_there(path) and path.is_dir():
        message = (
            f"[pairs] expected a file, got the folder {path}; write dataset:{path} for a data set "
            f"in it"
        )
        raise ValueError(message)
    return _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)


def _limited(rows: Iterator[Row], source: str) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        if number > MAX_ROWS:
            message = f"[pairs] expected at most {MAX_ROWS} pairs in {source}"
            raise ValueError(message)
        yield row


def _json_rows(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        if line.strip():
            where = f"{path}:{number}"
            excerpt = line.strip()[:80]
            try:
                data = json.loads(line)
            except (ValueError, RecursionError) as error:
                message = f"[pairs] expected JSON in {where}, got {excerpt!r} ({error})"
                raise ValueError(message) from error
            yield _row(data, where, excerpt)


def _csv_rows(path: Path) -> Iterator[Row]:
    reader = csv.reader((line for _, line in _lines(path, newline="")), strict=True)
    header: list[str] | None = None
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            message = f"[pairs] expected CSV in {path}:{reader.line_num}, got {error}"
            raise ValueError(message) from error
        if fields is None:
            return
        where = f"{path}:{reader.line_num}"
        if not fields:
            continue
        if header is None:
            header = _header(fields, where)
        elif len(fields) == len(header):
            yield _row(dict(zip(header, fields, strict=True)), where)
        else:
            message = (
                f"[pairs] expected {len(header)} fields ({', '.join(header)}) in {where}, "
                f"got {len(fields)}"
            )
            raise ValueError(message)


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
    sides = [_lines(positive), _lines(negative)]
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


def _lines(path: Path, newline: str | None = None) -> Iterator[tuple[int, str]]:
    """Numbered lines; ValueError for one longer than MAX_LINE characters, or not UTF-8."""
    with open_text(path, "pairs", newline) as stream:
        number = 0
        while line := _line(stream, path, number + 1):
            number += 1
            yield number, line


def _line(stream: IO[str], path: Path, number: int) -> str:
    line = stream.readline(MAX_LINE + 1)
    if len(line) > MAX_LINE:
        message = f"[pairs] expected at most {MAX_LINE} characters in {path}:{number}, got more"
        raise ValueError(message)
    return line
