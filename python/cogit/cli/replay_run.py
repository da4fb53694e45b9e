"""A recorded command run once more: its arguments parsed anew, its outputs put elsewhere.

The manifest may come from anybody. Only commands of cogit's own list run, with the arguments that
their parser takes, in a process of this interpreter, without a shell. No argument of the manifest
says where something is written.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from cogit.cli.command_values import HIDDEN, arguments_of, parameter_names
from cogit.cli.errors import USER_ERROR
from cogit.cli.usage import USAGE_ERROR
from cogit.replay import RecordedRun

# Paths that a command reads; those that it writes come from the caller, or are left out.
_READS = frozenset(
    {
        *(
            "activations",
            "file",
            "gguf",
            "reports",
            "intervention",
            "like",
            "model",
            "neutral",
            "off",
            "on",
        ),
        *("opposite", "pairs", "prompt_file", "prompts", "protect", "subspace"),
    }
)
_LEFT_OUT = frozenset(
    {"cache", "checkpoint", "force", "json_file", "log", "out", "out_opposite", "plot", "resume"}
)
# Those that run on, repeat others, or only gather commands of their own.
_NEVER = frozenset({"replay", "serve", "config", "prompts", "log"})
# What these say is no setting of a command: which library, which kernels, how much it logs.
_KEPT_VARIABLES = frozenset(
    {"COGIT_CPU_VARIANT", "COGIT_LLAMA_LOG", "COGIT_LLAMA_SOURCE", "COGIT_NUM_THREADS"}
)
_MAIN = "import sys; from cogit.cli.main import main; sys.exit(main())"


def replayed_arguments(run: RecordedRun, folder: Path, commands: Mapping[str, Any]) -> list[str]:
    """The arguments that repeat a run with its outputs in ``folder``.

    commands: cogit's own, by name.

    Raises ValueError for a command that is none, arguments that it does not take, a value that was
    not recorded, or a path of which it is not known that it is only read.
    """
    context = _context(run, commands)
    if any(HIDDEN in argument for argument in run.arguments):
        message = (
            f"[replay] expected arguments that were recorded whole, got {HIDDEN} in place of a "
            f"secret; run the command itself"
        )
        raise ValueError(message)
    _require_no_key(run, context.params.get("judge"))
    names = parameter_names(context)
    placed: dict[str, Any] = {}
    for flag, name in run.places.items():
        if names.get(flag) not in _LEFT_OUT:
            message = f"[replay] expected an output of cogit {run.command}, got {flag[:40]!r}"
            raise ValueError(message)
        if name is not None:
            placed[names[flag]] = folder if name == "." else folder / name
    if not placed:
        message = f"[replay] expected an output of cogit {run.command} to compare, got none"
        raise ValueError(message)
    for name in _path_parameters(context.command.callback) - _READS - _LEFT_OUT:
        if context.params.get(name) is not None:
            message = (
                f"[replay] expected paths that cogit {run.command} reads, got {name}, of which "
                f"that is not known; run the command itself"
            )
            raise ValueError(message)
    return arguments_of(context, placed, without=_LEFT_OUT - placed.keys())


def run_again(run: RecordedRun, arguments: list[str], working_folder: Path) -> int:
    """Run cogit with these arguments in a process of its own; returns its exit code, 0 or 1.

    It takes the recorded number of threads, and no setting from the environment. Its messages go
    to standard error. ValueError for any other exit code.
    """
    command = [sys.executable, "-P", "-c", _MAIN, *arguments]
    with tempfile.TemporaryDirectory(prefix="cogit-settings-") as empty:
        done = subprocess.run(
            command,
            cwd=working_folder,
            # No settings of the user's own files either: the arguments say everything.
            env={**_environment(run), "XDG_CONFIG_HOME": empty},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=False,
        )
    if done.returncode == USER_ERROR or done.returncode < 0:
        message = (
            f"[replay] expected cogit {run.command} to end as it did, got exit code "
            f"{done.returncode}; its reason is above"
        )
        raise ValueError(message)
    return done.returncode


def _context(run: RecordedRun, commands: Mapping[str, Any]) -> Any:
    """The context of the command with its arguments parsed."""
    command = commands.get(run.command)
    if command is None or run.command in _NEVER:
        known = ", ".join(sorted(set(commands) - _NEVER))
        message = f"[replay] expected one of {known}; got the command {run.command[:40]!r}"
        raise ValueError(message)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # --help among them would print
            return command.make_context(run.command, list(run.arguments[1:]))
    except (USAGE_ERROR, typer.Exit) as error:
        words = " ".join(str(getattr(error, "message", error)).split())[:160]
        message = f"[replay] expected arguments that cogit {run.command} takes, got: {words}"
        raise ValueError(message) from error


def _require_no_key(run: RecordedRun, judge: Any) -> None:
    """ValueError for a judge that sends a variable of this environment to an address of the record.

    Whoever wrote the manifest would choose both.
    """
    from cogit.evaluation.judges.spec import JudgeSpec

    if isinstance(judge, str) and "key_env" in JudgeSpec.parse(judge).options:
        message = (
            f"[replay] expected a judge without a key, got one that sends a variable of this "
            f"environment to an address of the record; run cogit {run.command} itself"
        )
        raise ValueError(message)


def _path_parameters(callback: Any) -> set[str]:
    hints = get_type_hints(callback)
    return {name for name, hint in hints.items() if _has_path(hint) and not name.startswith("_")}


def _has_path(hint: Any) -> bool:
    return hint is Path or any(map(_has_path, get_args(hint)))


def _environment(run: RecordedRun) -> Mapping[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("COGIT_") or name in _KEPT_VARIABLES
    }
    # The modules of this process, none of the working folder's: it may come from anybody.
    folders = [str(Path(__file__).resolve().parents[2]), *filter(os.path.isabs, sys.path)]
    kept["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(folders))
    threads = run.threads.get("torch")
    if run.threads.get("given") is None and type(threads) is int and threads > 0:
        kept["OMP_NUM_THREADS"] = str(threads)
    return kept
