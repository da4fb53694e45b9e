"""Writes bench/RESULTS.md from the JSON files of bench/results: python -m bench.results.

The text depends on the files alone, so that a test can tell whether it is up to date.
"""

from __future__ import annotations

import argparse
from itertools import groupby
from pathlib import Path

from bench.rows import FOLDER, RESULTS, Report, Row, number
from bench.targets import BENCHES, TARGETS, Target

PAGE = FOLDER / "RESULTS.md"
# Kinds of rows with a table for each second part of their ids.
_SPLIT = frozenset({"affine", "cuda", "dense", "inject", "record"})

_HEAD = """\
# Benchmarks

Written by `python -m bench.results` from `bench/results/*.json`; do not edit. Each file comes from
`python -m bench.NAME --json bench/results/NAME.json` on a machine with nothing else to do. The
docstring of `bench/NAME.py` says what is measured and against what.

*baseline* is the same of what we compare with, the best that we could write without cogit unless
the note says otherwise. *ratio* is how many times better ours is, above 1 where it wins: a median
over runs that took turns in one process. *of limit* is the share that we reach of what the machine,
or an exact answer, allows at best.
"""


def read_reports(folder: Path = RESULTS) -> dict[str, Report]:
    """The reports of a folder by bench. ValueError for a stray file or a ``--quick`` run."""
    reports: dict[str, Report] = {}
    for path in sorted(folder.glob("*.json")):
        report = Report.read(path)
        if path.stem != report.bench or report.bench not in BENCHES:
            message = (
                f"[results] expected files named after benches {BENCHES}, got {path.name} of "
                f"{report.bench!r}; rename or remove it"
            )
            raise ValueError(message)
        if report.quick:
            message = (
                f"[results] expected a full run in {path.name}, got one with --quick; run "
                f"python -m bench.{report.bench} --json bench/results/{path.name}"
            )
            raise ValueError(message)
        reports[report.bench] = report
    return {name: reports[name] for name in BENCHES if name in reports}


def render(reports: dict[str, Report]) -> str:
    """The whole page."""
    parts = [_HEAD, _acceptance(reports)]
    parts += [_section(name, reports.get(name)) for name in BENCHES]
    return "\n".join(parts)


def _acceptance(reports: dict[str, Report]) -> str:
    lines = [_judged(target, reports) for target in TARGETS]
    return "## Acceptance\n\n" + _table(("row", "asked", "measured", "", "what"), lines)


def _judged(target: Target, reports: dict[str, Report]) -> tuple[str, ...]:
    """One line of the acceptance table; a pattern is judged by its worst row."""
    asked = f"{target.rule.replace('_', ' ')} {target.bound:g}"
    report = reports.get(target.bench)
    found = None if report is None else target.worst(report.rows)
    if found is None:
        return (f"`{target.pattern}`", asked, "", unmeasured(target.bench), target.text)
    row, measured = found
    shown = number(measured) + (f" (`{row.id}`)" if target.many else "")
    mark = "met" if target.met_by(measured) else "**missed**"
    return (f"`{target.pattern}`", asked, shown, mark, target.text)


def unmeasured(bench: str) -> str:
    """Why there is no number."""
    return "unmeasured: no GPU at hand" if bench == "cuda" else f"unmeasured: run bench.{bench}"


def _section(name: str, report: Report | None) -> str:
    if report is None:
        return f"## {name}\n\n{unmeasured(name)}\n"
    facts = (
        f"{report.machine}; threads: {report.threads}; commit {report.commit}; `{report.command}`"
    )
    tables = [
        f"### {kind}\n\n{_table(('row', 'value', 'baseline', 'ratio', 'of limit', 'note'), lines)}"
        for kind, lines in _groups(report.rows)
    ]
    return "\n".join([f"## {name}\n\n{facts}\n", *tables])


def _groups(rows: tuple[Row, ...]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Rows of one kind together, in the order of the file."""
    order = list(dict.fromkeys(_kind(row) for row in rows))
    ranked = sorted(rows, key=lambda row: order.index(_kind(row)))
    return [(kind, [_line(row) for row in some]) for kind, some in groupby(ranked, key=_kind)]


def _kind(row: Row) -> str:
    parts = row.id.split(".")
    return ".".join(parts[: 2 if parts[0] in _SPLIT else 1])


def _line(row: Row) -> tuple[str, ...]:
    share = "" if row.of_limit is None else f"{100 * row.of_limit:.0f} %"
    value = f"{number(row.value)} {row.unit}"
    return (f"`{row.id}`", value, number(row.baseline), number(row.ratio), share, row.note)


def _table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    rows = [head, ("---",) * len(head), *lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0]).parse_args()
    PAGE.write_text(render(read_reports()), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(FOLDER.parent)}")


if __name__ == "__main__":
    main()
