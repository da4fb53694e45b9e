"""cogit's operators and captures on one llama_context, as typed methods."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from cogit.backends.llama_batch import require_range
from cogit.backends.llama_library import CStats, LlamaLibrary
from cogit.errors import InterventionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Side = Literal["before", "after"]

_RESTORE = 1
_BEFORE, _AFTER, _HALF = 1, 2, 4
_SITE_OP = 0
_SIDES: dict[str, int] = {"before": _BEFORE, "after": _AFTER}


class AffineLike(Protocol):
    """What ``set_op`` reads of a cogit.affine.Affine; shapes as there."""

    @property
    def A(self) -> NDArray[np.float32]: ...
    @property
    def a0(self) -> NDArray[np.float32]: ...
    @property
    def B(self) -> NDArray[np.float32]: ...
    @property
    def c(self) -> NDArray[np.float32]: ...
    @property
    def restore(self) -> bool: ...


@dataclass(frozen=True)
class Stats:
    """What is in the graph built last, and two running totals.

    sites, skipped: blocks where an operator was placed, or could not be. nodes: graph nodes added.
    builds: graphs built so far; changing strengths must not raise it. ubatches: batches computed.
    """

    sites: int
    skipped: int
    nodes: int
    builds: int
    ubatches: int
    placed_layers: tuple[int, ...]


class LlamaHooks:
    """The part of LlamaEngine that acts on the residual stream. Owns nothing by itself."""

    _library: LlamaLibrary
    _context: Any
    _finalizer: weakref.finalize[Any, Any]
    n_layer: int
    n_embd: int
    n_seq: int
    architecture: str

    def __init__(self) -> None:
        self._wanted: set[int] = set()  # layers with an operator
        self._captured = 0  # rows that fit the open capture
        self._checked = True  # whether the present operators were seen in a graph

    # ---- operators ----

    def set_op(self, layer: int, affine: AffineLike) -> None:
        """Put an operator at the end of a block; it replaces the one that is there.

        Arrays are copied. It acts where a strength is set: without set_strength, nowhere.
        """
        A, a0, B, c = (
            np.ascontiguousarray(x, np.float32) for x in (affine.A, affine.a0, affine.B, affine.c)
        )
        rank, width = a0.size, c.size
        if A.shape != (rank, width) or B.shape != (rank, width):
            message = (
                f"[set_op] expected A and B of shape {(rank, width)}, got {A.shape} and {B.shape}"
            )
            raise ValueError(message)
        pointers = [x.ctypes.data if rank else None for x in (A, a0, B)]
        flags = _RESTORE if affine.restore else 0
        self._live()
        self._check(
            self._library.cogit.cogit_set_op(
                self._context, layer, width, rank, *pointers, c.ctypes.data, flags
            )
        )
        self._wanted.add(layer)
        self._checked = False

    def clear_ops(self, layer: int | None = None) -> None:
        """Take away the operator of one block, or all."""
        self._live()
        if layer is not None and layer < 0:
            message = f"[clear_ops] expected a layer of at least 0, got {layer}"
            raise ValueError(message)
        self._check(
            self._library.cogit.cogit_clear_op(self._context, -1 if layer is None else layer)
        )
        self._wanted = set() if layer is None else self._wanted - {layer}

    def set_strength(
        self, strength: float, seq: int | None = None, begin: int = 0, end: int | None = None
    ) -> None:
        """Let the operators act on positions [begin, end) of one sequence, or of all others."""
        self._live()
        if seq is not None:
            require_range("sequences", np.asarray([seq]), self.n_seq, "n_seq")
        self._check(
            self._library.cogit.cogit_set_strength(
                self._context,
                -1 if seq is None else seq,
                strength,
                begin,
                -1 if end is None else end,
            )
        )

    def reset_strengths(self) -> None:
        """Strength 0 everywhere."""
        self._live()
        self._check(self._library.cogit.cogit_reset_strengths(self._context))

    def detach(self) -> None:
        """Take away operators, strengths and captures: llama.cpp's own graph again."""
        self._live()
        self._check(self._library.cogit.cogit_detach(self._context))
        self._wanted, self._captured, self._checked = set(), 0, True

    def prepare(self) -> None:
        """Build the graphs for the present operators; InterventionError if one has no place."""
        self._live()
        self._check(self._library.cogit.cogit_prepare(self._context))
        if self._checked:
            return
        missing = sorted(self._wanted - set(self._sites(_SITE_OP)))
        if missing:
            reason = self._library.cogit.cogit_skip_reason(self._context).decode()
            message = (
                f"[LlamaEngine] no operator could be placed at layers {missing}: "
                f"{reason or f'{self.architecture} does not reach the hook there'}"
            )
            raise InterventionError(message)
        self._checked = True

    def stats(self) -> Stats:
        """What is in the graph; placed_layers names the blocks with an operator."""
        self._live()
        self._check(self._library.cogit.cogit_prepare(self._context))
        stats = CStats()
        self._check(
            self._library.cogit.cogit_get_stats(
                self._context, ctypes.byref(stats), ctypes.sizeof(stats)
            )
        )
        return Stats(
            sites=stats.n_sites,
            skipped=stats.n_skipped,
            nodes=stats.n_nodes,
            builds=stats.n_builds,
            ubatches=stats.n_ubatches,
            placed_layers=self._sites(_SITE_OP),
        )

    # ---- captures ----

    def capture_begin(
        self,
        layers: Sequence[int],
        max_rows: int,
        *,
        before: bool,
        after: bool,
        half: bool = False,
    ) -> None:
        """Keep the residual stream at the end of blocks, before and/or after the operator.

        Rows accumulate over decode calls, one per token. half stores float16.
        """
        self._live()
        chosen = np.asarray(layers, np.int32)
        flags = (_BEFORE if before else 0) | (_AFTER if after else 0) | (_HALF if half else 0)
        self._check(
            self._library.cogit.cogit_capture_begin(
                self._context, chosen.ctypes.data, chosen.size, max_rows, flags
            )
        )
        self._captured = max_rows

    def capture_read(
        self, layer: int, which: Side = "before", span: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """(rows, n_embd) float32, every row since the last rewind, or a half-open range of them.

        Raises ValueError if more rows came than fit, or if the last block dropped some of them
        because their logits were not wanted.
        """
        if which not in _SIDES:
            message = f"[capture_read] expected before or after, got {which!r}"
            raise ValueError(message)
        first, stop = span or (0, self._capture_rows())
        rows = np.empty((stop - first, self.n_embd), np.float32)
        self._check(
            self._library.cogit.cogit_capture_read(
                self._context, layer, _SIDES[which], first, len(rows), rows.ctypes.data
            )
        )
        return rows

    def capture_index(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Sequence and position of each row."""
        n_rows = self._capture_rows()
        sequences, positions = np.empty(n_rows, np.int32), np.empty(n_rows, np.int32)
        self._check(
            self._library.cogit.cogit_capture_index(
                self._context, sequences.ctypes.data, positions.ctypes.data, n_rows
            )
        )
        return sequences, positions

    def capture_rewind(self) -> None:
        """Forget the rows, keep capturing."""
        self._live()
        self._check(self._library.cogit.cogit_capture_rewind(self._context))

    def capture_end(self) -> None:
        """Stop capturing and free the rows."""
        self._live()
        self._check(self._library.cogit.cogit_capture_end(self._context))
        self._captured = 0

    def _check(self, code: int) -> int:
        return self._library.check(code)

    def _live(self) -> None:
        if not self._finalizer.alive:
            message = "[LlamaEngine] expected an open engine, got a closed one; load it again"
            raise ValueError(message)

    def _sites(self, kind: int) -> tuple[int, ...]:
        layers = np.empty(self.n_layer, np.int32)
        n = self._check(
            self._library.cogit.cogit_sites(self._context, kind, layers.ctypes.data, layers.size)
        )
        return tuple(layers[:n].tolist())

    def _capture_rows(self) -> int:
        self._live()
        n_rows = self._check(self._library.cogit.cogit_capture_rows(self._context))
        if n_rows > self._captured:
            message = (
                f"[capture] expected at most {self._captured} rows, got {n_rows}; "
                "raise max_rows or rewind more often"
            )
            raise ValueError(message)
        return n_rows
