"""Complex unit states of two classes on disk, with their projection, configuration and statistics.

A set of states is a folder: ``states.safetensors`` (float32 ``positive.real``, ``positive.imag``,
``negative.real``, ``negative.imag``; everything else as JSON in its header) and, where a
projection belongs to it, ``projection.safetensors``, bound to it by its hash. The file
``latest-states.json`` beside the folders names the newest. A component takes 8 bytes; as indented
JSON text it took 60 and more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit import artefact
from cogit.entries import entry
from cogit.errors import ArtefactError
from cogit.latest import point_latest, resolve_latest
from cogit.run_folder import new_run_folder
from cogit.separation import SeparationStatistics, separation_statistics

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Complex = NDArray[np.complex64]

STATES_FILE = "states.safetensors"
PROJECTION_FILE = "projection.safetensors"
# float32 rounding of a norm over a few thousand components stays below 1e-5; encoders are looser.
_UNIT = 1e-3


@dataclass(frozen=True)
class StateSet:
    """States of two classes and what they came from.

    positive, negative: (n, width) complex64 rows of norm 1. matched: row i of both is one pair.
    config: how they were made, JSON values. separation: the nine statistics, pairwise.
    timestamp: ISO 8601 with an offset. projection: (d_model, width) complex64 or None.
    origin: empty, or what an imported file said of itself, unchecked.
    """

    positive: Complex
    negative: Complex
    config: Mapping[str, Any]
    separation: SeparationStatistics
    timestamp: str
    matched: bool = True
    projection: Complex | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("positive", "negative"):
            _require_unit(name, getattr(self, name))
        width = self.positive.shape[1]
        projection = () if self.projection is None else self.projection.shape
        if self.negative.shape[1] != width or (projection and projection[-1] != width):
            message = (
                f"[states] expected one width, got states of {width} and "
                f"{self.negative.shape[1]} and a projection of shape {projection or None}"
            )
            raise ValueError(message)
        if self.projection is not None and not (
            self.projection.ndim == 2 and np.isfinite(self.projection).all()
        ):
            message = f"[states] expected a finite projection (d_model, width), got {projection}"
            raise ValueError(message)
        _require_time(self.timestamp)

    @classmethod
    def of(
        cls,
        positive: ArrayLike,
        negative: ArrayLike,
        *,
        config: Mapping[str, Any],
        projection: ArrayLike | None = None,
        matched: bool = True,
        timestamp: str | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> StateSet:
        """States with their statistics, as of now unless a timestamp is given.

        Raises ValueError for states that are not unit rows of one width, or fewer than two.
        """
        # What overflows is refused below as not finite.
        with np.errstate(over="ignore"):
            plus, minus = (np.asarray(x).astype(np.complex64) for x in (positive, negative))
        for name, rows in (("positive", plus), ("negative", minus)):
            _require_unit(name, rows)
        return cls(
            positive=plus,
            negative=minus,
            config=dict(config),
            separation=separation_statistics(plus, minus, matched=matched),
            timestamp=timestamp or datetime.now(UTC).isoformat(timespec="seconds"),
            matched=matched,
            projection=None if projection is None else np.asarray(projection, np.complex64),
            origin=dict(origin or {}),
        )

    def save(self, folder: str | Path, name: str) -> Path:
        """Write the set as ``folder``/``name`` and make it the latest; whole or not at all.

        Raises FileExistsError where something is there already, ValueError for a name that is
        no plain file name or a config that is not JSON.
        """
        if not name or Path(name).name != name or name.startswith("."):
            message = f"[states] expected a plain folder name, got {name!r}"
            raise ValueError(message)
        target = Path(folder) / name
        with new_run_folder(target) as working:
            if self.projection is not None:
                parts = _parts("projection", self.projection)
                artefact.write(working / PROJECTION_FILE, "projection", parts, {})
            tensors = _parts("positive", self.positive) | _parts("negative", self.negative)
            artefact.write(working / STATES_FILE, "states", tensors, self._metadata())
        point_latest(folder, "states", target)
        return target

    @classmethod
    def load(cls, path: str | Path) -> StateSet:
        """From a set's folder, or from the folder of all sets: there, the latest one.

        Raises FileNotFoundError, or ArtefactError naming what is wrong: damaged, of another kind,
        or with a projection that is not the one it was saved with.
        """
        source = Path(path)
        if not (source / STATES_FILE).is_file():
            source = resolve_latest(source, "states")
        tensors, data = artefact.read(source / STATES_FILE, "states")
        try:
            separation = entry(data, "separation_stats", dict)
            names = SeparationStatistics.__annotations__
            return cls(
                positive=_join("positive", tensors),
                negative=_join("negative", tensors),
                config=entry(data, "config", dict),
                separation=SeparationStatistics(**{n: entry(separation, n, float) for n in names}),
                timestamp=entry(data, "timestamp", str),
                matched=entry(data, "matched", bool),
                projection=_load_projection(source, data["projection_hash"]),
                origin=entry(data, "origin", dict),
            )
        except (KeyError, TypeError, ValueError) as error:
            message = f"[load] expected a set of states in {source}, got {error}"
            raise ArtefactError(message) from error

    def _metadata(self) -> dict[str, Any]:
        bound = self.projection is not None
        return {
            "config": dict(self.config),
            "separation_stats": self.separation.to_json(),
            "timestamp": self.timestamp,
            "matched": self.matched,
            "origin": dict(self.origin),
            "projection_hash": _projection_hash(self.projection) if bound else None,
        }


def _load_projection(folder: Path, expected: Any) -> Complex | None:
    if expected is None:
        return None
    tensors, _ = artefact.read(folder / PROJECTION_FILE, "projection")
    projection = _join("projection", tensors)
    if _projection_hash(projection) != expected:
        message = (
            f"another projection in {folder / PROJECTION_FILE} than the one these states were "
            f"saved with; encode them again"
        )
        raise ArtefactError(message)
    return projection


def _projection_hash(projection: Complex | None) -> str:
    assert projection is not None
    return artefact.content_hash(_parts("projection", projection), {})


def _parts(name: str, rows: Complex) -> dict[str, NDArray[Any]]:
    return {f"{name}.real": rows.real, f"{name}.imag": rows.imag}


def _join(name: str, tensors: Mapping[str, NDArray[Any]]) -> Complex:
    """Complex rows from two float32 arrays; KeyError or ValueError if they misfit."""
    real, imag = (tensors[f"{name}.{part}"] for part in ("real", "imag"))
    if real.dtype != np.float32 or imag.dtype != np.float32 or real.shape != imag.shape:
        message = (
            f"{name}.real and {name}.imag of {real.dtype} {real.shape} and {imag.dtype} "
            f"{imag.shape}, not two float32 arrays of one shape"
        )
        raise ValueError(message)
    return np.asarray(real + np.complex64(1j) * imag)


def _require_unit(name: str, rows: NDArray[Any]) -> None:
    if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] == 0 or rows.dtype != np.complex64:
        message = (
            f"[states] expected at least 2 complex64 {name} states (n, width), got {rows.dtype} "
            f"{rows.shape}"
        )
        raise ValueError(message)
    with np.errstate(over="ignore", invalid="ignore"):
        errors = np.abs(np.linalg.norm(rows, axis=1) - 1.0)
    if not (errors <= _UNIT).all():
        message = (
            f"[states] expected {name} states of norm 1, got one that is off by "
            f"{errors.max():.3g}; normalise them"
        )
        raise ValueError(message)


def _require_time(text: str) -> None:
    try:
        datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        message = f"[states] expected an ISO 8601 timestamp, got {text!r}"
        raise ValueError(message) from error
