"""The record of a command's run: ``FILE.run.json`` beside what it writes, or a folder's manifest.

A command calls ``begin`` once its flags are checked and ``finish`` once its files are written, or
``finish_folder`` on a run folder before that gets its name. What models it opened is noted between.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cogit.cli.command_values import arguments_of, current_context, values_of
from cogit.cli.outputs import Inputs

if TYPE_CHECKING:
    from cogit.backends import Backend

_NOTE = "cogit.run_record"
_B = TypeVar("_B", bound="Backend")


@dataclass
class RunRecord:
    """One run between its beginning and its end.

    context: the command's; None where it was called from Python, and then nothing is written.
    outputs: files or folders by flag, the first of which the record lies beside.
    """

    context: Any | None
    outputs: dict[str, Path]
    inputs: dict[str, list[dict[str, Any]]]
    used: dict[str, Any]
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    threads: int | None = None
    started: float = field(default_factory=time.perf_counter)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        """Call what was done since the last lap by a name."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now

    def finish(self) -> Path | None:
        """Write the record beside the first output; returns its path."""
        if self.context is None or not self.outputs:
            return None
        from cogit.artefact import write_bytes
        from cogit.hashing import file_hash, tree_hashes

        hashes: dict[str, str] = {}
        places: dict[str, str | None] = {}
        for flag, path in self.outputs.items():
            name = path.absolute().name
            places[flag] = name = name if name not in places.values() else f"{flag}-{name}"
            if path.is_dir():
                hashes |= {f"{name}/{k}": v for k, v in tree_hashes(path).items()}
            else:
                hashes[name] = file_hash(path)
        target = sidecar_of(next(iter(self.outputs.values())))
        manifest = self._manifest(target.absolute().parent, places, outputs=hashes)
        write_bytes(target, _dumped(manifest))
        return target

    def finish_folder(
        self, folder: Path, *, flag: str = "out", unhashed: Iterable[str] = ()
    ) -> None:
        """Write ``manifest.json`` into a run folder; other outputs are not compared at a replay.

        unhashed: relative names of files that cannot be the same twice.
        """
        if self.context is None:
            return
        from cogit.artefact import write_bytes
        from cogit.manifest import FILE_NAME

        places: dict[str, str | None] = {**dict.fromkeys(self.outputs), flag: "."}
        manifest = self._manifest(folder, places, unhashed=unhashed)
        write_bytes(folder / FILE_NAME, _dumped(manifest))

    def _manifest(
        self, folder: Path, places: Mapping[str, str | None], **options: Any
    ) -> dict[str, Any]:
        from cogit.manifest import build_manifest

        assert self.context is not None
        self.lap("work")
        self.seconds["total"] = time.perf_counter() - self.started
        kinds = {name: {one[name] for one in self.models.values()} for name in ("device", "dtype")}
        return build_manifest(
            str(self.context.info_name),
            folder,
            settings=values_of(self.context),
            seconds=self.seconds,
            models=self.models,
            inputs=dict(self.inputs),
            device=", ".join(sorted(kinds["device"])) or None,
            dtype=", ".join(sorted(kinds["dtype"])) or None,
            threads=self.threads,
            argv=arguments_of(self.context, self.used),
            places=places,
            **options,
        )


def begin(
    outputs: Mapping[str, Path | None],
    inputs: Inputs,
    *,
    force: bool,
    folder: bool = False,
) -> RunRecord:
    """Hash the inputs and see that the record may be written; nothing is written yet.

    outputs, inputs: as of ``require_writable``, which comes first. An input whose flag was not
    given, such as a model named by the environment, becomes part of the recorded arguments, save
    cogit's own demo model, which is what no flag means. folder: the first output is a run folder,
    in which the record will lie. FileExistsError where there is a record already, without force.
    """
    from cogit.run_inputs import describe_inputs, is_packaged

    given = {flag: path for flag, path in outputs.items() if path is not None}
    context = current_context()
    record = RunRecord(context, given, {}, {})
    if context is None or not given:
        return record
    if not folder:
        _require_new(next(iter(given.items())), force=force)
    record.inputs = describe_inputs(inputs)
    names = {name.replace("-", "_").lower(): value for name, value in inputs.items()}
    record.used = {
        name: value
        for name, value in names.items()
        if context.params.get(name, "") is None and not is_packaged(value)
    }
    context.meta[_NOTE] = record
    record.lap("inputs")
    return record


def noted(backend: _B, running: Mapping[str, str], threads: int | None) -> _B:
    """The same backend, noted in the record of the command that runs, if it has one.

    running: its kernel, dtype and device. threads: those that were asked for.
    """
    context = current_context()
    record = None if context is None else context.meta.get(_NOTE)
    if record is not None:
        name, number = backend.name, 2
        while name in record.models:
            name, number = f"{backend.name} {number}", number + 1
        record.models[name] = {**backend.identity.to_json(), **running}
        record.threads = threads
        record.lap("load")
    return backend


def sidecar_of(output: Path) -> Path:
    """The record of a single file, or of a folder that is no run folder: ``NAME.run.json``."""
    from cogit.manifest import SIDECAR

    return output.absolute().parent / f"{output.absolute().name}{SIDECAR}"


def _require_new(output: tuple[str, Path], *, force: bool) -> None:
    flag, path = output
    record = sidecar_of(path)
    if record.is_dir() or (os.path.lexists(record) and not force):
        message = (
            f"[{flag}] expected no record of a run beside {path}, got {record.name}; choose "
            f"another name or pass --force"
        )
        raise FileExistsError(message)


def _dumped(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
