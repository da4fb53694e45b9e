"""``cogit replay``: a recorded run once more, its outputs compared bit for bit."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cogit.cli.console import print_json, say

if TYPE_CHECKING:
    from cogit.replay import OutputCheck, RecordedRun

NAME = "replay"


def command(
    run: Annotated[
        Path,
        typer.Argument(help="Run folder, FILE.run.json, or the output file that it lies beside."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="New or empty folder for the second run.",
            show_default="a temporary one, removed afterwards",
        ),
    ] = None,
    working_folder: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Folder that relative paths of inputs are taken from.",
            show_default="where the run was started",
        ),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Repeat a run and compare the hashes of its outputs. Exits with 1 if one is not the same.

    Inputs are compared by hash before; other versions, builds, CPU and threads are said.
    """
    from cogit.cli.command_values import current_context
    from cogit.cli.replay_run import replayed_arguments, run_again
    from cogit.replay import RecordedRun, compare_outputs

    recorded = RecordedRun.load(run)
    start = _working_folder(recorded, working_folder)
    _require_new(out)
    with ExitStack() as stack:
        folder = _fresh(recorded, out, stack)
        commands = current_context().find_root().command.commands
        arguments = replayed_arguments(recorded, folder, commands)
        remarks = recorded.check_inputs(start)
        departures = recorded.departures()
        for line in departures:
            say("other", line)
        for line in remarks:
            say("input", line)
        say("running", f"cogit {' '.join(arguments)}"[:400])
        before = time.perf_counter()
        code = run_again(recorded, arguments, start)
        seconds = time.perf_counter() - before
        departures += _other_models(recorded, folder)
        checks = compare_outputs(recorded, folder)
    equal = all(check.verdict == "equal" for check in checks)
    if json_output:
        print_json(
            {
                "run": str(recorded.path),
                "command": recorded.command,
                "arguments": arguments,
                "equal": equal,
                "exit_code": code,
                "departures": departures,
                "remarks": remarks,
                "seconds": round(seconds, 3),
                "out": None if out is None else str(out),
                "outputs": [_facts(check) for check in checks],
            }
        )
    else:
        _print(checks, equal=equal)
    if not equal:
        raise typer.Exit(1)


def _working_folder(recorded: RecordedRun, given: Path | None) -> Path:
    folder = given or recorded.working_folder
    if not folder.is_dir():
        message = (
            f"[replay] expected the folder {folder}, from which the run has read, got none there; "
            f"name one with --from"
        )
        raise FileNotFoundError(message)
    return folder.absolute()


def _require_new(out: Path | None) -> None:
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        message = f"[out] expected an empty or new folder, got {out}, which exists; name another"
        raise FileExistsError(message)


def _fresh(recorded: RecordedRun, out: Path | None, stack: ExitStack) -> Path:
    """The folder for the second run's outputs; a run folder is made by the run itself."""
    if out is None:
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix="cogit-replay-"))
        folder = Path(made) / "run"
    else:
        folder = out.absolute()
    if "." not in recorded.places.values():
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _other_models(recorded: RecordedRun, folder: Path) -> list[str]:
    """Models whose weights or revision are not those of the record, which the second run says."""
    from cogit.errors import ArtefactError
    from cogit.manifest import SIDECAR
    from cogit.replay import RecordedRun

    first = next(name for name in recorded.places.values() if name is not None)
    try:
        again = RecordedRun.load(folder if first == "." else folder / f"{first}{SIDECAR}")
    except (ArtefactError, OSError) as error:
        say("warning", str(error))
        return []
    found: list[str] = []
    for name, model in recorded.models.items():
        prints = [_fingerprint(model), _fingerprint(again.models.get(name))]
        if prints[0] != prints[1]:
            found.append(f"model {name}: {prints[0]} then, {prints[1]} now")
            say("other", found[-1])
    return found


def _fingerprint(model: Any) -> str:
    return str(model.get("fingerprint"))[:60] if isinstance(model, dict) else "none"


def _facts(check: OutputCheck) -> dict[str, Any]:
    return {
        "name": check.name,
        "verdict": check.verdict,
        "recorded": check.recorded,
        "replayed": check.replayed,
        "difference": check.difference or None,
    }


def _print(checks: list[OutputCheck], *, equal: bool) -> None:
    width = max(6, *(len(check.name) for check in checks))
    print(f"{'output':<{width}}  {'recorded':<12}  {'replayed':<12}")
    for check in checks:
        hashes = [(value or "none")[:12] for value in (check.recorded, check.replayed)]
        note = f": {check.difference}" if check.difference else ""
        print(f"{check.name:<{width}}  {hashes[0]:<12}  {hashes[1]:<12}  {check.verdict}{note}")
    same = sum(check.verdict == "equal" for check in checks)
    verdict = "the same run" if equal else "NOT THE SAME RUN"
    print(f"{verdict}: {same} of {len(checks)} outputs equal")
