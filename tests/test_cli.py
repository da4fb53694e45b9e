"""Help, flags and the error policy of the command lines; nothing here loads a model."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.main import get_command

from _cli_flags import COMMANDS, INFER_FLAGS
from cogit.cli import infer, main
from cogit.cli.errors import is_expected, run
from cogit.errors import ArtefactError, BackendMissingError, InterventionError

HEAVY = ("torch", "transformers", "llama_cpp", "scipy", "matplotlib", "numpy")

# Frozen: a new or renamed flag is a decision, made here too.


def flags_of(command: Any) -> set[str]:
    context = command.make_context("test", [], resilient_parsing=True)
    options = (name for p in command.get_params(context) for name in (*p.opts, *p.secondary_opts))
    return {name for name in options if name.startswith("-")}


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("cogit", None),
        ("cogit.cli.main", ["--help"]),
        ("cogit.cli.main", ["--version"]),
        ("cogit.cli.main", ["config", "show", "--help"]),
        ("cogit.cli.main", ["demo", "--help"]),
        ("cogit.cli.main", ["doctor", "--help"]),
        ("cogit.cli.main", ["fit", "--help"]),
        ("cogit.cli.main", ["inspect", "--help"]),
        ("cogit.cli.main", ["estimate", "--help"]),
        ("cogit.cli.main", ["parity", "--help"]),
        ("cogit.cli.main", ["gate", "--help"]),
        ("cogit.cli.main", ["pipeline", "--help"]),
        ("cogit.cli.main", ["study", "--help"]),
        ("cogit.cli.main", ["log", "--help"]),
        ("cogit.cli.main", ["reverse", "--help"]),
        ("cogit.cli.main", ["record", "--help"]),
        ("cogit.cli.main", ["report", "--help"]),
        ("cogit.cli.main", ["quantised", "--help"]),
        ("cogit.cli.main", ["replay", "--help"]),
        ("cogit.cli.main", ["export", "--help"]),
        ("cogit.cli.main", ["import", "--help"]),
        ("cogit.cli.main", ["subspace", "--help"]),
        ("cogit.cli.main", ["sweep", "--help"]),
        ("cogit.cli.main", ["prompts", "check", "--help"]),
        ("cogit.cli.infer", ["--help"]),
    ],
)
def test_help_loads_no_framework(module: str, arguments: list[str] | None) -> None:
    code = (
        "import importlib, sys\n"
        f"module = importlib.import_module({module!r})\n"
        f"code = 0 if {arguments!r} is None else module.main({arguments!r})\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'code {code}, loaded {loaded}' if code or loaded else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_flags_of_infer_are_frozen() -> None:
    assert flags_of(get_command(infer.app)) == INFER_FLAGS


def test_commands_and_their_flags_are_frozen() -> None:
    group: Any = get_command(main.app)
    assert {name: flags_of(command) for name, command in group.commands.items()} == COMMANDS


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import cogit

    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"cogit {cogit.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--bogus"], "--bogus"),
        (["--backend", "pytorch"], "'pytorch' is not one of 'transformers', 'llamacpp'"),
        (["--lambda", "much"], "--lambda"),
        (["--threads", "0"], "--threads"),
        (["stray"], "stray"),
        (["--layers", "8-4"], "4-9"),
        (["--positions", "middle"], "middle"),
        (["--temperature", "-1"], "temperature >= 0"),
        (["--max-tokens", "0"], "max_tokens >= 1"),
        (["--intervention", "x", "--k", "3"], "--k"),
        (["--n-ctx", "64"], "--n-ctx"),
        (["--backend", "llamacpp", "--dtype", "bf16"], "the GGUF file decides"),
        (["--backend", "llamacpp", "--device", "cuda"], "built for the CPU"),
        (["--intervention", "absent.safetensors"], "absent.safetensors"),
        (["--prompt-file", "absent.txt"], "absent.txt"),
    ],
)
def test_wrong_flags_are_one_line(
    arguments: list[str], part: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert infer.main(arguments) == 2
    out, err = capfd.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert part in err


def test_usage_errors_name_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert main.main(["parity", "--model", "x"]) == 2
    assert capfd.readouterr().err == "error: Missing option '--gguf'; see cogit parity --help\n"
    assert main.main(["unknown"]) == 2
    assert "unknown" in capfd.readouterr().err


def raising(error: BaseException) -> typer.Typer:
    app = typer.Typer(add_completion=False)

    @app.command()
    def fail() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    "error",
    [
        ValueError("[x] expected a,\n   got b"),
        TypeError("[x] expected a, got b"),
        FileNotFoundError("[x] expected a, got b"),
        ArtefactError("[x] expected a, got b"),
        InterventionError("[x] expected a, got b"),
        BackendMissingError("[x] expected a, got b"),
    ],
)
def test_expected_errors_are_one_line(error: Exception, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(raising(error), "test", []) == 2
    assert capfd.readouterr().err == "error: [x] expected a, got b\n"


@pytest.mark.parametrize(
    "error", [TypeError("'NoneType' object is not iterable"), RuntimeError("x"), KeyError("x")]
)
def test_defects_keep_their_traceback(error: Exception) -> None:
    assert not is_expected(error)
    with pytest.raises(type(error)):
        run(raising(error), "test", [])


def test_interrupt_exits_with_130(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(raising(KeyboardInterrupt()), "test", []) == 130
    assert capfd.readouterr().err in ("interrupted\n", "")


def test_exit_codes_pass_through() -> None:
    assert run(raising(typer.Exit(1)), "test", []) == 1
