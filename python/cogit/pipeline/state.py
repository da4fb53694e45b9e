"""``state.json``: which phases of a run folder are finished, from what, and whether they match.

A phase's folder is written beside its place and moved there whole, then the state is replaced. A
run that is killed between the two finds files that the state does not vouch for, and makes them
again. Every path in the state is relative to the run folder, which may move to another machine.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cogit.artefact import write_bytes
from cogit.entries import entry
from cogit.errors import ArtefactError
from cogit.manifest import file_hash
from cogit.pipeline.plan import PHASES

FILE = "state.json"
FORMAT = "cogit pipeline state"
FORMAT_VERSION = 1
_MAX_FILE = 2**24


@dataclass(frozen=True)
class PhaseRecord:
    """One finished phase.

    fingerprint, lineage: see `cogit.pipeline.lineage`. number: counts the times that a phase was
    finished in this folder; built_on: the numbers of the phases before it, as they were then.
    outputs: SHA-256 by path. finished: UTC, ISO. seconds: of the phase. gate: None until judged.
    """

    fingerprint: str
    lineage: dict[str, Any]
    number: int
    built_on: dict[str, int]
    outputs: dict[str, str]
    finished: str
    seconds: float
    gate: bool | None = None

    @property
    def age(self) -> float:
        """Seconds since it was finished; negative where the clock went back."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.finished)).total_seconds()

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PhaseRecord:
        """KeyError, TypeError or ValueError for other entries."""
        built_on, outputs = entry(data, "built_on", dict), entry(data, "outputs", dict)
        finished = entry(data, "finished", str)
        if datetime.fromisoformat(finished).tzinfo is None:
            message = f"expected a time with its zone, got {finished!r}"
            raise ValueError(message)
        gate = data.get("gate")
        return cls(
            fingerprint=entry(data, "fingerprint", str),
            lineage=entry(data, "lineage", dict),
            number=entry(data, "number", int),
            built_on={str(name): entry(built_on, name, int) for name in built_on},
            outputs={_inside(name): entry(outputs, name, str) for name in outputs},
            finished=finished,
            seconds=entry(data, "seconds", float),
            gate=gate if isinstance(gate, bool) else None,
        )


@dataclass(frozen=True)
class RunState:
    """All finished phases of a run folder."""

    folder: Path
    phases: Mapping[str, PhaseRecord] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> RunState:
        """The folder's state, empty where there is none; ArtefactError for a damaged one."""
        path = folder / FILE
        if not path.exists():
            return cls(folder)
        try:
            if path.stat().st_size > _MAX_FILE:
                message = f"expected at most {_MAX_FILE} bytes"
                raise ValueError(message)
            data = json.loads(path.read_text(encoding="utf-8"))
            if (data["format"], data["format_version"]) != (FORMAT, FORMAT_VERSION):
                message = f"expected {FORMAT} of version {FORMAT_VERSION}, got another"
                raise ValueError(message)
            phases = entry(data, "phases", dict)
            found = {
                name: PhaseRecord.from_json(entry(phases, name, dict))
                for name in PHASES
                if name in phases
            }
        except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
            message = (
                f"[pipeline] expected the state of a run in {path}, got "
                f"{' '.join(str(error).split())[:200]}; name another folder"
            )
            raise ArtefactError(message) from error
        return cls(folder, found)

    def matches(self, phase: str) -> dict[str, bool]:
        """For each phase before it: is it still the one that this phase was made from?"""
        record = self.phases[phase]
        return {
            name: name in self.phases and self.phases[name].number == record.built_on.get(name)
            for name in PHASES[: PHASES.index(phase)]
        }

    def problem(self, phase: str) -> str | None:
        """Why a phase's results cannot be used, whatever was asked for; None where they can."""
        record = self.phases.get(phase)
        if record is None:
            return "not finished"
        stale = [name for name, same in self.matches(phase).items() if not same]
        if stale:
            return f"stale: {', '.join(stale)} was made again since"
        for name, expected in record.outputs.items():
            path = self.folder / name
            if not path.is_file():
                return f"{name} is gone"
            if file_hash(path) != expected:
                return f"{name} changed since"
        here = {str(path.relative_to(self.folder)) for path in _files(self.folder / phase)}
        extra = sorted(here - record.outputs.keys())
        return f"{extra[0]} is not of this run" if extra else None

    def with_phase(self, phase: str, lineage: dict[str, Any], print_: str, took: float) -> RunState:
        """The state after a phase was finished: its outputs are hashed as they lie there."""
        before = self.phases.get(phase)
        record = PhaseRecord(
            fingerprint=print_,
            lineage=lineage,
            number=1 if before is None else before.number + 1,
            built_on={
                name: self.phases[name].number
                for name in PHASES[: PHASES.index(phase)]
                if name in self.phases
            },
            outputs={
                str(path.relative_to(self.folder)): file_hash(path)
                for path in _files(self.folder / phase)
            },
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(took, 3),
        )
        return replace(self, phases={**self.phases, phase: record})

    def judged(self, phase: str, holds: bool) -> RunState:
        """The state after a phase's gate."""
        record = replace(self.phases[phase], gate=holds)
        return replace(self, phases={**self.phases, phase: record})

    def save(self) -> None:
        """Replace ``state.json``; with each phase, whether it matches the ones before it."""
        phases = {
            name: {**self.phases[name].to_json(), "matches": self.matches(name)}
            for name in PHASES
            if name in self.phases
        }
        data = {"format": FORMAT, "format_version": FORMAT_VERSION, "phases": phases}
        write_bytes(self.folder / FILE, json.dumps(data, indent=2).encode() + b"\n")


@contextmanager
def phase_folder(run: Path, phase: str) -> Iterator[Path]:
    """A folder to fill, which takes the place of the phase's if the block ends well."""
    target = run / phase
    working = Path(tempfile.mkdtemp(dir=run, prefix=f".{phase}."))
    try:
        yield working
        working.chmod(0o755)
        for path in _files(working):
            _flush(path)
        if target.exists():
            old = Path(tempfile.mkdtemp(dir=run, prefix=f".{phase}.old."))
            target.replace(old / phase)
            working.replace(target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            working.replace(target)
    except BaseException:
        shutil.rmtree(working, ignore_errors=True)
        raise


def sweep_leftovers(run: Path) -> list[str]:
    """Remove what a killed run left half written; the names that were removed."""
    found = [
        path
        for phase in PHASES
        for path in sorted(run.glob(f".{phase}.*"))
        if path.is_dir() and not path.is_symlink()
    ]
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    return [path.name for path in found]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _flush(path: Path) -> None:
    """To the disk before the name is: a power cut must not leave an empty file with a good name."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _inside(name: object) -> str:
    text = str(name)
    if text.startswith("/") or ".." in Path(text).parts or "\0" in text:
        message = f"expected a path within the run folder, got {text[:60]!r}"
        raise ValueError(message)
    return text
