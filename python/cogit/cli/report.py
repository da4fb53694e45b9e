"""``cogit report``: Markdown, page and plots of an evaluation, again from its report.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cogit.cli.console import print_json, say
from cogit.cli.outputs import Force, require_writable

NAME = "report"


def command(
    reports: Annotated[
        list[Path],
        typer.Argument(help="report.json of an evaluation; of several, to see them side by side."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the files; made where there is none.")],
    force: Force = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw reports again: Markdown, one HTML page and plots; several are put side by side."""
    from cogit.reporting.load import load_report
    from cogit.reporting.write import render_all, write_files

    paths = list(dict.fromkeys(reports))
    if len(paths) != len(reports):
        message = "[report] expected different reports, got one of them twice; name each once"
        raise ValueError(message)
    if out.exists() and not out.is_dir():
        message = f"[out] expected a folder, got the file {out}; name a folder"
        raise NotADirectoryError(message)
    loaded = {path: load_report(path) for path in paths}
    files = render_all(loaded)
    if out.is_dir():
        for name in files:
            require_writable({"out": out / name}, {"REPORT": list(map(str, paths))}, force=force)
    out.mkdir(parents=True, exist_ok=True)
    written = write_files(out, files)
    verdicts = {str(path): report.verdict for path, report in loaded.items()}
    if json_output:
        print_json({"verdicts": verdicts, "files": [str(path) for path in written.values()]})
        return
    for path, report in loaded.items():
        print(f"{path}: {report.verdict}")
        for reason in report.reasons:
            print(f"  {reason}")
    say("written", ", ".join(str(path) for path in written.values()))
