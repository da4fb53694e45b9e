"""One row a measurement, one JSON format for every bench, and the command line they share."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results"
# What measuring writes does not make the measured tree another one.
_WRITTEN = (":(exclude)bench/results", ":(exclude)bench/RESULTS.md")
_KEYS = ("bench", "command", "commit", "machine", "threads", "quick", "rows")


@dataclass(frozen=True)
class Row:
    """One measured value.

    id: stable, such as ``affine.f32.d3584.r16.n1``. baseline: the same of what it is compared with,
    in the same unit. ratio: how many times better than the baseline, above 1 where ours wins.
    limit: what the machine, or an exact answer, allows at best; of_limit: the share of it that is
    reached. None where there is no such thing. note: what the baseline is, in a few words.
    """

    id: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    limit: float | None = None
    of_limit: float | None = None
    note: str = ""

    def rounded(self) -> Row:
        """Five significant digits: more is noise, and files stay readable."""
        numbers: dict[str, Any] = {
            name: float(f"{value:.5g}")
            for name, value in asdict(self).items()
            if isinstance(value, int | float)
        }
        return replace(self, **numbers)


@dataclass(frozen=True)
class Report:
    """The rows of one run of one bench, and where they come from."""

    bench: str
    command: str
    commit: str
    machine: str
    threads: int
    quick: bool
    rows: tuple[Row, ...]

    def write(self, path: Path) -> None:
        """Write the JSON file in one step, so that no reader ever sees half of it."""
        text = json.dumps(asdict(self), indent=2, allow_nan=False)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(text + "\n", encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read a file that ``write`` wrote; ValueError for another."""
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        found = sorted(data) if isinstance(data, dict) else type(data).__name__
        if found != sorted(_KEYS):
            message = f"[bench] expected the keys {sorted(_KEYS)} in {path.name}, got {found}"
            raise ValueError(message)
        try:
            rows = tuple(Row(**row) for row in data["rows"])
        except TypeError as error:
            message = f"[bench] expected rows of a bench in {path.name}, got: {error}"
            raise ValueError(message) from error
        return cls(**{**data, "rows": rows})


def arguments(description: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What every bench takes: ``--json FILE`` and ``--quick``."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument(
        "--quick", action="store_true", help="a minute at most: smaller, fewer rounds, rough"
    )
    return parser.parse_args(argv)


def finish(
    bench: str,
    rows: Sequence[Row],
    options: argparse.Namespace,
    *,
    threads: int,
    device: str = "",
) -> Report:
    """Print the table and write the file that was asked for. device: a GPU beside the processor."""
    report = Report(
        bench=bench,
        command=f"python -m bench.{bench}" + " --quick" * options.quick,
        commit=commit(),
        machine=f"{device} with {machine()}" if device else machine(),
        threads=threads,
        quick=options.quick,
        rows=tuple(row.rounded() for row in rows),
    )
    repeated = {row.id for row in rows if [other.id for other in rows].count(row.id) > 1}
    if repeated:
        message = f"[bench] expected every id once, got {sorted(repeated)} again"
        raise ValueError(message)
    print(f"\n{report.machine}; threads: {threads}; commit {report.commit}\n")
    print(table(report.rows))
    if options.json:
        report.write(options.json)
    return report


def table(rows: Sequence[Row]) -> str:
    """The rows in aligned columns."""
    head = ("id", "value", "unit", "baseline", "ratio", "limit", "of limit", "note")
    lines = [head, *(cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    left = {0, 2, 7}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def cells(row: Row) -> tuple[str, ...]:
    """A row as text; an empty cell for what is not there."""
    share = "" if row.of_limit is None else f"{row.of_limit:.2f}"
    numbers = (number(row.value), row.unit, number(row.baseline), number(row.ratio))
    return (row.id, *numbers, number(row.limit), share, row.note)


def number(value: float | None) -> str:
    """Three or four significant digits without an exponent where that is readable."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine() -> str:
    """The processor, its cores, and the kernel variant that runs on it."""
    from cogit.errors import BackendMissingError

    try:
        from cogit import kernels

        variant = kernels.info()["cpu_variant"]
    except BackendMissingError:
        variant = "kernels not built"
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return f"{name}, {cores()} cores, {variant}"


def commit() -> str:
    """The commit that was measured, with ``-dirty`` where the tree holds anything else."""
    head = _git("rev-parse", "--short", "HEAD")
    if head is None:
        return "unknown"
    return f"{head}-dirty" if _git("status", "--porcelain", "--", ".", *_WRITTEN) else head


def _git(*words: str) -> str | None:
    run = subprocess.run(
        ["git", "-C", str(FOLDER.parent), *words], capture_output=True, text=True, check=False
    )
    return run.stdout.strip() if run.returncode == 0 else None
