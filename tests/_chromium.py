"""A real browser without a head: what a page draws, complains of, and asks the network for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell")
QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--enable-logging=stderr",
    # No name resolves: what a page asks for shows in the log and goes nowhere.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--virtual-time-budget=3000",
)


@dataclass(frozen=True)
class Visit:
    """picture: a PNG. dom: the page after its script. console: its messages. requests: its URLs."""

    picture: Path
    dom: str
    console: tuple[str, ...]
    requests: tuple[str, ...]


def chromium() -> str:
    """The browser's path; skips the test where there is none."""
    given = os.environ.get("COGIT_CHROMIUM")
    if given:
        return given
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} on PATH, COGIT_CHROMIUM not set")
    return found


def visit(page: Path, folder: Path, width: int = 1280, height: int = 2000) -> Visit:
    """Open a file in a fresh profile under ``folder``."""
    folder.mkdir()
    log, picture = folder / "net.json", folder / "picture.png"
    command = [
        chromium(),
        *QUIET,
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={log}",
        f"--screenshot={picture}",
        f"--window-size={width},{height}",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    console = tuple(line for line in done.stderr.splitlines() if ":CONSOLE:" in line)
    return Visit(picture, done.stdout, console, _requests(log))


def _requests(log: Path) -> tuple[str, ...]:
    """URLs that a page asked for; those of the browser's own services have no origin."""
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    asked = (event.get("params", {}) for event in events)
    return tuple(
        part["url"] for part in asked if part.get("initiator", "not an origin") != "not an origin"
    )
