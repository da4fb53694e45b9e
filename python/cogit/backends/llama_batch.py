"""A llama_batch that NumPy fills, and the range check of what goes into it."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LlamaBatch:
    """A llama_batch over NumPy memory, so that filling it is four array copies."""

    def __init__(self, api: Any, capacity: int) -> None:
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._sequences = np.zeros(capacity, np.int32)
        self._counts = np.ones(capacity, np.int32)
        self._outputs = np.zeros(capacity, np.int8)
        # seq_id is an array of pointers, one to the (only) sequence of each token
        start, step = self._sequences.ctypes.data, self._sequences.itemsize
        self._pointers = start + step * np.arange(capacity, dtype=np.uintp)
        self._batch = api.llama_batch()
        for field, values in (
            ("token", self._tokens),
            ("pos", self._positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._pointers),
            ("logits", self._outputs),
        ):
            kind = dict(api.llama_batch._fields_)[field]
            setattr(self._batch, field, ctypes.cast(values.ctypes.data, kind))

    def fill(
        self,
        tokens: NDArray[Any],
        positions: NDArray[Any],
        sequences: NDArray[Any],
        wanted: NDArray[np.bool_],
    ) -> Any:
        n = len(tokens)
        self._tokens[:n], self._positions[:n] = tokens, positions
        self._sequences[:n], self._outputs[:n] = sequences, wanted
        self._batch.n_tokens = n
        return self._batch


def require_range(what: str, values: NDArray[Any], stop: int, meaning: str) -> None:
    if values.size == 0:
        return
    if values.dtype.kind not in "iu":
        message = f"[LlamaEngine] expected whole numbers as {what}, got {values.dtype}"
        raise TypeError(message)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= stop:
        message = f"[LlamaEngine] expected {what} in 0..{stop - 1} ({meaning}), got {low}..{high}"
        raise ValueError(message)
