"""report.md: the verdict first, then effect, cost and controls side by side."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cogit.reporting import columns, numbers
from cogit.reporting.facts import comparison_rows, condition_rows, flat, power_rows
from cogit.reporting.groups import WORDS, Group, groups_of
from cogit.reporting.markup import cut, visible
from cogit.reporting.schema import EvaluationReport
from cogit.reporting.schema_parts import Record

# Whatever Markdown or the HTML within it could read as more than a letter: anywhere; before what
# would make a link of it; at the start of a line.
_SPECIAL = re.compile(
    r"([\\`*_{}<>|~&$]|\](?=[(\[:])|:(?=//)|^[\[#=]|^\+(?= )|^-(?=[ -])|(?<=^\d)[.)](?= ))"
)
_MOST_SAMPLES = 12
_MOST_ROWS = 1000
_TICKS = {True: "[x]", False: "[ ]", None: "[–]"}


def to_markdown(report: EvaluationReport, *, pictures: Sequence[str] = ()) -> str:
    """The whole report as Markdown; ``pictures`` are file names beside it."""
    groups = groups_of(report)
    parts = [
        f"# {text(report.title)}",
        "",
        f"Verdict: **{report.verdict}**",
        "",
        *(f"- {text(reason)}" for reason in report.reasons),
        *_section("Effect, cost and controls", _arms(groups)),
        *_section("Between arms", table(*comparison_rows(report))),
        *_section("Criteria", _criteria(report)),
        *_section("Dose-response", _doses(report)),
        *_section("Power", table(("", ""), power_rows(report))),
        *_section("Five conditions", table(*condition_rows(report))),
        *_section("Samples", _samples(report.records)),
        *_section("Settings", _settings(report)),
        *_section("Every draw", _draws(groups)),
        *(f"\n![{text(name)}]({name})" for name in pictures),
        "",
    ]
    return "\n".join(parts)


def text(value: str, length: int = 1000) -> str:
    """Text that Markdown shows as it is, on one line."""
    line = " ".join(visible(cut(value, length).replace("\n", "⏎")).split())
    return _SPECIAL.sub(r"\\\1", line)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; the cells are text. Nothing where there is no row."""
    found = [list(map(text, row)) for row in rows]
    if not found:
        return []
    lines = [list(map(text, header)), ["---"] * len(header), *found]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"## {title}", "", *lines] if lines else []


def _arms(groups: Sequence[Group]) -> list[str]:
    main, more = (columns.used(part, groups) for part in (columns.MAIN, columns.MORE))
    lines: list[str] = []
    for part in (main, more):
        header = ("arm", *(column.label for column in part))
        rows = ((group.label, *(column.cell(group) for column in part)) for group in groups)
        lines += [*table(header, rows), ""]
    return [
        *lines,
        "Intervals are 95 %, over prompts. Random controls: mean (lowest … highest draw).",
    ]


def _criteria(report: EvaluationReport) -> list[str]:
    return [
        f"- {_TICKS[c.holds]} {text(c.name)}: {text(c.found or 'not measured')}"
        f"{f' (expected {text(c.expected)})' if c.expected else ''}"
        f"{'' if c.decides else ', does not decide'}"
        for c in report.criteria
    ]


def _doses(report: EvaluationReport) -> list[str]:
    lines: list[str] = []
    for name, dose in report.dose.items():
        said = [f"**{text(name)}**"]
        if dose.slope is not None:
            said.append(f"slope {numbers.interval(dose.slope)} {text(dose.slope.unit)}")
        if dose.spearman is not None:
            said.append(f"rank correlation {numbers.compact(dose.spearman)}")
        rows = (
            (
                numbers.compact(p.strength),
                numbers.percent(p.share_positive),
                numbers.MISSING
                if p.low is None or p.high is None
                else numbers.bounds(p.low, p.high, numbers.percent),
                numbers.shown(p.perplexity_ratio, numbers.ratio),
            )
            for p in dose.points[:_MOST_ROWS]
        )
        header = ("strength", "judged positive", "95 %", "perplexity ratio")
        lines += [", ".join(said), "", *table(header, rows), ""]
    return lines


def _samples(records: Sequence[Record]) -> list[str]:
    """The first prompts with what each arm wrote for the first seed."""
    by_prompt: dict[str, dict[tuple[str, int], Record]] = {}
    for record in records:
        if record.prompt in by_prompt or len(by_prompt) < _MOST_SAMPLES:
            by_prompt.setdefault(record.prompt, {}).setdefault((record.arm, record.sign), record)
    lines: list[str] = []
    for prompt, found in by_prompt.items():
        lines += [f"**{text(prompt)}**", ""]
        lines += [f"- {_teller(r)}: {text(r.text)}" for r in list(found.values())[:_MOST_SAMPLES]]
        lines.append("")
    return lines


def _teller(record: Record) -> str:
    towards = {1: ", to +", -1: ", to −", 0: ""}[record.sign]
    score = "" if record.score is None else f" ({numbers.signed(record.score, 2)})"
    return f"{text(record.arm)}{towards}{score}"


def _settings(report: EvaluationReport) -> list[str]:
    return [f"- {text(name)}: {text(value)}" for name, value in flat(report)]


def _draws(groups: Sequence[Group]) -> list[str]:
    pooled = [group for group in groups if group.pooled]
    chosen = columns.used((*columns.MAIN, *columns.MORE), pooled)
    single = [
        Group(arm.name, group.role, (arm,), pooled=False) for group in pooled for arm in group.arms
    ]
    rows = (
        (WORDS[one.role], str(one.first.draw), *(column.cell(one) for column in chosen))
        for one in single[:_MOST_ROWS]
    )
    return table(("control", "draw", *(column.label for column in chosen)), rows)
