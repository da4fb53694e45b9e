"""Settings: which of four layers decides, for flags of every type (rows P15, P17)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from _settings import Calls, write
from cogit.cli import settings_files, settings_map
from cogit.cli.defaults_file import defaults_toml
from cogit.cli.loading import BackendChoice, ModelSource
from cogit.cli.main import PROGRAMS, main
from cogit.cli.settings_env import OTHERS
from cogit.cli.settings_flags import SECTIONS

Capture = pytest.CaptureFixture[str]
LAYERS = ("packaged", "toml", "env", "flag")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


@dataclass(frozen=True)
class Case:
    """A flag and a value for each layer, weakest first; expected: what the command gets."""

    command: str
    needs: str
    option: str
    parameter: str
    toml: tuple[str, str]
    env: str
    flag: tuple[str, ...]
    expected: tuple[Any, Any, Any, Any]
    default: Any


CASES = {
    "int": Case("fit", "--out o", "k", "k", ("5", "6"), "7", ("--k", "8"), (5, 6, 7, 8), None),
    "name that differs": Case(
        *("fit", "--out o", "lambda", "strength", ("5.0", "6"), "7.5", ("--lambda", "0")),
        *((5.0, 6.0, 7.5, 0.0), None),
    ),
    "float": Case(
        *("infer", "", "temperature", "temperature", ("0.1", "0.2"), "0.3"),
        *(("--temperature=0.4",), (0.1, 0.2, 0.3, 0.4), 0.8),
    ),
    "text": Case(
        *("record", "--out o --pairs p", "select", "select", ('"last"', '"all"')),
        *("tail-2", ("--select", "answer"), ("last", "all", "tail-2", "answer"), "tail-4"),
    ),
    "path": Case(
        *("sweep", "", "out", "out", ('"a"', '"b"'), "c", ("--out", "d")),
        *((Path("a"), Path("b"), Path("c"), Path("d")), None),
    ),
    "choice": Case(
        *("gate", "--intervention i --on a --off b --out o", "scope", "scope"),
        *(('"prompt"', '"token"'), "prompt", ("--scope", "token")),
        *(("prompt", "token", "prompt", "token"), "token"),
    ),
    "boolean": Case(
        *("subspace", "--activations a", "strict", "strict", ("true", "false"), "yes"),
        *(("--no-strict",), (True, False, True, False), False),
    ),
    "boolean that is usually true": Case(
        *("import", "FILE --out o", "first_token", "first_token", ("false", "true"), "0"),
        *(("--first-token",), (False, True, False, True), True),
    ),
    "list": Case(
        *("parity", "--model m --gguf g", "prompt", "prompt", ('["a"]', '["b", "c"]')),
        *('["d"]', ("--prompt", "e"), (["a"], ["b", "c"], ["d"], ["e"]), None),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_nearest_layer_decides(
    case: Case, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P15: all 16 sets of layers; none of them, or a flag left out, overrides nothing."""
    variable = f"COGIT_{case.command}_{case.option}".upper()
    packaged = tmp_path / "packaged.toml"
    monkeypatch.setattr(settings_files, "PACKAGED", packaged)
    monkeypatch.setattr(settings_map, "PACKAGED", packaged)
    for present in itertools.product((False, True), repeat=4):
        texts = [f"[{case.command}]\n{case.option} = {value}\n" for value in case.toml]
        write(packaged, texts[0] if present[0] else "")
        arguments = case.needs.split()
        if case.command != "infer":
            arguments.insert(0, case.command)
        if present[1]:
            arguments += ["--config", str(write(tmp_path / "c.toml", texts[1]))]
        arguments += case.flag if present[3] else ()
        with monkeypatch.context() as patch:
            if present[2]:
                patch.setenv(variable, case.env)
            found = calls(*arguments, command=case.command)[case.parameter]
        layers = [v for v, there in zip(case.expected, present, strict=True) if there]
        expected = layers[-1] if layers else case.default
        assert (found or None if case.option == "prompt" else found) == expected, present


def test_files_merge_key_by_key(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P15: a nested partial override keeps the other keys of the weaker files."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    user = "[runtime]\nthreads = 1\ndtype = 'bf16'\n[fit]\nk = 1\nq = 11\n"
    write(tmp_path / "cogit" / "config.toml", user)
    named = write(tmp_path / "named.toml", "[fit]\nk = 2\nepochs = 5\n[runtime]\nthreads = 2\n")
    monkeypatch.setenv("COGIT_CONFIG", str(named))
    given = write(tmp_path / "given.toml", "[fit]\nk = 3\n")
    found = calls("fit", "--out", "o", "--config", str(given), command="fit")
    names = ("k", "epochs", "q", "threads", "dtype")
    assert [found[name] for name in names] == [3, 5, 11, 2, "bf16"]


def test_own_keys_win_over_shared_sections_of_the_same_source(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "[fit]\nthreads = 1\n[runtime]\nthreads = 2\n[demo]\nbackend = 'both'\n"
    config = ["--config", str(write(tmp_path / "c.toml", text))]
    assert calls("fit", "--out", "o", *config, command="fit")["threads"] == 1
    assert calls("sweep", *config, command="sweep")["threads"] == 2
    monkeypatch.setenv("COGIT_RUNTIME_THREADS", "3")
    assert calls("fit", "--out", "o", *config, command="fit")["threads"] == 3
    monkeypatch.setenv("COGIT_FIT_THREADS", "4")
    assert calls("fit", "--out", "o", *config, command="fit")["threads"] == 4
    assert calls(*config, command="infer")["threads"] == 3
    # A shared section of a nearer source wins over the own key of a farther one.
    monkeypatch.setenv("COGIT_RUNTIME_BACKEND", "llamacpp")
    assert calls("demo", *config, command="demo")["backend"] == "llamacpp"


def test_homonyms_are_not_shared(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temperature of a softmax over weights is none of sampling."""
    monkeypatch.setenv("COGIT_SAMPLING_TEMPERATURE", "0.5")
    assert calls(command="infer")["temperature"] == 0.5
    found = calls("subspace", "--activations", "a", command="subspace")
    assert found["temperature"] == 1.0


@pytest.mark.parametrize("place", ["before", "after"])
def test_config_may_stand_before_and_after_the_command(
    calls: Calls, tmp_path: Path, place: str
) -> None:
    config = ["--config", str(write(tmp_path / "c.toml", "[fit]\nk = 9\nout = 'x'\n"))]
    line = [*config, "fit"] if place == "before" else ["fit", *config]
    found = calls(*line, command="fit")
    assert (found["k"], found["out"]) == (9, Path("x"))


def test_a_file_in_the_current_folder_is_not_found(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P15: nor is one found by a relative XDG_CONFIG_HOME; a relative COGIT_CONFIG is refused."""
    for name in ("config.toml", "cogit.toml", "cogit/config.toml", "defaults.toml"):
        write(tmp_path / name, "[fit]\nk = 9\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", ".")
    assert calls("fit", "--out", "o", command="fit")["k"] is None
    monkeypatch.setenv("COGIT_CONFIG", "config.toml")
    calls("fit", "--out", "o", command="fit", code=2)


# ---- what counts as given ----


def test_a_value_of_a_file_counts_as_given(tmp_path: Path, capfd: Capture) -> None:
    """A flag without effect is refused also from a file, and the message says where it is."""
    config = write(tmp_path / "c.toml", "[fit]\nangle = 60\nlayers = '1'\n")
    call = ["fit", "--out", "o", "--pairs", "p", "--method", "direct", "--config", str(config)]
    assert main(call) == 2
    err = capfd.readouterr().err
    assert "expected no --angle with --method direct" in err
    assert f"--angle is from {config}:2" in err
    assert "--method is from" not in err


def test_packaged_defaults_do_not_count_as_given(calls: Calls) -> None:
    found = calls("fit", "--out", "o", command="fit")
    assert {k for k, v in found.items() if v is not None} == {
        *("out", "backend", "operator", "auto", "refine", "resume", "exact_inverse", "seed"),
        *("device", "dtype", "force", "json_output", "yes", "memory_check"),
    }


@pytest.mark.parametrize(
    ("shared", "variable", "own", "given", "expected"),
    [
        (None, None, None, None, (None, "demo")),
        ("a", None, None, None, (None, "a")),
        ("a", "b", None, None, (None, "b")),
        ("a", None, "c", None, ("c", "c")),
        (None, "b", "c", None, ("b", "b")),
        ("a", "b", "c", "d", ("d", "d")),
    ],
)
def test_a_shared_model_is_used_where_none_is_named(
    shared: str | None,
    variable: str | None,
    own: str | None,
    given: str | None,
    expected: tuple[str | None, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row P15 for --model: [runtime] and COGIT_MODEL do not count as given, [sweep] does."""
    text = "" if shared is None else f"[runtime]\nmodel = '{shared}'\n"
    text += "" if own is None else f"[sweep]\nmodel = '{own}'\n"
    if variable is not None:
        monkeypatch.setenv("COGIT_MODEL", variable)
    seen: list[tuple[str | None, ModelSource]] = []

    def note(model: str | None, **_: Any) -> None:
        seen.append((model, ModelSource.choose(BackendChoice.transformers, model)))

    leaf = PROGRAMS.commands[("sweep",)].command
    monkeypatch.setattr(leaf, "callback", note)
    flags = [] if given is None else ["--model", given]
    assert main(["sweep", "--config", str(write(tmp_path / "c.toml", text)), *flags]) == 0
    model, source = seen[0]
    assert model == expected[0]
    assert source.path == expected[1] or expected[1] == "demo" in source.origin
    if source.path == "b":
        assert source.origin == "COGIT_MODEL"
    assert ModelSource.choose(BackendChoice.transformers, None).path != shared


def test_a_shared_model_is_no_input_of_commands_that_take_a_certain_one(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ["--config", str(write(tmp_path / "c.toml", "[runtime]\nmodel = 'a'\n"))]
    monkeypatch.setenv("COGIT_MODEL", "b")
    assert calls("import", "f", "--out", "o", *config, command="import")["model"] is None
    calls("parity", "--gguf", "g", *config, command="parity", code=2)


# ---- the packaged defaults, and the names ----


def test_packaged_defaults_are_those_of_the_flags() -> None:
    """P15, P19: `python -m cogit.cli.defaults_file > python/cogit/data/defaults.toml` mends it."""
    packaged = settings_files.read(settings_files.Place(settings_files.PACKAGED, "", True))
    assert packaged.text == defaults_toml(PROGRAMS)
    for command in PROGRAMS.commands.values():
        found = settings_map.values_of(command, [packaged])
        for key, flag in command.flags.items():
            assert (found[key].value if key in found else None) == flag.default, flag


def test_names_are_unambiguous() -> None:
    """No command is named like a section, no flag --config, no variable sets two things."""
    flags = [f for command in PROGRAMS.commands.values() for f in command.flags.values()]
    assert not {path[0] for path in PROGRAMS.commands} & set(SECTIONS)
    assert "config" not in {flag.key for flag in flags}
    own = [flag.variable for flag in flags]
    shared = {f"COGIT_{s}_{k}".upper() for s, keys in PROGRAMS.shared.items() for k in keys}
    assert len(own) == len(set(own))
    assert not set(own) & (shared | OTHERS)
