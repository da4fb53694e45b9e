"""A folder of recorded states: shards of bounded size beside a manifest, written one by one.

``manifest.json`` says what is recorded and how it is cut into shards, ``shard-00000.safetensors``
holds the rows of some pairs. Both appear whole or not at all, each shard carries a digest of its
contents, and the key in all of them (a digest of model, texts and settings) keeps rows of different
recordings apart.
"""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from cogit import artefact
from cogit.entries import entry
from cogit.errors import ArtefactError
from cogit.hook_points import HookPoint
from cogit.identity import ModelIdentity
from cogit.selection import Selection

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)
_MANIFEST, _KIND, _SHARD_KIND = "manifest.json", "activation store", "activations shard"
_MAX_MANIFEST = 2**26
RowType = Literal["f32", "f16"]
_TYPES: dict[str, type[np.floating[Any]]] = {"f32": np.float32, "f16": np.float16}
_SIDES = ("positive", "negative")


@dataclass(frozen=True)
class Recipe:
    """What a store holds: of which model, where, which tokens, in which shards.

    shards: half-open ranges of pairs. key: a digest of all this and of the texts.
    """

    key: str
    identity: ModelIdentity
    layers: tuple[int, ...]
    hook_point: HookPoint
    select: Selection
    dtype: RowType
    n_pairs: int
    shards: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if self.dtype not in _TYPES:
            message = f"[store] expected rows of type f32 or f16, got {self.dtype!r}"
            raise ValueError(message)
        stops = [0, *(stop for _, stop in self.shards)]
        starts = [*(start for start, _ in self.shards), self.n_pairs]
        if starts != stops or any(start >= stop for start, stop in self.shards):
            message = f"[store] expected shards that cover {self.n_pairs} pairs, got {self.shards}"
            raise ValueError(message)
        if not self.layers:
            message = "[store] expected at least one block, got none"
            raise ValueError(message)

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "model": self.identity.to_json(),
            "layers": list(self.layers),
            "hook_point": str(self.hook_point),
            "select": str(self.select),
            "dtype": self.dtype,
            "pairs": self.n_pairs,
            "shards": [list(shard) for shard in self.shards],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        shards = [entry(data["shards"], i, list) for i in range(len(entry(data, "shards", list)))]
        if any(len(shard) != 2 for shard in shards):
            message = f"expected shards of two numbers each, got {str(shards)[:60]}"
            raise ValueError(message)
        return cls(
            key=entry(data, "key", str),
            identity=ModelIdentity.from_json(entry(data, "model", dict)),
            layers=tuple(entry(data["layers"], i, int) for i in range(len(data["layers"]))),
            hook_point=HookPoint(entry(data, "hook_point", str)),
            select=Selection.parse(entry(data, "select", str)),
            dtype=cast("RowType", entry(data, "dtype", str)),
            n_pairs=entry(data, "pairs", int),
            shards=tuple((entry(s, 0, int), entry(s, 1, int)) for s in shards),
        )


@dataclass(frozen=True)
class Rows:
    """States of one class in one shard, or of a whole store.

    states: (layer, row, d_model). pair: (row,) the pair that each row is of. position: (row,) the
    token's position in its text, −1 where a row is a mean over several.
    """

    states: NDArray[np.floating[Any]]
    pair: NDArray[np.int32]
    position: NDArray[np.int32]


@dataclass(frozen=True)
class Shard:
    """The rows of both classes for the pairs ``first`` .. ``stop`` − 1."""

    first: int
    stop: int
    positive: Rows
    negative: Rows


class ActivationStore:
    """A finished or unfinished store. Reading goes shard by shard, so memory stays bounded."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe

    @classmethod
    def open(cls, folder: str | Path) -> ActivationStore:
        """A finished store; ArtefactError for one that is not, FileNotFoundError for none."""
        store = cls.peek(folder)
        missing = sum(not store.path(i).is_file() for i in range(len(store.recipe.shards)))
        if missing:
            message = (
                f"[load] expected a finished store, got {folder} with {missing} of "
                f"{len(store.recipe.shards)} shards missing; record it again with --resume"
            )
            raise ArtefactError(message)
        return store

    @classmethod
    def peek(cls, folder: str | Path) -> ActivationStore:
        """Read the manifest alone, of a store that may be unfinished."""
        path = Path(folder) / _MANIFEST
        if not path.is_file():
            message = f"[load] expected a store with {_MANIFEST}, got {folder}"
            raise FileNotFoundError(message)
        try:
            if path.stat().st_size > _MAX_MANIFEST:
                message = f"more than {_MAX_MANIFEST} bytes"
                raise ValueError(message)
            data = json.loads(path.read_text(encoding="utf-8"))
            version = (entry(data, "kind", str), entry(data, "format_version", int))
            if version != (_KIND, artefact.FORMAT_VERSION):
                message = f"{version[0]} of version {version[1]}"
                raise ValueError(message)
            return cls(Path(folder), Recipe.from_json(data))
        except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            message = f"[load] expected the manifest of a store in {path}, got: {reason}"
            raise ArtefactError(message) from error

    def path(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.safetensors"

    def read(self, number: int) -> Shard:
        """One shard; ArtefactError if it is damaged or not of this recording."""
        path = self.path(number)
        tensors, data = artefact.read(path, _SHARD_KIND)
        facts = self._facts(number)
        if {name: data.get(name) for name in facts} != facts:
            message = f"[load] expected shard {number} of {self.folder}, got one of another store"
            raise ArtefactError(message)
        try:
            if artefact.content_hash(tensors, facts) != entry(data, "content_hash", str):
                message = "other contents than were written"
                raise ValueError(message)
            sides = [
                Rows(*(tensors[f"{side}{part}"] for part in ("", "_pair", "_position")))
                for side in _SIDES
            ]
            self._require_shapes(sides)
        except (ValueError, TypeError, KeyError) as error:
            message = f"[load] expected a whole shard in {path}, got {error}"
            raise ArtefactError(message) from error
        return Shard(facts["first"], facts["stop"], sides[0], sides[1])

    def shards(self) -> Iterator[Shard]:
        """Every shard in order of its pairs."""
        for number in range(len(self.recipe.shards)):
            yield self.read(number)

    def write(self, number: int, positive: Rows, negative: Rows) -> None:
        """Write one shard whole. ValueError where a state does not fit float16."""
        tensors: dict[str, NDArray[Any]] = {}
        for side, rows in zip(_SIDES, (positive, negative), strict=True):
            with np.errstate(over="ignore"):
                states = rows.states.astype(_TYPES[self.recipe.dtype])
            if not np.isfinite(states).all():
                largest = float(np.abs(rows.states).max())
                message = (
                    f"[store] expected states within float16 (65504), got {largest:.4g}; use f32"
                )
                raise ValueError(message)
            tensors |= {side: states, f"{side}_pair": rows.pair, f"{side}_position": rows.position}
        facts = self._facts(number)
        digest = artefact.content_hash(tensors, facts)
        artefact.write(self.path(number), _SHARD_KIND, tensors, {**facts, "content_hash": digest})

    def begin(self, *, resume: bool) -> list[int]:
        """Write the manifest, or find it there; returns the shards that are to be recorded.

        A damaged shard counts as missing, with a warning. ArtefactError for a folder that holds
        anything else: another recording, or files of another origin.
        """
        self._require_room(resume=resume)
        for leftover in self.folder.glob(".shard-*"):
            leftover.unlink(missing_ok=True)  # of a run that was killed while it wrote
        manifest = {
            "format": "cogit",
            "kind": _KIND,
            "format_version": artefact.FORMAT_VERSION,
            **self.recipe.to_json(),
        }
        text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
        artefact.write_bytes(self.folder / _MANIFEST, text.encode())
        return [i for i in range(len(self.recipe.shards)) if not self._is_whole(i)]

    def discard_if_damaged(self) -> None:
        """Remove a manifest that cannot be read, with a warning; shards are checked later."""
        if not (self.folder / _MANIFEST).exists():
            return
        try:
            ActivationStore.peek(self.folder)
        except ArtefactError as error:
            _LOG.warning("%s; it is recorded anew", error)
            for path in [self.folder / _MANIFEST, *self.folder.glob("shard-*")]:
                path.unlink()

    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.folder.glob("*") if path.is_file())

    def _require_room(self, *, resume: bool) -> None:
        present = [p.name for p in self.folder.iterdir() if not p.name.startswith(".")]
        if not present:
            return
        if _MANIFEST not in present:
            message = (
                f"[record] expected an empty folder or a store of this recording, got "
                f"{self.folder} with {present[0]}"
            )
            raise ArtefactError(message)
        here, wanted = ActivationStore.peek(self.folder).recipe.to_json(), self.recipe.to_json()
        if here["key"] != wanted["key"]:
            names = [name for name in wanted if name != "key" and here[name] != wanted[name]]
            message = (
                f"[record] expected a store of this recording in {self.folder}, got one with "
                f"other {', '.join(names) or 'texts or arithmetic'}; choose another folder"
            )
            raise ArtefactError(message)
        if not resume:
            message = (
                f"[record] expected a new folder, got {self.folder} with a store of this "
                f"recording; resume it (--resume) or choose another folder"
            )
            raise ArtefactError(message)

    def _is_whole(self, number: int) -> bool:
        if not self.path(number).is_file():
            return False
        try:
            self.read(number)
        except ArtefactError as error:
            _LOG.warning("%s; it is recorded anew", error)
            return False
        return True

    def _facts(self, number: int) -> dict[str, Any]:
        first, stop = self.recipe.shards[number]
        return {"key": self.recipe.key, "shard": number, "first": first, "stop": stop}

    def _require_shapes(self, sides: list[Rows]) -> None:
        for rows in sides:
            n_rows = rows.states.shape[1] if rows.states.ndim == 3 else -1
            shape = (len(self.recipe.layers), n_rows, self.recipe.identity.d_model)
            index_shapes = {rows.pair.shape, rows.position.shape}
            if rows.states.shape != shape or index_shapes != {(n_rows,)}:
                message = f"states of shape {rows.states.shape} with indices {index_shapes}"
                raise ValueError(message)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder and hold it for one writer; a second process waits until the first is done."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOG.warning("[record] waiting for another process that writes %s", folder)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
