"""``cogit config``: what the settings are, and where each comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cogit.cli import flags
from cogit.cli.console import print_json
from cogit.cli.settings_env import OTHERS, warn_of_unknown
from cogit.cli.settings_files import Place, places, read
from cogit.cli.settings_flags import SECTIONS, CommandFlags, Programs, plain
from cogit.cli.settings_map import Call, Value, current, prepare, valid_files, values_of

NAME = "config"
_HELP = f"""Show the settings and where they come from.

A flag wins over the environment, that over TOML files, those over the packaged defaults. The files,
from the strongest: --config FILE (before or after the command), COGIT_CONFIG (an absolute path),
cogit/config.toml in XDG_CONFIG_HOME or ~/.config. None is looked for in the current folder.

The flag --max-tokens of cogit gate is max_tokens in [gate], or COGIT_GATE_MAX_TOKENS; the flags of
cogit-infer are in [infer]. The sections {", ".join(SECTIONS)} hold a key for all
commands that have such a flag, as COGIT_RUNTIME_THREADS does; a command's own key wins over them.
Every boolean flag is --x, --no-x or --x false, and true or false elsewhere."""

app = typer.Typer(help=_HELP, rich_markup_mode=None, no_args_is_help=False)


@app.command("show")
def show(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND [-- FLAGS]]",
            help="Only this command, and what its flags make of it.",
            show_default="all commands",
        ),
    ] = None,
    json_output: flags.Json = False,
) -> None:
    """Say the value of every flag and its source: a flag, a variable, a line of a file."""
    call = current()
    programs, line = call.programs, call.line
    if words:
        shown = _of_words(programs, words, line.config)
    else:
        warn_of_unknown(programs)
        files = valid_files(line, programs)
        shown = [(command, values_of(command, files)) for command in programs.commands.values()]
    found = {
        " ".join(command.path): {
            key: _facts(command, key, values.get(key)) for key in command.flags
        }
        for command, values in shown
    }
    if json_output:
        print_json({"commands": found})
        return
    for name, settings in found.items():
        print(f"[{name.replace(' ', '.')}]")
        for key, facts in settings.items():
            print(f"  {key:<20} {_plain(facts)}")


@app.command("path")
def path_(json_output: flags.Json = False) -> None:
    """List the files that settings are read from, the strongest last."""
    found = [
        {"file": str(place.path), "origin": place.origin, "exists": place.path.exists()}
        for place in places(current().line.config)
    ]
    if json_output:
        print_json({"files": found, "variables": sorted(OTHERS)})
        return
    for one in found:
        print(f"{'read' if one['exists'] else 'absent':<8}{one['file']} ({one['origin']})")


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="TOML file of settings.")],
    json_output: flags.Json = False,
) -> None:
    """Check the names and types in a file of settings, without using it."""
    from cogit.cli.settings_schema import require_valid

    read_file = read(Place(file, "FILE", True))
    require_valid(read_file, current().programs)
    number = _count(read_file.values)
    if json_output:
        print_json({"file": str(file), "valid": True, "settings": number})
    else:
        print(f"{file}: valid, {number} settings")


def _of_words(
    programs: Programs, words: Sequence[str], config: Path | None
) -> list[tuple[CommandFlags, dict[str, Value]]]:
    """The settings of one call, its flags among them."""
    length = next(
        (n for n in range(len(words), 0, -1) if tuple(words[:n]) in programs.commands), None
    )
    if length is None:
        from cogit.cli.settings_schema import nearest

        known = [" ".join(path) for path in programs.commands]
        like = ", ".join(nearest(words[0], known) or known)
        message = f"[config] expected a command with flags, got {words[0][:60]!r}; such as {like}"
        raise ValueError(message)
    path = tuple(words[:length])
    below = next(p for p in sorted(programs.apps, key=len, reverse=True) if path[: len(p)] == p)
    named = [] if config is None else ["--config", str(config)]
    call = prepare(programs, below, [*named, *words[len(below) :]])
    assert call.command is not None
    return [(call.command, _with_flags(call))]


def _with_flags(call: Call) -> dict[str, Value]:
    """The values of a call; those of its flags as they would reach the command."""
    assert call.command is not None
    command, found = call.command.command, dict(call.values)
    context = command.make_context("cogit", [], resilient_parsing=True)
    context.resilient_parsing = False
    own = call.line.arguments[len(call.line.path) :]
    parsed = command.make_parser(context).parse_args(own)[0] | call.line.booleans
    for flag in call.command.flags.values():
        if flag.name in parsed:
            value = flag.parameter.process_value(context, parsed[flag.name])
            found[flag.key] = Value(plain(value), f"flag {flag.option}")
    return found


def _facts(command: CommandFlags, key: str, value: Value | None) -> dict[str, Any]:
    """note: what holds where there is no value, or when there is one but not always."""
    parameter = command.flags[key].parameter
    if value is None:
        usual = parameter.show_default
        note = "required" if parameter.required else usual if isinstance(usual, str) else None
        return {"value": None, "source": "not set", "note": note}
    note = None if value.given else "where a model is needed and none is named"
    return {"value": value.value, "source": value.source, "note": note}


def _plain(facts: dict[str, Any]) -> str:
    """Value, source and note for people."""
    value, note = facts["value"], facts["note"]
    shown = "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"{shown:<20} {facts['source']}" + ("" if note is None else f" ({note})")


def _count(values: dict[str, Any]) -> int:
    return sum(_count(one) if isinstance(one, dict) else 1 for one in values.values())
