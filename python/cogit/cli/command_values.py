"""A command's values and the arguments that give them again.

The order is the command's own, each option is written ``--name=value``, so that a value may begin
with a dash, and positional arguments come last, behind ``--``.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import typer

HIDDEN = "[not recorded]"
_SECRETS = (
    (re.compile(r"(?<=://)[^/@\s]*@"), f"{HIDDEN}@"),
    (
        re.compile(r"(?i)((?:api[-_]?key|key|token|secret|password|passwd|auth)=)[^&\s]+"),
        rf"\g<1>{HIDDEN}",
    ),
)
_SECRET_NAME = re.compile(r"(?i)(^|[-_])(api[-_]?key|token|secret|password|passwd)s?$")


def current_context() -> Any:
    """The context of the command that runs now, None outside of one."""
    # typer either brings click inside or depends on it, by release.
    core = importlib.import_module(typer.Context.__mro__[1].__module__)
    current = importlib.import_module(f"{core.__package__}.globals").get_current_context
    return current(silent=True)


def values_of(context: Any) -> dict[str, Any]:
    """Every value of a command as JSON, by flag without dashes, or by argument in capitals."""
    return {
        _label(param): _json(_redacted(_label(param), _plain(context.params[param.name])))
        for param in _params(context)
    }


def arguments_of(
    context: Any,
    replaced: Mapping[str, Any] | None = None,
    *,
    without: Collection[str] = (),
) -> list[str]:
    """The arguments, from the command's name on, that give the context's values again.

    replaced: other values, and ``without``: parameters to leave out; both by the parameter's name.
    """
    values = {**context.params, **(replaced or {})}
    options: list[str] = []
    positional: list[str] = []
    for param in _params(context):
        value = _plain(values[param.name])
        if param.name in without or value is None:
            continue
        value = _redacted(_label(param), value)
        if param.param_type_name == "argument":
            positional += [str(one) for one in _as_list(value)]
        else:
            options += _option(param, value)
    return [str(context.info_name), *options, *(["--", *positional] if positional else [])]


def parameter_names(context: Any) -> dict[str, str]:
    """The names of a command's parameters by flag without dashes, or by argument in capitals."""
    return {_label(param): str(param.name) for param in _params(context)}


def _params(context: Any) -> Iterator[Any]:
    """The parameters with a value: not --help and its like."""
    return (param for param in context.command.params if param.name in context.params)


def _option(param: Any, value: Any) -> list[str]:
    if getattr(param, "is_flag", False):
        names = param.opts if value else param.secondary_opts
        return [_long(names)] if names else []
    return [f"{_long(param.opts)}={one}" for one in _as_list(value)]


def _label(param: Any) -> str:
    if param.param_type_name == "argument":
        return str(param.name).upper()
    return _long(param.opts).removeprefix("--")


def _long(names: Sequence[str]) -> str:
    return next((name for name in names if name.startswith("--")), names[0])


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _json(value: Any) -> Any:
    """JSON has no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _redacted(label: str, value: Any) -> Any:
    """The value without what is secret in it: keys in addresses, and flags that are one."""
    if isinstance(value, list):
        return [_redacted(label, one) for one in value]
    if not isinstance(value, str):
        return value
    if _SECRET_NAME.search(label):
        return HIDDEN
    for pattern, put in _SECRETS:
        value = pattern.sub(put, value)
    return value
