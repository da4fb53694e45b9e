"""What was written: the tokens with the change at each, and the continuations by prompt."""

from __future__ import annotations

from collections.abc import Sequence

from cogit.reporting import numbers
from cogit.reporting.markup import Markup, cut, element, join, visible
from cogit.reporting.schema_parts import Record, Token, TokenView
from cogit.reporting.tables import Cell, frame, heads, row, words

_STEPS = 10
_MOST_VIEWS = 24
_MOST_TOKENS = 300
_MOST_PROMPTS = 80
_MOST_TEXTS = 24
_PROMPT = 400
_TEXT = 1000
_TOWARDS = {1: "towards +", -1: "towards −", 0: ""}


def token_views(views: Sequence[TokenView]) -> Markup:
    """Every token shaded by how far steering moved its state, on one scale, with the number."""
    top = max((t.change or 0.0 for view in views for t in view.tokens), default=0.0)
    shown = views[:_MOST_VIEWS]
    left = [_left(len(shown), len(views), "texts")] if len(views) > len(shown) else []
    return join([_scale(top), *(_view(view, top) for view in shown), *left])


def records_browser(records: Sequence[Record]) -> Markup:
    """One fold a prompt, in which every arm's texts stand below each other; the first is open."""
    by_prompt: dict[str, list[Record]] = {}
    for record in records:
        by_prompt.setdefault(record.prompt, []).append(record)
    shown = list(by_prompt.items())[:_MOST_PROMPTS]
    parts = [_prompt(prompt, found, number == 0) for number, (prompt, found) in enumerate(shown)]
    left = [_left(len(shown), len(by_prompt), "prompts")] if len(by_prompt) > len(shown) else []
    return join([element("div", *parts, class_="records"), *left])


def _left(shown: int, n: int, what: str) -> Markup:
    return element("p", f"{shown} of {n} {what}; report.json has all.", class_="note")


def _scale(top: float) -> Markup:
    ramp = element(
        "span", *(element("i", class_=f"c{i}") for i in range(_STEPS + 1)), class_="ramp"
    )
    says = f"change of the state, 0 to {numbers.percent(top)} of its length:"
    return element(
        "div",
        element("span", says, ramp),
        element("span", element("span", "underlined", class_="under"), " was generated"),
        element("span", "number below: per cent; · where nothing acts, – where not measured"),
        class_="scale",
    )


def _view(view: TokenView, top: float) -> Markup:
    towards = _TOWARDS[view.sign]
    title = ", ".join(part for part in (view.arm, towards, numbers.blocks(view.layers)) if part)
    shown = view.tokens[:_MOST_TOKENS]
    left = _left(len(shown), len(view.tokens), "tokens") if len(view.tokens) > len(shown) else None
    tokens = (_token(token, number, top) for number, token in enumerate(shown))
    return join([element("h3", cut(title, _PROMPT)), element("p", *tokens, class_="tokens"), left])


def _token(token: Token, number: int, top: float) -> Markup:
    share = 0.0 if not token.change or top <= 0 else token.change / top
    level = 0 if share == 0 else max(1, round(_STEPS * share))
    text = visible(cut(token.text, 60)).replace("\n", "↵").replace("\t", "⇥") or "∅"
    below = "·" if token.change == 0 else numbers.shown(token.change, _whole)
    what = "generated" if token.generated else "prompt"
    change = numbers.shown(token.change, numbers.percent)
    classes = ["t", f"c{level}", *(["written"] if token.generated else [])]
    return element(
        "span",
        element("bdi", text),
        element("small", below),
        class_=" ".join([*classes, *(["hot"] if level > 2 else [])]),
        title=f"token {number}, {what}, change {change}",
    )


def _whole(share: float) -> str:
    percent = 100 * share
    return "<1" if percent < 0.5 else f"{min(percent, 9999):.0f}"


def _prompt(prompt: str, records: Sequence[Record], is_open: bool) -> Markup:
    count = f"{len(records)} text{'s' if len(records) != 1 else ''}"
    summary = element(
        "summary",
        element("bdi", cut(prompt, _PROMPT) or "(empty prompt)"),
        " ",
        element("small", count),
    )
    rows = (_record(record) for record in records[:_MOST_TEXTS])
    more = f", the first {_MOST_TEXTS} of {len(records)}" if len(records) > _MOST_TEXTS else ""
    labels = ("arm", "text", "score", "seed")
    table = frame(f"What each arm wrote{more}", heads(labels, (None, "words")), rows, sortable=True)
    return element("details", summary, table, open=is_open)


def _record(record: Record) -> Markup:
    draw = "" if record.draw is None else f", draw {record.draw}"
    name = f"{record.arm}{draw}"
    towards = _TOWARDS[record.sign]
    head = join([name, element("small", f" {towards}") if towards else None])
    text = Cell(
        element("bdi", cut(record.text, _TEXT)) if record.text else words("(nothing)").content,
        class_="long",
        number=False,
    )
    score = Cell(_score(record.score), record.score)
    seed = Cell("" if record.seed is None else str(record.seed), _number(record.seed))
    return row(head, text, score, seed)


def _number(value: int | None) -> float | None:
    return None if value is None else float(value)


def _score(value: float | None) -> Markup:
    side = None if not value else "plus" if value > 0 else "minus"
    text = numbers.shown(value, lambda number: numbers.signed(number, 2))
    return element("span", text, class_=side)
