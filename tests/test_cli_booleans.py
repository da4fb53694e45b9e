"""Boolean flags as flags and as values (row P18), and the reading of the command line before
click's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from _settings import Calls, write
from cogit.cli.main import PROGRAMS, main

Capture = pytest.CaptureFixture[str]
BOOLEANS = [
    (path, flag)
    for path, command in PROGRAMS.commands.items()
    for flag in command.flags.values()
    if flag.is_bool
]
# A choice takes one of its words only.
_CHOICES = {"kind": "decision"}
TRUE, FALSE = ("true", "1", "yes", "TRUE"), ("false", "0", "no", "False")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def line_of(path: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The subcommands, and flags and arguments that they cannot do without."""
    needed: list[str] = []
    for parameter in PROGRAMS.commands[path].command.params:
        if parameter.required and parameter.param_type_name == "argument":
            # A choice takes one of its words only.
            needed.append(_CHOICES.get(parameter.name, "argument"))
        elif parameter.required:
            needed += [parameter.opts[0], "value"]
    return [word for word in path if word != "infer"], needed


def _is_open(argument: Any) -> bool:
    """Whether it takes more words than it must have."""
    return argument.nargs < 0 or not argument.required


@pytest.mark.parametrize(("path", "flag"), BOOLEANS, ids=lambda x: getattr(x, "variable", ""))
def test_every_boolean_takes_all_forms(
    path: tuple[str, ...],
    flag: object,
    calls: Calls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P18: --x, --no-x, --x true, --x=true, TOML and the environment, for every command."""
    key, option, name, variable = (
        getattr(flag, attribute) for attribute in ("key", "option", "name", "variable")
    )
    words, needed = line_of(path)
    bare = option.removeprefix("--")
    against = f"--{bare.removeprefix('no-')}" if bare.startswith("no-") else f"--no-{bare}"
    forms = [([option], True), ([against], False), ([option, against], False)]
    parameters = PROGRAMS.commands[path].command.params
    if not any(p.param_type_name == "argument" and _is_open(p) for p in parameters):
        # Behind an open list of arguments a word is one of them, never a value.
        forms += [([option, word], True) for word in TRUE] + [([option, w], False) for w in FALSE]
    forms += [([f"{option}={word}"], True) for word in TRUE]
    forms += [([against, "true"], False), ([f"{against}=no"], True), ([against, option], True)]
    slots = [p for p in PROGRAMS.commands[path].command.params if p.param_type_name == "argument"]
    full = needed if "argument" in needed or not slots else [*needed, "argument"]
    for form, expected in forms:
        found = calls(*words, *form, *full, command=" ".join(path))
        assert found[name] is expected, form
    for value in (True, False):
        word = str(value).lower()
        text = f"[{'.'.join(path)}]\n{key} = {word}\n"
        config = ["--config", str(write(tmp_path / "c.toml", text))]
        assert calls(*words, *needed, *config, command=" ".join(path))[name] is value
        for word in TRUE if value else FALSE:
            with monkeypatch.context() as patch:
                patch.setenv(variable, word)
                assert calls(*words, *needed, command=" ".join(path))[name] is value


def test_a_positional_argument_is_never_eaten(calls: Calls) -> None:
    """P18: after a boolean, true is a value only where no place for it as an argument is left."""
    found = calls("inspect", "--json", "true", command="inspect")
    assert (found["file"], found["json_output"]) == (Path("true"), True)
    found = calls("inspect", "--json", "false", "file", command="inspect")
    assert (found["file"], found["json_output"]) == (Path("file"), False)
    found = calls("inspect", "file", "--json", "0", command="inspect")
    assert (found["file"], found["json_output"]) == (Path("file"), False)
    found = calls("inspect", "--json", "no", "--no-json", "yes", command="inspect")
    assert (found["file"], found["json_output"]) == (Path("no"), False)
    found = calls("inspect", "--json", "--", "true", command="inspect")
    assert (found["file"], found["json_output"]) == (Path("true"), True)
    # An optional argument is one too.
    assert calls("presets", "--json", "1", command="presets")["name"] == "1"


def test_words_that_are_values_of_other_flags_stay(calls: Calls) -> None:
    found = calls("--prompt", "--json", "--prompt", "true", "--compare", "yes", command="infer")
    assert (found["prompt"], found["json_output"]) == (["--json", "true"], False)
    assert found["compare"] is True
    found = calls("--prompt", "--config", command="infer")
    assert found["prompt"] == ["--config"]
    found = calls("--prompt=--help", "--json", command="infer")
    assert (found["prompt"], found["json_output"]) == (["--help"], True)


def test_other_words_are_no_values(capfd: Capture) -> None:
    for arguments, part in [
        (["sweep", "--json=maybe"], "[json] expected --json, --json=true or --json=false"),
        (["sweep", "--json", "maybe"], "maybe"),
        (["sweep", "--json="], "[json] expected"),
        (["sweep", "--no-nonsense"], "--no-nonsense"),
        (["sweep", "--no-seed"], "--no-seed"),
        (["sweep", "--version", "true"], "--version"),
    ]:
        assert main(arguments) == 2
        err = capfd.readouterr().err
        assert part in err
        assert err.count("\n") == 1


def test_other_words_in_the_environment_are_errors(
    monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setenv("COGIT_SWEEP_FORCE", "on")
    assert main(["sweep"]) == 2
    assert "expected true, false, 1, 0, yes or no in COGIT_SWEEP_FORCE" in capfd.readouterr().err
    monkeypatch.setenv("COGIT_SWEEP_FORCE", "")
    assert main(["sweep"]) == 2
    assert "COGIT_SWEEP_FORCE" not in capfd.readouterr().err
