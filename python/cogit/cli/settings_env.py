"""Settings from environment variables: ``COGIT_<COMMAND>_<FLAG>`` and ``COGIT_<SECTION>_<KEY>``.

An empty variable counts as not set. Texts are read as on the command line; a flag that may be
repeated takes one text, or a JSON list of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from cogit.cli.arguments import parse_bool
from cogit.cli.console import say
from cogit.cli.loading import MODEL_VARIABLE
from cogit.cli.settings_files import CONFIG_VARIABLE
from cogit.cli.settings_flags import Flag, Programs, variable

# Variables of other parts of cogit: of the kernels, of llama.cpp, of the build and of its tests.
OTHERS = frozenset(
    {
        CONFIG_VARIABLE,
        MODEL_VARIABLE,
        "COGIT_CPU_VARIANT",
        "COGIT_CUDA",
        "COGIT_LLAMA_LOG",
        "COGIT_LLAMA_SOURCE",
        "COGIT_NATIVE",
        "COGIT_NUM_THREADS",
        "COGIT_STOCK_LLAMA",
    }
)


def set_for(flag: Flag) -> Iterator[tuple[str, Any, bool]]:
    """Name, value and whether it is the flag's own, of each variable that sets it, weakest first.

    Raises ValueError for what is no boolean or no list.
    """
    names = [] if flag.shared is None else [(variable(*flag.shared), False)]
    if flag.takes_any_model:
        names.append((MODEL_VARIABLE, False))
    for name, own in [*names, (flag.variable, True)]:
        if text := os.environ.get(name):
            yield name, _parsed(name, text, flag), own


def warn_of_unknown(programs: Programs) -> None:
    """A line for each ``COGIT_`` variable that sets nothing; its value is not shown."""
    present = [name for name in os.environ if name.startswith("COGIT_") and name not in OTHERS]
    # Without one there is no need to know every flag of every command.
    for name in sorted(set(present) - programs.variables if present else ()):
        from cogit.cli.settings_schema import nearest

        like = ", ".join(nearest(name, sorted(programs.variables | OTHERS))) or "none"
        say("warning", f"the environment variable {name[:60]} sets nothing; names like it: {like}")


def _parsed(name: str, text: str, flag: Flag) -> Any:
    if flag.is_bool:
        value = parse_bool(text)
        if value is None:
            message = f"[config] expected true, false, 1, 0, yes or no in {name}, got {text[:60]!r}"
            raise ValueError(message)
        return value
    if flag.parameter.multiple:
        return _list(name, text)
    return text


def _list(name: str, text: str) -> list[Any]:
    if not text.startswith("["):
        return [text]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or any(isinstance(one, list | dict) for one in found):
        message = f"[config] expected a text or a JSON list of texts in {name}, got {text[:60]!r}"
        raise ValueError(message)
    return found
