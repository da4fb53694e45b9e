"""A thin, typed owner of one llama.cpp model and context, with cogit's operators and captures.

It knows tokens, positions, sequences and float32 arrays; prompts, interventions and sampling belong
to the llamacpp backend. One thread at a time, as llama.cpp asks for a context.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from cogit.backends.llama_batch import LlamaBatch, require_range
from cogit.backends.llama_hooks import LlamaHooks, Stats
from cogit.backends.llama_library import LlamaLibrary, load_library
from cogit.backends.llama_model import describe, load_model, quantize_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LlamaEngine", "Stats"]

_KV_TYPES = {"f32": 0, "f16": 1}  # ggml_type


class LlamaEngine(LlamaHooks):
    """A loaded GGUF model. Use as a context manager, or call close()."""

    def __init__(
        self,
        path: str | Path,
        *,
        n_ctx: int = 2048,
        n_batch: int = 512,
        n_ubatch: int | None = None,
        n_seq: int = 1,
        threads: int | None = None,
        flash_attention: bool = False,
        kv_type: str = "f16",
        unified_kv: bool = False,
        use_mmap: bool = True,
    ) -> None:
        """Load a model and make a context.

        n_ctx: tokens of KV cache, shared evenly by the n_seq sequences unless unified_kv. n_batch,
        n_ubatch: tokens per llama_decode and per graph. threads: default all cores of this process.
        Raises FileNotFoundError, ValueError or BackendMissingError, each with one line.
        """
        if kv_type not in _KV_TYPES:
            message = f"[LlamaEngine] expected kv_type f16 or f32, got {kv_type!r}"
            raise ValueError(message)
        for name, value in (("n_ctx", n_ctx), ("n_batch", n_batch), ("n_seq", n_seq)):
            if value < 1:
                message = f"[LlamaEngine] expected {name} of at least 1, got {value}"
                raise ValueError(message)
        super().__init__()
        self._library = load_library()
        self._api: Any = self._library.api
        model = load_model(self._library, Path(path), use_mmap=use_mmap)
        n_threads = threads or len(os.sched_getaffinity(0))
        parameters = self._api.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_seq_max = n_ctx, n_batch, n_seq
        parameters.n_ubatch = min(n_ubatch or n_batch, n_batch)
        parameters.n_threads = parameters.n_threads_batch = n_threads
        parameters.flash_attn_type = 1 if flash_attention else 0
        parameters.type_k = parameters.type_v = _KV_TYPES[kv_type]
        parameters.kv_unified = unified_kv
        context = self._api.llama_init_from_model(model, parameters)
        if not context:
            self._api.llama_model_free(model)
            message = f"[LlamaEngine] no context for {path}: {self._library.take_log_error()}"
            raise ValueError(message)
        pool = None
        if n_threads > 1:
            pool = self._library.cogit.cogit_threads_attach(context, n_threads)
        self._context = context
        self._finalizer = weakref.finalize(self, _release, self._library, context, pool, model)

        self._memory = self._api.llama_get_memory(context)
        self._vocab = self._api.llama_model_get_vocab(model)
        self.n_layer: int = self._api.llama_model_n_layer(model)
        self.n_embd: int = self._api.llama_model_n_embd(model)
        self.n_vocab: int = self._api.llama_vocab_n_tokens(self._vocab)
        self.n_ctx: int = self._api.llama_n_ctx(context)
        self.n_ctx_seq: int = self._api.llama_n_ctx_seq(context)
        self.n_ctx_train: int = self._api.llama_model_n_ctx_train(model)
        self.n_seq = n_seq
        self.n_batch: int = n_batch
        self.bos_id: int = self._api.llama_vocab_bos(self._vocab)
        self.eos_id: int = self._api.llama_vocab_eos(self._vocab)
        self.metadata, self.description = describe(self._library, model)
        self.architecture: str = self.metadata["general.architecture"]
        self._batch = LlamaBatch(self._api, n_batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free context and model. May be called twice."""
        self._finalizer()

    # ---- tokens ----

    def tokenize(
        self, text: str, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """Token ids of a text. ValueError if the model has no vocabulary."""
        self._require_vocabulary()
        data = text.encode()
        size = len(data) + 8
        while True:
            ids = (ctypes.c_int32 * size)()
            n = self._api.llama_tokenize(
                self._vocab, data, len(data), ids, size, add_special, parse_special
            )
            if n >= 0:
                return list(ids[:n])
            size = -n

    def detokenize(self, ids: Sequence[int], special: bool = False) -> str:
        """Text of token ids; special tokens are left out unless asked for."""
        self._require_vocabulary()
        self._require_tokens(np.asarray(ids, np.int64))
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        size = 16 * len(ids) + 16
        while True:
            text = ctypes.create_string_buffer(size)
            n = self._api.llama_detokenize(
                self._vocab, tokens, len(ids), text, size, False, special
            )
            if n >= 0:
                return text.raw[:n].decode(errors="replace")
            size = -n

    def is_eog(self, token: int) -> bool:
        """Does this token end a generation?"""
        self._live()
        return bool(self._api.llama_vocab_is_eog(self._vocab, token))

    # ---- the KV cache ----

    def clear(self, seq: int | None = None) -> None:
        """Forget one sequence, or all."""
        if seq is None:
            self._live()
            self._api.llama_memory_clear(self._memory, True)
        else:
            self.remove(seq)

    def copy_sequence(self, src: int, dst: int) -> None:
        """Let dst share what src has seen. Stale if the steering changes afterwards."""
        self._require_sequences(np.asarray([src, dst]))
        self._live()
        self._api.llama_memory_seq_cp(self._memory, src, dst, -1, -1)

    def remove(self, seq: int, p0: int = 0, p1: int | None = None) -> None:
        """Forget positions [p0, p1) of one sequence."""
        self._require_sequences(np.asarray([seq]))
        stop = -1 if p1 is None else p1
        self._live()
        if not self._api.llama_memory_seq_rm(self._memory, seq, p0, stop):
            message = f"[remove] {self.architecture} cannot forget part of a sequence; clear it"
            raise ValueError(message)

    # ---- forward ----

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        want_logits: Sequence[bool],
    ) -> NDArray[np.float32]:
        """Run tokens through the model, in chunks of n_batch.

        All four have one entry per token; a sequence's positions must continue where it stands.
        Returns (n_wanted, n_vocab) float32 logits, in the order of the tokens.
        Raises ValueError for tokens, positions or sequences out of range or a full cache, and
        InterventionError if an operator set before cannot be placed in this architecture.
        """
        rows = [np.asarray(x) for x in (tokens, positions, sequences, want_logits)]
        n_tokens = len(rows[0])
        if n_tokens == 0 or any(row.shape != (n_tokens,) for row in rows):
            shapes = ", ".join(str(row.shape) for row in rows)
            message = f"[decode] expected four sequences of one length, at least 1, got {shapes}"
            raise ValueError(message)
        self._require_tokens(rows[0])
        self._require_positions(rows[1])
        self._require_sequences(rows[2])
        self.prepare()
        wanted = rows[3].astype(bool)
        logits = np.empty((int(wanted.sum()), self.n_vocab), np.float32)
        done = 0
        for start in range(0, n_tokens, self.n_batch):
            part = slice(start, start + self.n_batch)
            batch = self._batch.fill(rows[0][part], rows[1][part], rows[2][part], wanted[part])
            self._decode_batch(batch)
            n_outputs = int(wanted[part].sum())
            if n_outputs:
                source = self._api.llama_get_logits(self._context)
                block = np.ctypeslib.as_array(source, (n_outputs, self.n_vocab))
                logits[done : done + n_outputs] = block
                done += n_outputs
        return logits

    @staticmethod
    def quantize(
        src: str | Path, dst: str | Path, kind: str, *, half_embedding: bool = False
    ) -> None:
        """Write a copy of a GGUF file as f16, q8_0 or q4_k_m.

        half_embedding keeps the token embedding, and an output matrix tied to it, in float16.
        """
        quantize_file(load_library(), Path(src), Path(dst), kind, half_embedding=half_embedding)

    # ---- checks ----

    def _require_vocabulary(self) -> None:
        self._live()  # the vocabulary is the model's
        if self._api.llama_vocab_type(self._vocab) == 0:  # llama.cpp would abort the process
            message = f"[LlamaEngine] {self.description} has no vocabulary; pass token ids instead"
            raise ValueError(message)

    def _require_tokens(self, tokens: NDArray[Any]) -> None:
        require_range("tokens", tokens, self.n_vocab, "the vocabulary")

    def _require_positions(self, positions: NDArray[Any]) -> None:
        require_range("positions", positions, self.n_ctx_seq, "the context of a sequence")

    def _require_sequences(self, sequences: NDArray[Any]) -> None:
        require_range("sequences", sequences, self.n_seq, "n_seq")

    def _decode_batch(self, batch: Any) -> None:
        code = self._api.llama_decode(self._context, batch)
        if code == 1:
            message = (
                f"[decode] the KV cache of {self.n_ctx} tokens is full; "
                "clear sequences or use a larger n_ctx"
            )
            raise ValueError(message)
        if code != 0:
            detail = self._library.take_log_error() or f"code {code}"
            message = f"[decode] llama.cpp refused the batch: {detail}"
            raise ValueError(message)


def _release(library: LlamaLibrary, context: Any, pool: int | None, model: Any) -> None:
    library.api.llama_free(context)
    if pool is not None:
        library.cogit.cogit_threads_free(pool)
    library.api.llama_model_free(model)
