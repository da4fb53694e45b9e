"""On which line of a TOML document each key stands, which `tomllib` does not say."""

from __future__ import annotations

import re

_PART = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|\'([^\']*)\'|([A-Za-z0-9_-]+))\s*')
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
# What a value may hold that hides a bracket or the end of its line.
_HIDING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*', re.DOTALL
)
_PLAIN = re.compile(r"[^\n\"'#\[\]{}]+")
_OPENING, _CLOSING = "[{", "]}"

Keys = tuple[str, ...]


def key_lines(text: str) -> dict[Keys, int]:
    """The first line, from 1, of every table and key of a document that `tomllib` accepts.

    Keys of inline tables have none of their own: look for the longest beginning that has one.
    """
    text = text.replace("\r\n", "\n")
    found: dict[Keys, int] = {}
    table: Keys = ()
    line, counted = 1, 0
    at = _blank(text, 0)
    while at < len(text):
        line, counted = line + text.count("\n", counted, at), at
        if text[at] == "[":
            inner = at + 1 + text[at:].startswith("[[")
            table, at = _keys(text, inner)
            _note(found, table, 0, line)
            at = _end_of_value(text, at)
        else:
            keys, at = _keys(text, at)
            _note(found, (*table, *keys), len(table), line)
            at = _end_of_value(text, at + 1)
        at = _blank(text, at)
    return found


def _note(found: dict[Keys, int], keys: Keys, known: int, line: int) -> None:
    for length in range(known + 1, len(keys) + 1):
        found.setdefault(keys[:length], line)


def _blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    assert match is not None
    return match.end()


def _keys(text: str, at: int) -> tuple[Keys, int]:
    """The parts of a dotted key, and where it ends."""
    parts: list[str] = []
    while match := _PART.match(text, at):
        quoted, literal, bare = match.groups()
        parts.append(next(part for part in (quoted, literal, bare) if part is not None))
        at = match.end()
        if text[at : at + 1] != ".":
            break
        at += 1
    return tuple(parts), at


def _end_of_value(text: str, at: int) -> int:
    """Where the statement ends: a line break outside strings, comments and brackets."""
    depth = 0
    while at < len(text):
        if hidden := _PLAIN.match(text, at) or _HIDING.match(text, at):
            at = hidden.end()
            continue
        character = text[at]
        if character == "\n" and depth <= 0:
            return at
        depth += (character in _OPENING) - (character in _CLOSING)
        at += 1
    return at
