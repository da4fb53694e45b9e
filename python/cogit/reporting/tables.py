"""Tables of the page: each with a caption, heads for rows, and a frame that scrolls by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cogit.reporting import columns
from cogit.reporting.columns import Column
from cogit.reporting.groups import WORDS, Group
from cogit.reporting.markup import Child, Markup, cut, element, join
from cogit.reporting.svg import strip

MOST_ROWS = 400
_NAME = 200
_KINDS = {"effect": "Effect", "cost": "Cost", "about": ""}


@dataclass(frozen=True)
class Cell:
    """value: what the column is sorted by; None sorts last."""

    content: Child
    value: float | None = None
    class_: str | None = None
    number: bool = True

    def draw(self) -> Markup:
        key = None if not self.number else "" if self.value is None else repr(float(self.value))
        return element("td", self.content, class_=self.class_, data_v=key)


def words(content: Child) -> Cell:
    """A cell of text."""
    return Cell(content, class_="words", number=False)


def frame(
    caption: str,
    head: Child,
    rows: Iterable[Markup],
    *,
    sortable: bool = False,
) -> Markup:
    """A table with its caption in a region that a keyboard can scroll."""
    body = list(rows)
    if not body:
        return Markup()
    table = element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", *body),
        class_="sortable" if sortable else None,
    )
    return element("div", table, class_="scroll", role="region", aria_label=caption, tabindex="0")


def heads(labels: Sequence[str], classes: Sequence[str | None] = ()) -> Markup:
    """One row of column heads; the first is that of the row heads."""
    given = [*classes, *[None] * (len(labels) - len(classes))]
    cells = (
        element("th", label, scope="col", class_=class_ or ("words" if i == 0 else None))
        for i, (label, class_) in enumerate(zip(labels, given, strict=True))
    )
    return element("tr", *cells)


def row(name: Child, *cells: Cell, class_: str | None = None) -> Markup:
    head = element("th", name, scope="row")
    return element("tr", head, *(cell.draw() for cell in cells), class_=class_)


def text_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """A table whose cells are text; the first of each row is its head."""
    made = (
        row(cut(first, _NAME), *(Cell(cell, number=False) for cell in rest))
        for first, *rest in rows[:MOST_ROWS]
    )
    return frame(caption, heads(header), made)


def arms_table(caption: str, groups: Sequence[Group], wanted: Sequence[Column]) -> Markup:
    """Effect and cost of every arm and control, side by side, with the lifts drawn."""
    chosen = columns.used(wanted, groups)
    ends = _ends(groups)
    drawn = ends is not None and any(c.label.startswith("lift") for c in chosen)
    starts = {id(c) for p, c in zip([None, *chosen], chosen, strict=False) if _starts(p, c)}
    rows = (
        row(
            _name(group.label),
            *((_strip(group, ends),) if drawn and ends else ()),
            *(_cell(column, group, first=id(column) in starts) for column in chosen),
            class_=group.role if group.role == "learned" else None,
        )
        for group in groups[:MOST_ROWS]
    )
    return frame(caption, _arm_heads(chosen, starts, drawn=drawn), rows, sortable=True)


def draws_table(caption: str, groups: Sequence[Group]) -> Markup:
    """Every draw of the pooled controls in a row of its own."""
    single = [
        Group(f"{WORDS[group.role]}, draw {arm.draw}", group.role, (arm,), pooled=False)
        for group in groups
        if group.pooled
        for arm in group.arms
    ][:MOST_ROWS]
    chosen = columns.used((*columns.MAIN, *columns.MORE), single)
    labels = ["control", *(column.label for column in chosen)]
    rows = (
        row(one.name, *(_cell(column, one, first=False) for column in chosen)) for one in single
    )
    return frame(caption, heads(labels), rows, sortable=True)


def _arm_heads(chosen: Sequence[Column], starts: set[int], *, drawn: bool) -> Markup:
    above: list[Child] = [element("td", colspan="2" if drawn else None)]
    for i, column in enumerate(chosen):
        if id(column) in starts:
            rest = chosen[i + 1 :]
            end = next((j for j, c in enumerate(rest) if id(c) in starts), len(rest))
            span = {"colspan": str(end + 1), "scope": "colgroup", "class_": "group first"}
            above.append(element("th", _KINDS[column.kind], **span))
    cells = [element("th", "arm", scope="col", class_="words")]
    if drawn:
        cells.append(element("th", "lift, drawn", scope="col", class_="strip"))
    cells += [
        element(
            "th",
            column.label,
            scope="col",
            title=column.meaning,
            class_="first" if id(column) in starts else None,
        )
        for column in chosen
    ]
    return join([element("tr", *above), element("tr", *cells)])


def _name(label: str) -> Markup:
    """The number of draws stands below the name."""
    name, gap, draws = cut(label, _NAME).partition(" (")
    return join([name, element("small", f"({draws}") if gap else None], " ")


def _starts(before: Column | None, column: Column) -> bool:
    return before is None or before.kind != column.kind


def _cell(column: Column, group: Group, *, first: bool) -> Cell:
    text = column.cell(group)
    content: Child = text
    # What lies in brackets goes below the number, so that columns stay narrow.
    number, gap, rest = text.partition(" [") if " [" in text else text.partition(" (")
    if gap:
        content = join([number, element("span", f"{gap.strip()}{rest}", class_="range")], " ")
    return Cell(content, column.value(group), "first" if first else None)


def _strip(group: Group, ends: tuple[float, float]) -> Cell:
    lifts = group.lifts()
    if lifts is None:
        return Cell("", class_="strip", number=False)
    low, mid, high = lifts.low, lifts.mean, lifts.high
    if not group.pooled and (lift := group.first.lift_pp) is not None:
        low, high = lift.low, lift.high
    return Cell(strip(low, mid, high, ends, group.role), class_="strip", number=False)


def _ends(groups: Sequence[Group]) -> tuple[float, float] | None:
    """A common axis for all lifts, with 0 on it."""
    values = [
        value
        for group in groups
        for arm in group.arms
        if (lift := arm.lift_pp) is not None
        for value in (lift.low, lift.mean, lift.high)
    ]
    if not values:
        return None
    low, high = min(0.0, *values), max(0.0, *values)
    return (low, high) if high > low else (-1.0, 1.0)
