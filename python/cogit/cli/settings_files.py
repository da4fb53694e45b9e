"""TOML files of settings: where they may be, and reading one safely.

They are, from the weakest: the defaults packaged with cogit, ``config.toml`` of the user, the file
that ``COGIT_CONFIG`` names, the file of ``--config``. None is looked for in the current folder.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cogit.cli.toml_lines import Keys, key_lines

CONFIG_VARIABLE = "COGIT_CONFIG"
PACKAGED = Path(__file__).parent.parent / "data" / "defaults.toml"
MOST_BYTES = 256 * 1024
MOST_DEEP = 16
# tomllib takes a time that grows as the square of a key's parts.
_DEEP_KEY = re.compile(
    rf"(?:^|[\[{{,])\s*(?:(?:[A-Za-z0-9_-]+|\"[^\"\n]*\"|'[^'\n]*')\s*\.\s*){{{MOST_DEEP}}}",
    re.MULTILINE,
)
_TOO_DEEP = "tables or arrays nested too deep"


@dataclass(frozen=True)
class Place:
    """A file that may hold settings, and why it is looked at."""

    path: Path
    origin: str
    required: bool


@dataclass(frozen=True)
class SettingsFile:
    """A file that was read."""

    path: Path
    origin: str
    text: str
    values: dict[str, Any]

    @cached_property
    def lines(self) -> dict[Keys, int]:
        return key_lines(self.text)

    def at(self, keys: Keys) -> str:
        """``file:line`` of a key, or of the nearest table around it."""
        for length in range(len(keys), 0, -1):
            if line := self.lines.get(keys[:length]):
                return f"{self.path}:{line}"
        return str(self.path)


def places(config: Path | None) -> list[Place]:
    """The files looked at, from the weakest. config: the value of ``--config``.

    Raises ValueError for a ``COGIT_CONFIG`` that depends on the current folder.
    """
    found = [Place(PACKAGED, "packaged defaults", True)]
    if (user := user_file()) is not None:
        found.append(Place(user, "user file", False))
    if named := os.environ.get(CONFIG_VARIABLE):
        path = Path(named).expanduser()
        if not path.is_absolute():
            message = (
                f"[config] expected an absolute path in {CONFIG_VARIABLE}, got {named}; a file of "
                f"the current folder is named by --config"
            )
            raise ValueError(message)
        found.append(Place(path, CONFIG_VARIABLE, True))
    if config is not None:
        found.append(Place(config, "--config", True))
    return found


def user_file() -> Path | None:
    """``cogit/config.toml`` in XDG_CONFIG_HOME or ~/.config; None without a home.

    A relative XDG_CONFIG_HOME counts as none, as the XDG Base Directory Specification says.
    """
    named = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if named.is_absolute():
        return named / "cogit" / "config.toml"
    try:
        return Path.home() / ".config" / "cogit" / "config.toml"
    except RuntimeError:
        return None


def read_present(config: Path | None) -> list[SettingsFile]:
    """Those of `places` that exist, read. Raises as `read`, and where a named one is missing."""
    found = []
    for place in places(config):
        if place.required or os.path.lexists(place.path):
            found.append(read(place))
    return found


def read(place: Place) -> SettingsFile:
    """Read and parse one file; nothing is checked against the flags here.

    Raises ValueError for what is no plain file (or a link to one), above 256 KiB, not UTF-8, not
    TOML, nested too deep, or may not be read; FileNotFoundError.
    """
    text = _text(place)
    if _DEEP_KEY.search(text):
        raise _refusal(place, _TOO_DEEP)
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise _refusal(place, _TOO_DEEP) from None
    except ValueError as error:  # also from numbers with thousands of digits
        raise _refusal(place, _short(str(error))) from None
    if _is_deep(values):
        raise _refusal(place, _TOO_DEEP)
    return SettingsFile(place.path, place.origin, text, values)


def _is_deep(values: Any) -> bool:
    level = [values]
    for _ in range(MOST_DEEP):
        tables = [one for one in level if isinstance(one, dict)]
        lists = [one for one in level if isinstance(one, list)]
        level = [v for one in tables for v in one.values()] + [v for one in lists for v in one]
    return bool(level)


def _text(place: Place) -> str:
    path = place.path
    try:
        # A pipe without a writer would block the open.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        message = f"[config] expected a file of settings at {path} ({place.origin}), got none"
        raise FileNotFoundError(message) from None
    except (OSError, ValueError) as error:
        raise _refusal(place, _short(str(error))) from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _refusal(place, "what is no plain file")
        with os.fdopen(handle, "rb", closefd=False) as stream:
            data = stream.read(MOST_BYTES + 1)
    finally:
        os.close(handle)
    if len(data) > MOST_BYTES:
        raise _refusal(place, f"more than {MOST_BYTES // 1024} KiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refusal(place, f"bytes that are not UTF-8 (at {error.start})") from None


def _refusal(place: Place, found: str) -> ValueError:
    return ValueError(f"[config] expected TOML in {place.path} ({place.origin}), got {found}")


def _short(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:160])
