"""Running a study: each trial through the pipeline in a folder of its own, resumable."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.artefact import write_bytes
from cogit.errors import BackendMissingError, MemoryRefusedError
from cogit.pipeline import experiment_log
from cogit.pipeline.files import write_json
from cogit.pipeline.freshness import Policy
from cogit.pipeline.gates import GateFailed
from cogit.pipeline.lock import run_lock
from cogit.pipeline.runner import OpenBackend, Options, run_pipeline
from cogit.pipeline.trials import FILE, Row, Trials

if TYPE_CHECKING:
    from cogit.pipeline.study_file import Trial

COLUMNS = ("lift_pp", "lift_low", "lift_high", "kl", "perplexity_ratio", "p")


@dataclass(frozen=True)
class StudyResult:
    """All trials. best: the number of the one with the largest lift among those with an effect."""

    rows: tuple[Row, ...]
    best: int | None

    @property
    def failed(self) -> int:
        return sum(row.status != "done" for row in self.rows)

    def table(self) -> list[dict[str, Any]]:
        """One row a trial, the same keys in each."""
        return [
            {
                "number": row.number,
                "name": row.name,
                "status": row.status,
                "verdict": row.metrics.get("verdict"),
                **{name: row.metrics.get(name) for name in COLUMNS},
                "best": row.number == self.best,
                "seconds": row.seconds,
                "folder": row.folder,
                "error": row.error,
            }
            for row in self.rows
        ]


def run_study(
    trials: Sequence[Trial], out: Path, open_backend: OpenBackend, options: Options | None = None
) -> StudyResult:
    """Run what is not finished, write the summary, and return all trials of the folder.

    A trial that a gate stops, or that cannot be, is marked failed with its reason, and the others
    go on. A killed study goes on where it stopped, within its trial too; a finished trial is never
    run again, also where the file has changed since. ``options`` are those of every run.
    """
    options = options or Options()
    _require_ours(out)
    out.mkdir(parents=True, exist_ok=True)
    with run_lock(out, lambda text: options.say("lock", text)):
        table = Trials(out)
        table.add(list(trials))
        by_key = {trial.key: trial for trial in trials}
        waiting = [row for row in table.rows() if row.status != "done" and row.key in by_key]
        for done, row in enumerate(waiting):
            options.say("trial", f"{done + 1} of {len(waiting)}: {row.name} ({row.folder})")
            _run_trial(by_key[row.key], row, out, table, open_backend, options)
            summarise(out, table)
        return summarise(out, table)


def _run_trial(
    trial: Trial, row: Row, out: Path, table: Trials, open_backend: OpenBackend, options: Options
) -> None:
    # Of what an interrupted trial finished, all is kept; its folder is the study's own.
    own = replace(
        options,
        policy=Policy(resume=True),
        log=options.log or out.absolute().parent / experiment_log.FILE,
    )
    table.mark(row.key, "running")
    started = time.perf_counter()
    try:
        outcome = run_pipeline(trial.plan, out / row.folder, open_backend, own)
    except (GateFailed, ValueError, OSError, BackendMissingError, MemoryRefusedError) as error:
        text = " ".join(str(error).split())
        options.say("failed", text)
        table.mark(row.key, "failed", error=text, seconds=time.perf_counter() - started)
        return
    assert outcome.report is not None  # all phases were run
    metrics = dict(outcome.report["metrics"])
    table.mark(row.key, "done", metrics, seconds=outcome.seconds["total"])


def summarise(out: Path, table: Trials) -> StudyResult:
    """Write ``summary.json``, ``summary.csv`` and ``summary.md`` from the table."""
    rows = tuple(table.rows())
    result = StudyResult(rows, _best(rows))
    lines = result.table()
    write_json(out / "summary.json", {"trials": lines, "best": result.best})
    write_bytes(out / "summary.csv", _csv(lines).encode())
    write_bytes(out / "summary.md", _markdown(lines).encode())
    return result


def _best(rows: Sequence[Row]) -> int | None:
    able = [
        row
        for row in rows
        if row.metrics.get("verdict") == "effect" and row.metrics.get("lift_pp") is not None
    ]
    return max(able, key=lambda row: float(row.metrics["lift_pp"])).number if able else None


def _csv(lines: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, lines[0] if lines else ["number"], lineterminator="\n")
    writer.writeheader()
    # A name that begins like a formula would be one in a spreadsheet.
    writer.writerows({k: _plain(v) for k, v in line.items()} for line in lines)
    return stream.getvalue()


def _plain(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value


def _markdown(lines: list[dict[str, Any]]) -> str:
    names = ("number", "name", "status", "verdict", *COLUMNS, "best", "error")
    rows = [names, ("---",) * len(names)]
    rows += [tuple(_cell(line[name]) for name in names) for line in lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _require_ours(out: Path) -> None:
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    if (out.exists() and not out.is_dir()) or (
        FILE not in names and any(not name.startswith(".") for name in names)
    ):
        message = f"[out] expected a new folder or one of a study, got {out}; name another"
        raise FileExistsError(message)
