"""``cogit doctor``: what this installation can do, and how to mend what it cannot."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import typer

from cogit.cli import flags
from cogit.cli.console import print_json

NAME = "doctor"
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def command(
    json_output: flags.Json = False,
) -> None:
    """Check the installation. Exits with 1 if a part does not work."""
    from rich.console import Console
    from rich.text import Text

    from cogit.doctor import examine

    checks = examine()
    count = Counter(check.status for check in checks)
    if json_output:
        print_json({"ok": not count["fail"], "checks": [asdict(check) for check in checks]})
    else:
        console = Console(soft_wrap=True, highlight=False)
        for check in checks:
            line = Text(f"{check.status:<5}", style=_COLOURS[check.status])
            console.print(line.append(f"{check.name:<18}{check.detail}", style="default"))
            if check.remedy:
                console.print(Text(f"{'':<23}→ {check.remedy}"))
        console.print(f"{count['ok']} ok, {count['warn']} to note, {count['fail']} failed")
    if count["fail"]:
        raise typer.Exit(1)
