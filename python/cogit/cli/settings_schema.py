"""What a file of settings may hold: a pydantic model made from the flags, strict and closed."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Any

from cogit.cli.settings_flags import SECTIONS, Flag, Path, Programs

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    from cogit.cli.settings_files import SettingsFile

_SHOWN = 60
_INPUT = "Input should be "


def require_valid(file: SettingsFile, programs: Programs) -> None:
    """ValueError for the first unknown table or key, or value of a wrong type, with its line."""
    from pydantic import ValidationError

    # As JSON, where strict means: texts for paths and choices, whole numbers for decimals, no more.
    text = json.dumps(file.values, default=lambda _: {})
    try:
        _model(programs).model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ValueError(_message(file, programs, error)) from None


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """The known names that a misspelt one may mean; all of a few where none is close."""
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    return close or (sorted(known) if len(known) <= 8 else [])


# ---- the model ----


@cache
def _model(programs: Programs) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for command in programs.commands.values():
        inner = fields
        for name in command.path[:-1]:
            inner = inner.setdefault(name, {})
        types = {flag.key: _type([flag]) for flag in command.flags.values()}
        inner[command.path[-1]] = types
    for section, keys in programs.shared.items():
        fields[section] = {key: _type(flags) for key, flags in keys.items()}
    return _closed("Settings", fields)


def _closed(name: str, fields: Mapping[str, Any]) -> type[BaseModel]:
    """A model of optional fields and nothing else; keys are aliases, as some name its methods."""
    from pydantic import ConfigDict, Field, create_model

    made: dict[str, Any] = {}
    for number, (key, kind) in enumerate(fields.items()):
        if isinstance(kind, Mapping):
            kind = _closed(key, kind)
        made[f"field_{number}"] = (kind, Field(default=None, alias=key))
    return create_model(name, __config__=ConfigDict(extra="forbid", strict=True), **made)


def _type(flags: Sequence[Flag]) -> Any:
    """The type of a flag, with its bounds; of a shared key what one of its flags takes."""
    kinds = list(dict.fromkeys(_annotation(flag) for flag in flags))
    return typing.Union[tuple(kinds)]  # noqa: UP007


def _annotation(flag: Flag) -> Any:
    from pydantic import Field

    hint = _hints(flag.function)[flag.name]
    bounds: dict[str, Any] = {}
    if typing.get_origin(hint) is typing.Annotated:
        option = hint.__metadata__[0]
        bounds = {"ge": option.min, "le": option.max}
        hint = hint.__origin__
    kinds = tuple(kind for kind in typing.get_args(hint) if kind is not NoneType)
    if NoneType in typing.get_args(hint):
        hint = typing.Union[kinds]  # noqa: UP007
    if all(bound is None for bound in bounds.values()):
        return hint
    return typing.Annotated[hint, Field(**bounds)]


@cache
def _hints(function: Any) -> dict[str, Any]:
    return typing.get_type_hints(function, include_extras=True)


# ---- what is wrong with a file ----


def _message(file: SettingsFile, programs: Programs, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    keys, value = _found(file.values, first["loc"])
    name = ".".join(keys)[:_SHOWN]
    where = f"{file.at(keys)} ({file.origin})"
    if first["type"] == "extra_forbidden":
        return f"[config] expected a known name, got {name!r} at {where}; {_known(programs, keys)}"
    expected = first["msg"].removeprefix(_INPUT)
    if first["type"] in ("model_type", "model_attributes_type"):
        expected = "a table"
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
    return f"[config] expected {expected} for {name!r}, got {shown} at {where}"


def _found(values: Mapping[str, Any], location: Sequence[int | str]) -> tuple[Path, Any]:
    """The keys of the file that a location of pydantic begins with, and the value there."""
    keys: Path = ()
    found: Any = values
    for part in location:
        if not isinstance(found, Mapping) or part not in found:
            break
        keys, found = (*keys, str(part)), found[part]
    return keys, found


def _known(programs: Programs, keys: Path) -> str:
    """Where an unknown name may have been meant to be."""
    table, key = keys[:-1], keys[-1]
    if not table:
        tables = {command.path[0] for command in programs.commands.values()} | set(SECTIONS)
        return _meant("tables", nearest(key, sorted(tables)))
    if len(table) == 1 and table[0] in SECTIONS:
        known = list(programs.shared[table[0]])
    elif table in programs.commands:
        known = list(programs.commands[table].flags)
    else:
        known = [path[len(table)] for path in programs.commands if path[: len(table)] == table]
    elsewhere = [f"[{s}] {key}" for s, shared in programs.shared.items() if key in shared]
    return _meant(f"names in [{'.'.join(table)}]", [*nearest(key, known), *elsewhere])


def _meant(what: str, names: Sequence[str]) -> str:
    return f"{what} like it: {', '.join(names) or 'none'}; cogit config show lists all"
