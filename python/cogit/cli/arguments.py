"""The command line before click reads it: what it names, and what click's own flags cannot say.

Every boolean flag is written ``--x``, ``--no-x``, ``--x=false`` or ``--x false`` (true, false, 1,
0, yes, no). In the last form the word is a value only where it cannot be a positional argument: the
command takes none, or the others fill its places. ``--config FILE`` may stand anywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cogit.cli.settings_flags import is_bool

_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_CONFIG = "--config"


@dataclass
class Line:
    """A command line as read.

    path, command: the subcommands named, and click's command (a group where it names none).
    arguments: for click, without booleans and --config. given: the names of the parameters that
    have a value there. booleans: those by name.
    """

    path: tuple[str, ...] = ()
    command: Any = None
    arguments: list[str] = field(default_factory=list)
    given: set[str] = field(default_factory=set)
    booleans: dict[str, bool] = field(default_factory=dict)
    config: Path | None = None
    asks_help: bool = False


@dataclass
class _Boolean:
    """A boolean flag as it stands; word: the one after it, which may be its value."""

    name: str
    means: bool
    word: str | None


def read_line(command: Any, arguments: Sequence[str]) -> Line:
    """Read a command line. command: click's.

    Raises ValueError for a boolean with another value, and for no file or two with --config.
    """
    line = Line(command=command)
    tokens = deque(arguments)
    while (children := getattr(line.command, "commands", None)) is not None:
        _read_options(line, tokens, stop_at_word=True)
        if not tokens or tokens[0] not in children:
            line.arguments += tokens
            return line
        line.path += (tokens[0],)
        line.arguments.append(tokens[0])
        line.command = children[tokens.popleft()]
    _read_options(line, tokens, stop_at_word=False)
    return line


def parse_bool(word: str) -> bool | None:
    """true, 1, yes, false, 0 and no in any case; None for any other word."""
    return _WORDS.get(word.lower())


def negative(option: str) -> str:
    """``--no-x`` of ``--x``, and the reverse."""
    if option.startswith("--no-"):
        return f"--{option.removeprefix('--no-')}"
    return f"--no-{option.removeprefix('--')}"


def _read_options(line: Line, tokens: deque[str], *, stop_at_word: bool) -> None:
    """Move the tokens of one command into the line; in a group up to the subcommand."""
    named = {name: p for p in line.command.params for name in (*p.opts, *p.secondary_opts)}
    booleans = {} if stop_at_word else _booleans(line.command.params, named)
    parts: list[str | _Boolean] = []
    words = 0
    while tokens:
        token = tokens[0]
        name, equals, value = token.partition("=")
        if token == "--":
            words += len(tokens) - 1
            parts += tokens
            tokens.clear()
        elif not token.startswith("-") or token == "-":
            if stop_at_word:
                break
            words += 1
            parts.append(tokens.popleft())
        elif name == _CONFIG and (stop_at_word or _CONFIG not in named or _is_root(line)):
            tokens.popleft()
            _set_config(line, value if equals else (tokens.popleft() if tokens else ""))
        elif name in booleans:
            tokens.popleft()
            parts.append(_boolean(name, booleans[name], value if equals else None, tokens))
        else:
            line.asks_help |= name in ("--help", "--version")
            parts += _with_values(line, tokens, named.get(name), attached=bool(equals))
    places = sum(_places(p) for p in line.command.params if p.param_type_name == "argument")
    _settle(line, parts, places - words)


def _is_root(line: Line) -> bool:
    """Whether it is a program without subcommands, whose --config is the global one."""
    return not line.path


def _booleans(parameters: Iterable[Any], named: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """The parameter that each boolean option sets, and to what."""
    found: dict[str, tuple[str, bool]] = {}
    for parameter in parameters:
        if not is_bool(parameter):
            continue
        for option in parameter.opts:
            found[option] = (parameter.name, True)
            if negative(option) not in named:
                found[negative(option)] = (parameter.name, False)
        for option in parameter.secondary_opts:
            found[option] = (parameter.name, False)
    return found


def _boolean(
    option: str, meaning: tuple[str, bool], attached: str | None, tokens: deque[str]
) -> _Boolean:
    name, means = meaning
    if attached is None:
        follows = tokens[0] if tokens and parse_bool(tokens[0]) is not None else None
        return _Boolean(name, means, None if follows is None else tokens.popleft())
    value = parse_bool(attached)
    if value is None:
        message = (
            f"[{option.removeprefix('--')}] expected {option}, {option}=true or {option}=false, "
            f"got {attached!r}"
        )
        raise ValueError(message)
    return _Boolean(name, means == value, None)


def _with_values(
    line: Line, tokens: deque[str], parameter: Any | None, *, attached: bool
) -> list[str]:
    """An option and the values that click will read with it; unknown ones are left to click."""
    taken = [tokens.popleft()]
    if parameter is not None and parameter.param_type_name == "option":
        line.given.add(parameter.name)
        if not parameter.is_flag and not getattr(parameter, "count", False):
            for _ in range(min(len(tokens), parameter.nargs - attached)):
                taken.append(tokens.popleft())
    return taken


def _places(argument: Any) -> float:
    return float("inf") if argument.nargs < 0 else argument.nargs


def _settle(line: Line, parts: Sequence[str | _Boolean], spare: float) -> None:
    """Decide which words after booleans are values: those for which there is no place left."""
    for part in parts:
        if isinstance(part, str):
            line.arguments.append(part)
            continue
        value = part.means
        if part.word is not None and spare >= 1:
            spare -= 1
            line.arguments.append(part.word)
        elif part.word is not None:
            value = part.means == parse_bool(part.word)
        line.given.add(part.name)
        line.booleans[part.name] = value


def _set_config(line: Line, value: str) -> None:
    if not value or line.config is not None:
        message = f"[config] expected one {_CONFIG} FILE, got {'two' if value else 'none'}"
        raise ValueError(message)
    line.config = Path(value)
