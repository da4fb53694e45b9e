"""Recording: the states of contrast pairs, batch by batch, into memory or into a store.

All layers come from one pass. The texts of a shard are sorted by length and cut into batches by the
number of tokens, so that memory has a bound and the same recording gives the same bits, whether it
was interrupted or not.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cogit import artefact
from cogit.hook_points import HookPoint, parse_hook_point
from cogit.identity import ModelIdentity
from cogit.layers import LayerRange
from cogit.pairs import ContrastPair, require_pairs
from cogit.progress import track
from cogit.selection import Selection
from cogit.store import ActivationStore, Recipe, Rows, RowType, locked

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A batch has at most so many tokens with padding, and keeps at most so many bytes of states.
_BATCH_TOKENS, _BATCH_BYTES = 512, 2**25
_SHARD_BYTES = 2**24


class Steering(Protocol):
    """What recording needs of an intervention."""

    @property
    def content_hash(self) -> str: ...


class Recordable(Protocol):
    """What recording needs of a backend."""

    @property
    def identity(self) -> ModelIdentity: ...

    @property
    def context_length(self) -> int: ...

    @property
    def numerics(self) -> str: ...

    @property
    def intervention(self) -> Steering | None: ...

    def tokenize(self, text: str) -> list[int]: ...

    def states(
        self,
        sequences: Sequence[Sequence[int]],
        layers: Sequence[int],
        spans: Sequence[tuple[int, int]],
        *,
        mean: bool,
        hook_point: HookPoint = ...,
    ) -> list[NDArray[np.float32]]: ...


@dataclass(frozen=True)
class Plan:
    """What to run: token ids and the span to keep for every text, in the order positive, negative.

    Two texts to a pair: text 2i is the positive one of pair i.
    """

    recipe: Recipe
    sequences: tuple[tuple[int, ...], ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.sequences))

    def batches(self, number: int) -> list[list[int]]:
        """The texts of a shard, cut into batches."""
        recipe = self.recipe
        row_bytes = 4 * len(recipe.layers) * recipe.identity.d_model
        limit = _BATCH_TOKENS
        if not recipe.select.averages:
            limit = max(1, min(limit, _BATCH_BYTES // row_bytes))
        first, stop = recipe.shards[number]
        batches: list[list[int]] = []
        for text in sorted(range(2 * first, 2 * stop), key=lambda i: len(self.sequences[i])):
            # The newest is the longest, so it decides the width.
            if batches and (len(batches[-1]) + 1) * len(self.sequences[text]) <= limit:
                batches[-1].append(text)
            else:
                batches.append([text])
        return batches


def make_plan(
    backend: Recordable,
    pairs: Sequence[ContrastPair],
    layers: LayerRange | None = None,
    *,
    hook_point: str = "resid_post",
    select: Selection | str = "tail-4",
    dtype: RowType = "f32",
    rows_per_shard: int | None = None,
) -> Plan:
    """Tokenize and check everything before the model runs.

    Raises ValueError for fewer than two pairs, a bad layer, hook point or selection, a text that is
    too short for the selection or too long for the context.
    """
    point, block = parse_hook_point(hook_point)
    chosen = layers or LayerRange(None if block is None else (block,))
    blocks = chosen.resolve(backend.identity.n_layers)
    if block is not None and blocks != (block,):
        message = f"[record] expected block {block}, as {hook_point} says, got layers {layers}"
        raise ValueError(message)
    selection = Selection.parse(select) if isinstance(select, str) else select
    sequences: list[tuple[int, ...]] = []
    spans: list[tuple[int, int]] = []
    for number, pair in enumerate(require_pairs(pairs), 1):
        for text in pair.texts:
            ids = backend.tokenize(text)
            sequences.append(tuple(ids))
            spans.append(_span(backend, pair, text, ids, selection, number))
    width = len(blocks) * backend.identity.d_model * (2 if dtype == "f16" else 4)
    limit = max(1, _SHARD_BYTES // width) if rows_per_shard is None else rows_per_shard
    if limit < 1:
        message = f"[record] expected at least 1 row in a shard, got {rows_per_shard}"
        raise ValueError(message)
    counts = [1 if selection.averages else end - begin for begin, end in spans]
    shards = _cut([sum(counts[i : i + 2]) for i in range(0, len(counts), 2)], limit)
    key = _key(backend, pairs, sequences, [blocks, str(point), str(selection), dtype, shards])
    recipe = Recipe(
        key, backend.identity, blocks, point, selection, dtype, len(pairs), tuple(shards)
    )
    return Plan(recipe, tuple(sequences), tuple(spans))


def run_shard(backend: Recordable, plan: Plan, number: int) -> Iterator[tuple[int, Rows]]:
    """Run one shard; yields (text, its rows) in no particular order, batch by batch."""
    recipe = plan.recipe
    for batch in plan.batches(number):
        found = backend.states(
            [plan.sequences[text] for text in batch],
            recipe.layers,
            [plan.spans[text] for text in batch],
            mean=recipe.select.averages,
            hook_point=recipe.hook_point,
        )
        for text, states in zip(batch, found, strict=True):
            if not np.isfinite(states).all():
                message = (
                    f"[record] expected finite states, got NaN or infinity from "
                    f"{recipe.identity.name} at text {text % 2 + 1} of pair {text // 2 + 1}"
                )
                raise ValueError(message)
            yield text, _rows(plan, text, states)


def record_to(
    backend: Recordable,
    pairs: Sequence[ContrastPair],
    folder: str | Path,
    layers: LayerRange | None = None,
    *,
    hook_point: str = "resid_post",
    select: Selection | str = "tail-4",
    dtype: RowType = "f32",
    rows_per_shard: int | None = None,
    resume: bool = False,
    cache: str | Path | None = None,
    show_progress: bool = True,
) -> ActivationStore:
    """Record into a folder, shard by shard, with bounded memory.

    hook_point, select: see ``hook_points`` and ``Selection``. dtype: float32 or float16 rows.
    rows_per_shard: at most so many of a shard's rows (one pair at least); by default 16 MiB of
    them. resume: go on with what a run that was killed left there, which loses at most one shard.
    cache: a folder of earlier recordings (see ``activations.record``), from which it is copied.

    Raises ValueError as ``make_plan`` and ArtefactError for a folder with anything else in it.
    """
    plan = make_plan(
        backend,
        pairs,
        layers,
        hook_point=hook_point,
        select=select,
        dtype=dtype,
        rows_per_shard=rows_per_shard,
    )
    target = ActivationStore(Path(folder), plan.recipe)
    if cache is None:
        return fill(backend, plan, target, resume=resume, show_progress=show_progress)
    source = cached_store(backend, plan, cache, show_progress=show_progress)
    with locked(target.folder):
        for number in target.begin(resume=resume):
            shutil.copyfile(source.path(number), target.folder / ".shard-copy")
            (target.folder / ".shard-copy").replace(target.path(number))
    return target


def fill(
    backend: Recordable,
    plan: Plan,
    store: ActivationStore,
    *,
    resume: bool,
    show_progress: bool = True,
) -> ActivationStore:
    """Record the shards that a store still lacks."""
    with locked(store.folder):
        missing = store.begin(resume=resume)
        for number in track(missing, "recording", show=show_progress):
            found = sorted(run_shard(backend, plan, number), key=lambda item: item[0])
            sides = [[rows for text, rows in found if text % 2 == side] for side in (0, 1)]
            store.write(number, _join(sides[0]), _join(sides[1]))
    return store


def cached_store(
    backend: Recordable, plan: Plan, cache: str | Path, *, show_progress: bool = True
) -> ActivationStore:
    """The finished store of this plan under ``cache``, recorded now where it is not there.

    What is damaged is recorded anew, with a warning. ValueError for a model without a fingerprint,
    which could not be told from another.
    """
    if not plan.recipe.identity.fingerprint:
        message = (
            f"[cache] expected a model with a fingerprint, got {plan.recipe.identity.name} without "
            f"one; load it from files, or record without a cache"
        )
        raise ValueError(message)
    store = ActivationStore(Path(cache) / plan.recipe.key, plan.recipe)
    store.discard_if_damaged()
    return fill(backend, plan, store, resume=True, show_progress=show_progress)


def _span(
    backend: Recordable,
    pair: ContrastPair,
    text: str,
    ids: Sequence[int],
    selection: Selection,
    number: int,
) -> tuple[int, int]:
    """The tokens of one text to keep; ValueError where there are none or too many tokens."""
    if len(ids) > backend.context_length:
        message = (
            f"[record] expected texts of at most {backend.context_length} tokens (the context), "
            f"got {len(ids)} in pair {number}: {text[:60]!r}"
        )
        raise ValueError(message)
    n_prompt = 0
    if selection.kind == "answer":
        if not pair.prompt:
            message = f"[record] expected a prompt in every pair for answer, got none in {number}"
            raise ValueError(message)
        n_prompt = _common(backend.tokenize(pair.prompt), ids)
    begin, end = selection.span(len(ids), n_prompt)
    if begin >= end:
        least = "a token after the prompt" if n_prompt else "at least 2 tokens"
        message = f"[record] expected texts of {least}, got {text[:80]!r} in pair {number}"
        raise ValueError(message)
    return begin, end


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Leading ids in common. A token that spans the border belongs to the answer."""
    equal = (a == b for a, b in zip(one, other, strict=False))
    return next((i for i, same in enumerate(equal) if not same), min(len(one), len(other)))


def _cut(rows: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Ranges of pairs with at most ``limit`` rows each, one pair at least."""
    shards: list[tuple[int, int]] = []
    first = held = 0
    for pair, count in enumerate(rows):
        if pair > first and held + count > limit:
            shards.append((first, pair))
            first, held = pair, 0
        held += count
    return [*shards, (first, len(rows))]


def _key(
    backend: Recordable,
    pairs: Sequence[ContrastPair],
    sequences: Sequence[Sequence[int]],
    settings: Sequence[object],
) -> str:
    """A digest of everything that decides the rows."""
    steering = backend.intervention
    facts = {
        "format_version": artefact.FORMAT_VERSION,
        "model": backend.identity.to_json(),
        "numerics": backend.numerics,
        "steering": None if steering is None else steering.content_hash,
        "settings": settings,
        "batch": [_BATCH_TOKENS, _BATCH_BYTES],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for pair in pairs:
        digest.update(json.dumps([pair.prompt, pair.positive, pair.negative]).encode())
    for ids in sequences:
        digest.update(np.asarray(ids, "<i8").tobytes() + b";")
    return digest.hexdigest()


def _rows(plan: Plan, text: int, states: NDArray[np.float32]) -> Rows:
    begin, end = plan.spans[text]
    if plan.recipe.select.averages:
        position = [begin if end - begin == 1 else -1]
    else:
        position = list(range(begin, end))
    pair = np.full(len(position), text // 2, np.int32)
    return Rows(states, pair, np.asarray(position, np.int32))


def _join(parts: Sequence[Rows]) -> Rows:
    return Rows(
        np.concatenate([part.states for part in parts], axis=1),
        np.concatenate([part.pair for part in parts]),
        np.concatenate([part.position for part in parts]),
    )
