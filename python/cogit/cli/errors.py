"""The one error policy of every command.

A mistake of the caller (a wrong flag, value, file or model), and memory that does not suffice, is
one line on standard error and exit code 2; nothing is tried again. A defect of cogit keeps its
traceback and exits with 1. An interrupt exits with 130.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer
from typer.main import get_command

from cogit.cli.console import log_lines, quiet_libraries
from cogit.errors import BackendMissingError, MemoryRefusedError
from cogit.memory import explain_out_of_memory, is_out_of_memory, remember

USER_ERROR = 2
INTERRUPTED = 130

# ClickException: typer either brings click inside or depends on it, by release.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[2]
_EXPECTED = (ValueError, OSError, BackendMissingError, MemoryRefusedError)


def run(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a typer application under the policy and return its exit code."""
    quiet_libraries()
    command = get_command(app)
    given = list(sys.argv[1:] if arguments is None else arguments)
    remember(None)
    try:
        with log_lines():
            result = command.main(args=given, prog_name=name, standalone_mode=False)
    except _USAGE_ERROR as error:
        context = getattr(error, "ctx", None)
        path = getattr(context, "command_path", name)
        return _fail(f"{_usage_message(error)}; see {path} --help")
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except Exception as error:
        if is_out_of_memory(error):
            return _fail(explain_out_of_memory(error))
        if not is_expected(error):
            raise
        return _fail(str(error) or type(error).__name__)
    return result if isinstance(result, int) else 0


def is_expected(error: Exception) -> bool:
    """True for what a caller can mend. A TypeError counts only from cogit's own border checks."""
    if isinstance(error, TypeError):
        return str(error).startswith("[")
    return isinstance(error, _EXPECTED)


def _usage_message(error: Exception) -> str:
    formatted = getattr(error, "format_message", None)
    text = str(formatted() if formatted else error)
    return text.replace("Value error, ", "").strip().rstrip(".")


def _fail(message: str) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return USER_ERROR
