"""Which value each flag of a call has, and where it comes from.

A nearer source wins: flag, environment, ``--config``, ``COGIT_CONFIG``, user file, packaged
defaults. Within one of them a command's own key wins over a shared section. Values reach the
commands as click's default map, so that they need not know; a flag that was not given overrides
nothing, and a value from a file or a variable counts as given.

A shared model, as in ``[runtime]`` or ``COGIT_MODEL``, is what runs where a command needs a model
and none was named; it does not count as given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from cogit.cli.arguments import Line, read_line
from cogit.cli.loading import SHARED_MODEL, ModelSource
from cogit.cli.settings_env import set_for, warn_of_unknown
from cogit.cli.settings_files import PACKAGED, SettingsFile, read_present
from cogit.cli.settings_flags import NO_SETTINGS, CommandFlags, Flag, Path, Programs, plain
from cogit.cli.usage import USAGE_ERROR, usage_message

_CURRENT: ContextVar[Call] = ContextVar("cogit_call")


@dataclass(frozen=True)
class Value:
    """A value and its source. given: whether the command sees it as given."""

    value: Any
    source: str
    given: bool = True


@dataclass(frozen=True)
class Call:
    """One command line with its settings. below: the path of the program's commands."""

    line: Line
    programs: Programs
    below: Path
    command: CommandFlags | None = None
    values: Mapping[str, Value] = field(default_factory=dict)

    def default_map(self) -> dict[str, Any]:
        """For click: values by parameter, below the names of subcommands."""
        own: dict[str, Any] = {}
        if self.command is not None:
            for key, value in self.values.items():
                flag = self.command.flags[key]
                if value.given and flag.name not in self.line.given:
                    own[flag.name] = value.value
        own |= self.line.booleans
        for name in reversed(self.line.path):
            own = {name: own}
        return own

    def explain(self, message: str) -> str:
        """The message, with the sources of the settings that it names."""
        notes = []
        for flag in self.command.flags.values() if self.command else ():
            value = self.values.get(flag.key)
            if value is None or flag.name in self.line.given or _is_packaged(value):
                continue
            dashed = flag.option.removeprefix("--")
            if re.search(rf"(--|\[){re.escape(dashed)}(?![\w-])", message):
                notes.append(f"{flag.option} is from {value.source}")
        return "; ".join([message, *notes])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While the command runs: the shared model, and this call for ``cogit config``."""
        model = self.values.get("model")
        shared = None
        if self.command and model and self.command.flags["model"].takes_any_model:
            shared = ModelSource(str(model.value), model.source.removeprefix("env "))
        if self.line.given & {"model"}:
            shared = None
        tokens = SHARED_MODEL.set(shared), _CURRENT.set(self)
        try:
            yield
        finally:
            SHARED_MODEL.reset(tokens[0])
            _CURRENT.reset(tokens[1])


def current() -> Call:
    """The call that runs; LookupError outside of one."""
    return _CURRENT.get()


def prepare(programs: Programs, below: Path, arguments: Sequence[str]) -> Call:
    """Read a command line and, unless it asks for help, the settings of its command.

    Raises ValueError or OSError for files, variables and flags that say nothing valid.
    """
    line = read_line(programs.roots[below], arguments)
    path = (*below, *line.path)
    if line.asks_help or path[:1] == NO_SETTINGS:
        return Call(line, programs, below)
    command = programs.commands.get(path)
    if command is None:
        return Call(line, programs, below)
    warn_of_unknown(programs)
    return Call(line, programs, below, command, values_of(command, valid_files(line, programs)))


def valid_files(line: Line, programs: Programs) -> list[SettingsFile]:
    """The files that hold settings, from the weakest; those that are not our own are checked."""
    files = read_present(line.config)
    for file in files:
        if file.path != PACKAGED:
            from cogit.cli.settings_schema import require_valid

            require_valid(file, programs)
    return files


def values_of(command: CommandFlags, files: Sequence[SettingsFile]) -> dict[str, Value]:
    """The value of each flag that has one without the command line.

    Raises ValueError, with the source, for a value that the flag does not take.
    """
    found = {}
    for flag in command.flags.values():
        sources = [*_in_files(flag, files), *_in_environment(flag)]
        if sources:
            given = any(one.given for one in sources)
            last = sources[-1]
            value = last.value if _is_packaged(last) else _converted(command, flag, last)
            found[flag.key] = Value(value, last.source, given)
    return found


def _converted(command: CommandFlags, flag: Flag, value: Value) -> Any:
    """As click reads it, in the types of TOML."""
    context = command.command.make_context("cogit", [], resilient_parsing=True)
    try:
        return plain(flag.parameter.process_value(context, value.value))
    except USAGE_ERROR as error:
        message = f"[config] {usage_message(error)}; {flag.option} is from {value.source}"
        raise ValueError(message) from None


def _in_files(flag: Flag, files: Sequence[SettingsFile]) -> Iterator[Value]:
    for file in files:
        for keys in (flag.shared, flag.keys):
            if keys is None or (value := _at(file.values, keys)) is None:
                continue
            source = file.at(keys)
            if file.path == PACKAGED:
                source = f"packaged default {source}"
            yield Value(value, source, _counts(flag, keys == flag.keys))


def _in_environment(flag: Flag) -> Iterator[Value]:
    for name, value, own in set_for(flag):
        yield Value(value, f"env {name}", _counts(flag, own))


def _counts(flag: Flag, own: bool) -> bool:
    return own or not flag.takes_any_model


def _is_packaged(value: Value) -> bool:
    return value.source.startswith("packaged default ")


def _at(values: Mapping[str, Any], keys: Path) -> Any:
    found: Any = values
    for key in keys:
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return found
