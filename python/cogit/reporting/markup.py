"""HTML and SVG by a function that escapes: what is not markup already is text.

Characters that would not be seen or that turn the direction of the text are spelt out.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_VOID = {"meta", "br", "input", "hr"}
_SVG_EMPTY = {"circle", "line", "path", "rect", "polyline", "polygon"}
# C0 (but tab and line feed), DEL, C1, soft hyphen, directions, separators, fillers, invisible
# operators, byte order marks, surrogates, tags, non-characters. Joiners stay: scripts need them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b"
    "\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\ufdd0-\ufdef"
    "\ufffe\uffff\U000e0000-\U000e0fff]"
)


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | Markup | None


def visible(text: str) -> str:
    """The text with hidden characters spelt out: ``␀`` or ``⟨U+202E⟩``."""
    return _HIDDEN.sub(_spell, text)


def cut(text: str, length: int) -> str:
    """At most ``length`` characters, and how many are left out."""
    if len(text) <= length:
        return text
    return f"{text[:length]}… ({len(text) - length} more characters)"


def escape(text: str) -> Markup:
    """Text as it may stand in an element or in a quoted attribute."""
    return Markup(html.escape(visible(text), quote=True))


def join(parts: Iterable[Child], between: str = "") -> Markup:
    """Parts one after the other, escaped where they are text."""
    done = (part if isinstance(part, Markup) else escape(part) for part in parts if part)
    return Markup(between.join(done))


def element(name: str, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """``<name attribute="value">children</name>``.

    attributes: a trailing underscore is dropped, others become dashes; None and False leave the
    attribute out, True gives it no value.
    """
    head = [name]
    for key, value in attributes.items():
        label = key.rstrip("_").replace("_", "-")
        if value is True:
            head.append(label)
        elif value is not None and value is not False:
            head.append(f'{label}="{escape(_text(value))}"')
    start = " ".join(head)
    if name in _VOID:
        return Markup(f"<{start}>")
    if name in _SVG_EMPTY and not any(children):
        return Markup(f"<{start}/>")
    return Markup(f"<{start}>{join(children)}</{name}>")


def _text(value: str | float) -> str:
    """Numbers in two decimals: enough for paper, and the same on every machine."""
    if isinstance(value, str):
        return value
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _spell(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
