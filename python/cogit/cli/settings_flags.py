"""The commands and their flags, as settings: read off the command line's own definition.

A flag ``--max-tokens`` of ``cogit gate`` is the key ``max_tokens`` of the table ``[gate]`` and the
variable ``COGIT_GATE_MAX_TOKENS``; of a command in a group, such as ``cogit prompts check``, it is
in ``[prompts.check]`` and ``COGIT_PROMPTS_CHECK_MAX_TOKENS``. Shared sections hold a key for every
command that has a flag of that name.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import typer
from typer.main import get_command

from cogit.cli.loading import MODEL_VARIABLE

Path = tuple[str, ...]

# The keys of shared sections. Those of the sections in _PREFIXED are the flags that begin with the
# section's name: [cost] rate is --cost-rate.
SECTIONS = {
    "runtime": ("backend", "model", "device", "dtype", "threads", "n_ctx", "seed"),
    "sampling": ("max_tokens", "temperature", "top_k", "top_p"),
    "evaluation": (
        *("judge", "match", "seeds", "n_random", "n_same_subspace", "n_shuffled"),
        *("resamples", "doses", "max_records"),
    ),
    "memory": (),
    "cost": (),
}
_PREFIXED = ("memory", "cost")
# Flags that share no more than the name with those of a section.
_HOMONYMS = (("subspace", "temperature"),)
# These look at settings, and must work when a file of them does not.
NO_SETTINGS = ("config",)


@dataclass(frozen=True)
class Flag:
    """One option of one command. parameter: click's. function: what the command calls."""

    key: str
    parameter: Any
    path: Path
    function: Any

    @property
    def name(self) -> str:
        """Of the argument that the command's function takes."""
        return str(self.parameter.name)

    @property
    def option(self) -> str:
        return str(_long(self.parameter))

    @property
    def is_bool(self) -> bool:
        return is_bool(self.parameter)

    @property
    def keys(self) -> Path:
        """Where its own setting stands in a file."""
        return (*self.path, self.key)

    @property
    def variable(self) -> str:
        return variable(*self.keys)

    @property
    def takes_any_model(self) -> bool:
        """Whether it is a --model that may be left to COGIT_MODEL, as its help then says."""
        return self.key == "model" and MODEL_VARIABLE in str(self.parameter.show_default)

    @property
    def shared(self) -> Path | None:
        """Section and key that feed it too."""
        if self.keys in _HOMONYMS:
            return None
        for section, keys in SECTIONS.items():
            if self.key in keys and (self.key != "model" or self.takes_any_model):
                return (section, self.key)
        for section in _PREFIXED:
            if self.key.startswith(f"{section}_"):
                return (section, self.key.removeprefix(f"{section}_"))
        return None

    @property
    def default(self) -> Any:
        """As TOML has it: None where there is none."""
        value = self.parameter.default
        if value is None or callable(value):
            return None
        return plain(value) or None if isinstance(value, list | tuple) else plain(value)


@dataclass(frozen=True)
class CommandFlags:
    """A command that does something; groups are none. command: click's."""

    path: Path
    command: Any

    @cached_property
    def flags(self) -> dict[str, Flag]:
        """By key, in the order of the help text."""
        function = inspect.unwrap(self.command.callback)
        return {
            key_of(parameter): Flag(key_of(parameter), parameter, self.path, function)
            for parameter in self.command.params
            if parameter.param_type_name == "option" and not parameter.is_eager
        }


@dataclass(frozen=True, eq=False)
class Programs:
    """Everything that has flags. apps: typer's, by the path that their commands are below."""

    apps: Mapping[Path, typer.Typer]

    @cached_property
    def roots(self) -> dict[Path, Any]:
        """click's command of each app."""
        return {prefix: get_command(app) for prefix, app in self.apps.items()}

    @cached_property
    def commands(self) -> dict[Path, CommandFlags]:
        found: dict[Path, CommandFlags] = {}
        for prefix, root in self.roots.items():
            for path, command in _leaves(root, prefix):
                if path[:1] != NO_SETTINGS:
                    found[path] = CommandFlags(path, command)
        return found

    @cached_property
    def shared(self) -> dict[str, dict[str, list[Flag]]]:
        """The flags that each key feeds, by section and key; those without a flag are none."""
        found: dict[str, dict[str, list[Flag]]] = {
            section: {key: [] for key in keys} for section, keys in SECTIONS.items()
        }
        for command in self.commands.values():
            for flag in command.flags.values():
                if flag.shared is not None:
                    section, key = flag.shared
                    found[section].setdefault(key, []).append(flag)
        return {
            section: {key: flags for key, flags in keys.items() if flags}
            for section, keys in found.items()
        }

    @cached_property
    def variables(self) -> set[str]:
        """The names of all environment variables that set a flag."""
        own = {f.variable for c in self.commands.values() for f in c.flags.values()}
        return own | {variable(s, key) for s, keys in self.shared.items() for key in keys}


def plain(value: Any) -> Any:
    """A value in the types of TOML: choices and paths as texts."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    value = getattr(value, "value", value)
    return value if isinstance(value, bool | int | float) else str(value)


def is_bool(parameter: Any) -> bool:
    """Whether a parameter is an option with two values and no argument."""
    return bool(
        parameter.param_type_name == "option"
        and parameter.is_flag
        and not parameter.is_eager
        and not getattr(parameter, "count", False)
    )


def key_of(parameter: Any) -> str:
    """The name of a setting: the long option with underscores."""
    return _long(parameter).removeprefix("--").replace("-", "_")


def variable(*names: str) -> str:
    return "_".join(("COGIT", *names)).replace("-", "_").upper()


def _long(parameter: Any) -> str:
    return next((str(o) for o in parameter.opts if o.startswith("--")), str(parameter.opts[0]))


def _leaves(command: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from _leaves(child, (*path, name))
