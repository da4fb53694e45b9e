"""A recorded run read back, and what a second run is compared to. Nothing here runs anything.

A manifest may come from anybody: every entry is checked before it is used, names of outputs stay
below the run's folder, and its arguments are parsed anew by the command that they name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cogit.differences import describe_difference
from cogit.entries import entry
from cogit.errors import ArtefactError
from cogit.hashing import file_hash, tree_hashes
from cogit.manifest import FILE_NAME, FORMAT, FORMAT_VERSION, SIDECAR, builds, versions
from cogit.run_inputs import require_unchanged

_MAX_FILE = 16 * 2**20
_MOST = 100_000
_MOST_ARGUMENTS = 1000
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class RecordedRun:
    """The manifest of a run. path: its file; folder: where its outputs lie.

    places: by flag the name of an output in the folder, "." for the folder itself, None for one
    that is not compared. outputs: SHA-256 by name.
    """

    path: Path
    command: str
    arguments: tuple[str, ...]
    working_folder: Path
    inputs: Mapping[str, list[Any]]
    places: Mapping[str, str | None]
    outputs: Mapping[str, str]
    unhashed: tuple[str, ...]
    versions: Mapping[str, str]
    builds: Mapping[str, str]
    platform: Mapping[str, Any]
    threads: Mapping[str, Any]
    models: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        return self.path.parent

    @classmethod
    def load(cls, path: str | Path) -> RecordedRun:
        """From a run folder, its ``manifest.json``, a ``*.run.json``, or the output beside one.

        Raises FileNotFoundError where there is none, or ArtefactError naming what is wrong with it.
        """
        source = _manifest_path(Path(path))
        if source.stat().st_size > _MAX_FILE:
            message = f"[replay] {source} is larger than {_MAX_FILE // 2**20} MiB, too much for one"
            raise ArtefactError(message)
        try:
            data = json.loads(source.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            message = f"[replay] expected JSON in {source}, got {_one_line(error)}"
            raise ArtefactError(message) from error
        try:
            return cls._checked(source, data)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            message = f"[replay] expected the manifest of a run in {source}, got {_one_line(error)}"
            raise ArtefactError(message) from error

    @classmethod
    def _checked(cls, source: Path, data: Any) -> RecordedRun:
        kind, version = entry(data, "format", str), entry(data, "format_version", int)
        if (kind, version) != (FORMAT, FORMAT_VERSION):
            message = f"{kind[:40]!r} of version {version}, not {FORMAT!r} of {FORMAT_VERSION}"
            raise ValueError(message)
        arguments = tuple(_texts(entry(data, "arguments", list), "arguments", _MOST_ARGUMENTS))
        command = entry(data, "command", str)
        if not arguments or arguments[0] != command:
            message = f"no arguments of the command {command[:40]!r} that it names"
            raise ValueError(message)
        outputs, places = entry(data, "outputs", dict), entry(data, "places", dict)
        _require_names([*outputs, *(name for name in places.values() if name not in (None, "."))])
        for name, digest in outputs.items():
            if type(digest) is not str or len(digest) != 64 or not _HEX.issuperset(digest):
                message = f"no SHA-256 of {name[:60]!r}"
                raise ValueError(message)
        if not outputs:
            message = "no outputs to compare"
            raise ValueError(message)
        for flag, described in entry(data, "inputs", dict).items():
            _require_list_of_objects(flag, described)
        return cls(
            path=source.absolute(),
            command=command,
            arguments=arguments,
            working_folder=Path(_path(entry(data, "working_folder", str))),
            inputs=data["inputs"],
            places=places,
            outputs=outputs,
            unhashed=tuple(_texts(entry(data, "unhashed", list), "unhashed", _MOST)),
            versions=entry(data, "versions", dict),
            builds=entry(data, "builds", dict),
            platform=entry(data, "platform", dict),
            threads=entry(data, "threads", dict),
            models=entry(data, "models", dict),
        )

    def check_inputs(self, folder: Path) -> list[str]:
        """Remarks on what could not be checked. Relative paths are taken from ``folder``.

        Raises FileNotFoundError or ValueError naming an input that is gone or has changed.
        """
        remarks: list[str] = []
        for flag, described in self.inputs.items():
            for one in described:
                try:
                    found = list(require_unchanged(flag, one, folder))
                except (KeyError, TypeError) as error:
                    message = f"[replay] expected a described input {flag}, got {_one_line(error)}"
                    raise ArtefactError(message) from error
                remarks += [f"{flag} {what}: {remark}" for what, remark in found]
        return remarks

    def departures(self) -> list[str]:
        """What is other here than it was: versions, builds, CPU, threads; one line each."""
        now = {
            **{f"version of {name}": found for name, found in versions().items()},
            **{f"build of {name}": found[:12] for name, found in builds().items()},
        }
        before = {
            **{f"version of {name}": found for name, found in self.versions.items()},
            **{f"build of {name}": str(found)[:12] for name, found in self.builds.items()},
        }
        found = [
            f"{name}: {_short(before[name])} then, {_short(now.get(name, 'unknown'))} now"
            for name in before
            if before[name] != now.get(name)
        ]
        return [*found, *self._hardware()]

    def _hardware(self) -> Iterator[str]:
        from cogit import manifest

        here = {
            "cpu": manifest.cpu_model(),
            "cpu_variant": manifest.cpu_variant(),
        }
        for name, now in here.items():
            if self.platform.get(name) != now:
                label = name.replace("_", " ")
                yield f"{label}: {_short(self.platform.get(name))} then, {_short(now)} now"
        if self.threads.get("cores") != manifest.cores():
            yield f"cores: {_short(self.threads.get('cores'))} then, {manifest.cores()} now"


@dataclass(frozen=True)
class OutputCheck:
    """One output of both runs. verdict: equal, differs, missing or new."""

    name: str
    recorded: str | None
    replayed: str | None
    difference: str = ""

    @property
    def verdict(self) -> str:
        if self.replayed is None:
            return "missing"
        if self.recorded is None:
            return "new"
        return "equal" if self.recorded == self.replayed else "differs"


def compare_outputs(run: RecordedRun, folder: Path) -> list[OutputCheck]:
    """Every output of the record beside what lies in ``folder`` now, in the order of their names.

    Where one differs and the recorded file is still there unchanged, its difference is described.
    """
    now = tree_hashes(folder, run.unhashed)
    return [
        OutputCheck(
            name,
            run.outputs.get(name),
            now.get(name),
            _difference(run, folder, name, now.get(name)),
        )
        for name in sorted({**run.outputs, **now})
    ]


def _difference(run: RecordedRun, folder: Path, name: str, replayed: str | None) -> str:
    recorded = run.outputs.get(name)
    if recorded == replayed or recorded is None or replayed is None:
        return ""
    before = run.folder / name
    if before.is_symlink() or not before.is_file():
        return "the recorded file is not there to compare with"
    if not before.resolve().is_relative_to(run.folder.resolve()):
        return "the recorded file lies elsewhere"
    if file_hash(before) != recorded:
        return "the recorded file has changed since"
    return describe_difference(before, folder / name)


def _manifest_path(given: Path) -> Path:
    beside = given.absolute().parent / f"{given.absolute().name}{SIDECAR}"
    inside = given / FILE_NAME
    for candidate in (beside, inside) if given.is_dir() else (beside, given):
        # A folder of recorded states has a manifest of its own, and its run's record beside it.
        if candidate.is_file() and (candidate == beside or candidate.name.endswith(".json")):
            return candidate
    message = (
        f"[replay] expected a run folder, a file *{SIDECAR} or the output beside one, got {given}, "
        f"which has no record of a run"
    )
    raise FileNotFoundError(message)


def _texts(values: list[Any], what: str, most: int) -> list[str]:
    if len(values) > most or not all(type(v) is str and "\0" not in v for v in values):
        message = f"{what} that are no list of at most {most} texts"
        raise ValueError(message)
    return values


def _path(text: str) -> str:
    if "\0" in text or not Path(text).is_absolute():
        message = f"no absolute working folder, {text[:60]!r}"
        raise ValueError(message)
    return text


def _require_names(names: list[Any]) -> None:
    if len(names) > _MOST:
        message = f"more than {_MOST} outputs"
        raise ValueError(message)
    for name in names:
        parts = PurePosixPath(name).parts if type(name) is str else ()
        if not parts or parts[0] == "/" or ".." in parts or "\0" in name or "\\" in name:
            message = f"an output that is not below its folder, {str(name)[:60]!r}"
            raise ValueError(message)


def _require_list_of_objects(flag: str, described: Any) -> None:
    if not isinstance(described, list) or not all(isinstance(one, dict) for one in described):
        message = f"an input {flag[:40]!r} that is not described"
        raise ValueError(message)


def _short(value: Any) -> str:
    return str(value)[:60]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
