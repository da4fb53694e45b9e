"""The one error policy of every command.

A mistake of the caller (a wrong flag, value, file or model), and memory that does not suffice, is
one line on standard error and exit code 2; nothing is tried again. A defect of cogit keeps its
traceback and exits with 1. An interrupt exits with 130.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from cogit.cli.console import lines_at_once, log_lines, quiet_libraries
from cogit.cli.settings_flags import Programs
from cogit.cli.settings_map import Call, prepare
from cogit.cli.usage import USAGE_ERROR, usage_message
from cogit.errors import BackendMissingError, MemoryRefusedError
from cogit.memory import explain_out_of_memory, is_out_of_memory, remember

USER_ERROR = 2
INTERRUPTED = 130

_EXPECTED = (ValueError, OSError, BackendMissingError, MemoryRefusedError)


def run(
    app: typer.Typer,
    name: str,
    arguments: Sequence[str] | None = None,
    programs: Programs | None = None,
    below: tuple[str, ...] = (),
) -> int:
    """Run a typer application under the policy and return its exit code.

    programs: all of them, whose flags have settings; below: where this one's commands are in it.
    """
    quiet_libraries()
    lines_at_once()
    programs = programs or Programs({below: app})
    call: Call | None = None
    remember(None)
    try:
        with log_lines():
            given = sys.argv[1:] if arguments is None else arguments
            call = prepare(programs, below, given)
            with call.applied():
                result = programs.roots[below].main(
                    args=call.line.arguments,
                    prog_name=name,
                    standalone_mode=False,
                    default_map=call.default_map(),
                )
    except USAGE_ERROR as error:
        context = getattr(error, "ctx", None)
        path = getattr(context, "command_path", name)
        message = usage_message(error)
        if call is not None:
            message = call.explain(message)
        return _fail(f"{message}; see {path} --help")
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except Exception as error:
        if is_out_of_memory(error):
            return _fail(explain_out_of_memory(error))
        if not is_expected(error):
            raise
        message = str(error) or type(error).__name__
        return _fail(message if call is None else call.explain(message))
    return result if isinstance(result, int) else 0


def is_expected(error: Exception) -> bool:
    """True for what a caller can mend. A TypeError counts only from cogit's own border checks."""
    if isinstance(error, TypeError):
        return str(error).startswith("[")
    return isinstance(error, _EXPECTED)


def _fail(message: str) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return USER_ERROR
