"""Rows of a user's own files, JSONL, CSV or text, read within limits and refused by file and line.

What a row must hold is said by the readers of pairs and of prompts.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from cogit.text_files import is_there, open_text

MAX_ROWS = 1_000_000
MAX_LINE = 2**20
DATASET = "dataset:"
PACKAGED = "packaged:"

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Found:
    """What a source holds at one place; ``data`` may be of any type."""

    data: Any
    where: str
    excerpt: str


def limited(rows: Iterator[_Row], subject: str, source: str) -> Iterator[_Row]:
    """The rows; ValueError past MAX_ROWS of them. subject: ``pairs`` or ``prompts``."""
    for number, row in enumerate(rows, 1):
        if number > MAX_ROWS:
            message = f"[{subject}] expected at most {MAX_ROWS} {subject} in {source}"
            raise ValueError(message)
        yield row


def refuse_folder(path: Path, subject: str) -> None:
    """ValueError for a folder, which may be a data set."""
    if is_there(path) and path.is_dir():
        message = (
            f"[{subject}] expected a file, got the folder {path}; write {DATASET}{path} for a "
            f"data set in it"
        )
        raise ValueError(message)


def json_rows(path: Path, subject: str) -> Iterator[Found]:
    """The value of each line that is not blank."""
    for number, line in numbered_lines(path, subject):
        if line.strip():
            where = f"{path}:{number}"
            excerpt = line.strip()[:80]
            try:
                data = json.loads(line)
            except (ValueError, RecursionError) as error:
                message = f"[{subject}] expected JSON in {where}, got {excerpt!r} ({error})"
                raise ValueError(message) from error
            yield Found(data, where, excerpt)


def csv_rows(
    path: Path, subject: str, read_header: Callable[[list[str], str], list[str]]
) -> Iterator[Found]:
    """Each row as a mapping of column to text.

    read_header: the columns' names from the fields of the first row and its place, or ValueError.
    """
    lines = (line for _, line in numbered_lines(path, subject, newline=""))
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            message = f"[{subject}] expected CSV in {path}:{reader.line_num}, got {error}"
            raise ValueError(message) from error
        if fields is None:
            return
        where = f"{path}:{reader.line_num}"
        if not fields:
            continue
        if header is None:
            header = read_header(fields, where)
        elif len(fields) == len(header):
            row = dict(zip(header, fields, strict=True))
            yield Found(row, where, str(row)[:80])
        else:
            message = (
                f"[{subject}] expected {len(header)} fields ({', '.join(header)}) in {where}, "
                f"got {len(fields)}"
            )
            raise ValueError(message)


def numbered_lines(
    path: Path, subject: str, newline: str | None = None
) -> Iterator[tuple[int, str]]:
    """Numbered lines; ValueError for one longer than MAX_LINE characters, or not UTF-8."""
    with open_text(path, subject, newline) as stream:
        number = 0
        while line := _line(stream, path, number + 1, subject):
            number += 1
            yield number, line


def _line(stream: IO[str], path: Path, number: int, subject: str) -> str:
    line = stream.readline(MAX_LINE + 1)
    if len(line) > MAX_LINE:
        message = f"[{subject}] expected at most {MAX_LINE} characters in {path}:{number}, got more"
        raise ValueError(message)
    return line
