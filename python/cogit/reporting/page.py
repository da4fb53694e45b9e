"""The frame of a page: one file, no request, no script needed, and a policy that says so."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from cogit.reporting.markup import Child, Markup, cut, element, escape, join


@dataclass(frozen=True)
class Section:
    """One part of the page; empty ones are left out."""

    anchor: str
    title: str
    content: Markup
    note: str | None = None


def page(title: str, kicker: str, what: str, top: Markup, sections: Sequence[Section]) -> str:
    """A whole HTML page. top: what stands before the sections."""
    shown = [section for section in sections if section.content]
    links = (element("li", element("a", s.title, href=f"#{s.anchor}")) for s in shown)
    header = element(
        "header",
        element("a", "To the content", href="#content", class_="skip"),
        element("p", kicker, class_="kicker"),
        element("h1", element("bdi", title)),
        element("p", what, class_="what"),
        element("nav", element("ul", *links), aria_label="Sections"),
    )
    main = element("main", top, *map(_section, shown), id="content")
    footer = element(
        "footer", "Made by cogit from report.json alone. The page loads nothing and sends nothing."
    )
    body = element("body", header, main, footer, Markup(f"<script>{_asset('page.js')}</script>"))
    return f'<!DOCTYPE html>\n<html lang="en">\n{_head(title)}\n{body}\n</html>\n'


def _section(section: Section) -> Markup:
    note = element("p", section.note, class_="note") if section.note else None
    name = f"{section.anchor}-head"
    head = element("h2", section.title, id=name)
    return element("section", head, note, section.content, id=section.anchor, aria_labelledby=name)


def _head(title: str) -> Markup:
    css, script = _asset("page.css"), _asset("page.js")
    # By hash: the one style and the one script of this page run, and nothing that a text brings in.
    policy = (
        f"default-src 'none'; style-src '{_hash(css)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts: list[Child] = [
        Markup('<meta charset="utf-8">'),
        # Between quotes of its own: escaped ones would do, but this is easier to read.
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="referrer" content="no-referrer">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        Markup(f"<title>{escape(cut(title, 200))}</title>"),
        Markup(f"<style>{css}</style>"),
    ]
    return element("head", join(parts, "\n"))


def _asset(name: str) -> str:
    return resources.files("cogit.reporting").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
