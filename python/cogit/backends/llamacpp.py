"""The llamacpp backend: quantised GGUF models, steered inside the compute graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from cogit.backends.base import Backend, Probe, TokenIds
from cogit.backends.llama_engine import LlamaEngine
from cogit.errors import InterventionError
from cogit.hook_points import HookPoint
from cogit.identity import ModelIdentity, file_fingerprint
from cogit.intervention import Intervention
from cogit.layers import describe_blocks
from cogit.sampling import Sampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.affine import Affine

_DEFAULT_CONTEXT = 2048


class LlamaCppBackend(Backend):
    """A GGUF model in the patched llama.cpp.

    Every call starts from an empty KV cache, so that no state computed under one intervention is
    ever read under another.
    """

    name: ClassVar[str] = "llamacpp"

    def __init__(
        self,
        path: str | Path,
        *,
        n_ctx: int | None = None,
        n_parallel: int = 1,
        threads: int | None = None,
        kv_type: str = "f16",
        flash_attention: bool = False,
    ) -> None:
        """Load a GGUF file.

        n_ctx: tokens of context for each sequence, by default 2048 or less if the model was
        trained on less. n_parallel: sequences in a batch. kv_type: f16 or f32.
        Raises FileNotFoundError or ValueError for a file that cannot be used.
        """
        super().__init__()
        source = Path(path).expanduser()
        wanted = n_ctx or _DEFAULT_CONTEXT
        self.engine = LlamaEngine(
            source,
            n_ctx=wanted * n_parallel,
            n_seq=n_parallel,
            threads=threads,
            kv_type=kv_type,
            flash_attention=flash_attention,
        )
        self._kv_type = kv_type
        engine = self.engine
        self.context_length = min(wanted, engine.n_ctx_train)
        self.batch_size = n_parallel
        # Residual streams are float32 in the graph, whatever the weights are stored in.
        self.precision = float(np.finfo(np.float32).eps)
        self.eos_ids = frozenset(i for i in range(engine.n_vocab) if engine.is_eog(i))
        self.identity = ModelIdentity(
            name=source.stem,
            architecture=engine.architecture,
            n_layers=engine.n_layer,
            d_model=engine.n_embd,
            vocab_size=engine.n_vocab,
            fingerprint=file_fingerprint([source]),
        )
        self.stages.tell("after model")

    @property
    def numerics(self) -> str:
        return f"{super().numerics}, {self._kv_type} cache"

    def tokenize(self, text: str) -> list[int]:
        return self.engine.tokenize(text)

    def detokenize(self, ids: TokenIds) -> str:
        return self.engine.detokenize(ids)

    def probe(
        self,
        sequences: Sequence[TokenIds],
        layers: Sequence[int],
        *,
        n_prompt: int | None = None,
    ) -> list[Probe]:
        chosen = list(layers)
        if chosen:
            longest = max(map(len, sequences))
            self.engine.capture_begin(chosen, longest, before=True, after=True)
        try:
            return [self._probe_one(ids, chosen, n_prompt) for ids in sequences]
        finally:
            if chosen:
                self.engine.capture_end()

    def _probe_one(self, ids: TokenIds, layers: Sequence[int], n_prompt: int | None) -> Probe:
        if layers:
            self.engine.capture_rewind()
        logits = self._run([ids], [n_prompt or len(ids)])[0]
        sides = [
            np.stack([self._captured(layer, side, len(ids)) for layer in layers])
            if layers
            else np.zeros((0, len(ids), self.identity.d_model), np.float32)
            for side in ("before", "after")
        ]
        return Probe(sides[0], sides[1], logits)

    def _captured(
        self, layer: int, side: Literal["before", "after"], n_tokens: int
    ) -> NDArray[np.float32]:
        rows = self.engine.capture_read(layer, side)
        if len(rows) != n_tokens:
            message = (
                f"[llamacpp] expected the states of {n_tokens} tokens at block {layer}, got "
                f"{len(rows)}: the architecture {self.identity.architecture} does not reach the "
                f"hook there"
            )
            raise InterventionError(message)
        return rows

    def states(
        self,
        sequences: Sequence[TokenIds],
        layers: Sequence[int],
        spans: Sequence[tuple[int, int]],
        *,
        mean: bool,
        hook_point: HookPoint = HookPoint.RESID_POST,
    ) -> list[NDArray[np.float32]]:
        """See Backend. One sequence after the other; logits are made for its span alone.

        The graph is watched at the end of blocks: ``resid_post``, and ``resid_pre`` of blocks from
        1 on, which is ``resid_post`` of the block before. ValueError for any other.
        """
        blocks = _ends_before(layers, hook_point, self.identity.architecture)
        self.engine.capture_begin(blocks, max(map(len, sequences)), before=False, after=True)
        try:
            return [
                self._states_of(ids, blocks, span, mean=mean)
                for ids, span in zip(sequences, spans, strict=True)
            ]
        finally:
            self.engine.capture_end()

    def _states_of(
        self, ids: TokenIds, blocks: Sequence[int], span: tuple[int, int], *, mean: bool
    ) -> NDArray[np.float32]:
        self.engine.capture_rewind()
        # The last block computes those tokens alone whose logits are wanted.
        self._run([ids], [len(ids)], [span[0] <= i < span[1] for i in range(len(ids))])
        rows = np.stack([self.engine.capture_read(layer, "after", span) for layer in blocks])
        return rows.mean(axis=1, keepdims=True) if mean else rows

    def logits(
        self, sequences: Sequence[TokenIds], *, n_prompt: Sequence[int] | None = None
    ) -> list[NDArray[np.float32]]:
        lengths = n_prompt or [len(ids) for ids in sequences]
        rows: list[NDArray[np.float32]] = []
        for start in range(0, len(sequences), self.batch_size):
            stop = start + self.batch_size
            rows += self._run(sequences[start:stop], lengths[start:stop])
        return rows

    def close(self) -> None:
        self.engine.close()

    def _attach(self, intervention: Intervention | None) -> None:
        engine = self.engine
        if intervention is None:
            engine.detach()
            return
        if intervention.gates:
            message = (
                f"[llamacpp] expected an intervention without gates, got one gated at "
                f"{describe_blocks(intervention.gates)}: this backend steers every token of its "
                f"positions; use --backend transformers, or take the gates off (ungated())"
            )
            raise InterventionError(message)
        folds = intervention.folds()
        _require_ranks(intervention, folds)
        previous = self._intervention.layers if self._intervention else ()
        for layer in set(previous) - set(intervention.layers):
            engine.clear_ops(layer)
        for layer, affine in folds.items():
            engine.set_op(layer, affine)

    def _open_windows(self, lengths: Sequence[int]) -> None:
        """Tell each sequence where its intervention acts; an empty cache goes with it."""
        engine = self.engine
        engine.clear()
        engine.reset_strengths()
        if self._steering() is None:
            return
        for sequence, n_prompt in enumerate(lengths):
            begin, end = self._steering_window(n_prompt)
            engine.set_strength(1.0, seq=sequence, begin=begin, end=end)

    def _steering(self) -> Intervention | None:
        now = self._intervention
        return None if now is None or now.strength == 0.0 else now

    def _steering_window(self, n_prompt: int) -> tuple[int, int | None]:
        now = self._steering()
        return (0, 0) if now is None else now.positions.window(n_prompt)

    def _run(
        self,
        sequences: Sequence[TokenIds],
        lengths: Sequence[int],
        wanted: Sequence[bool] | None = None,
    ) -> list[NDArray[np.float32]]:
        """Logits of whole sequences in one batch; of a single one, those that are wanted."""
        for ids in sequences:
            if not 1 <= len(ids) <= self.context_length:
                message = (
                    f"[forward] expected 1..{self.context_length} tokens (the context), "
                    f"got {len(ids)}"
                )
                raise ValueError(message)
        self._open_windows(lengths)
        tokens = [token for ids in sequences for token in ids]
        positions = [position for ids in sequences for position in range(len(ids))]
        owners = [row for row, ids in enumerate(sequences) for _ in ids]
        rows = self.engine.decode(tokens, positions, owners, wanted or [True] * len(tokens))
        self._require_placed()
        if wanted is not None:
            return [rows]
        ends = np.cumsum([len(ids) for ids in sequences])
        return [np.asarray(part) for part in np.split(rows, ends[:-1])]

    def _generate(
        self, prompts: Sequence[TokenIds], rows: Sequence[int], sampler: Sampler
    ) -> list[list[int]]:
        self._open_windows([len(ids) for ids in prompts])
        engine, options = self.engine, sampler.options
        tokens = [token for ids in prompts for token in ids]
        positions = [position for ids in prompts for position in range(len(ids))]
        owners = [row for row, ids in enumerate(prompts) for _ in ids]
        last = [
            position == len(prompts[row]) - 1
            for row, position in zip(owners, positions, strict=True)
        ]
        logits = engine.decode(tokens, positions, owners, last)
        self.stages.tell("during generation")
        self._require_placed()
        outputs: list[list[int]] = [[] for _ in prompts]
        running = list(range(len(prompts)))
        while True:
            chosen = sampler.choose(logits, [rows[i] for i in running])
            for i, token in zip(running, chosen, strict=True):
                outputs[i].append(token)
            running = [
                i
                for i in running
                if len(outputs[i]) < options.max_tokens
                and not (options.stop_at_eos and outputs[i][-1] in self.eos_ids)
            ]
            if not running:
                return outputs
            logits = engine.decode(
                [outputs[i][-1] for i in running],
                [len(prompts[i]) + len(outputs[i]) - 1 for i in running],
                running,
                [True] * len(running),
            )

    def _require_placed(self) -> None:
        """Every block that was asked for must have an operator in the graph."""
        now = self._intervention
        if now is None:
            return
        missing = sorted(set(now.layers) - set(self.engine.stats().placed_layers))
        if missing:
            message = (
                f"[llamacpp] expected the intervention at {describe_blocks(now.layers)}, got none "
                f"at {describe_blocks(missing)}: the architecture {self.identity.architecture} "
                f"does not reach the hook there"
            )
            raise InterventionError(message)


def _require_ranks(intervention: Intervention, folds: Mapping[int, Affine]) -> None:
    """InterventionError for ranks above the width, which the graph does not take."""
    for layer, fold in folds.items():
        if fold.rank > intervention.identity.d_model:
            message = (
                f"[llamacpp] expected operators of rank {intervention.identity.d_model} at most, "
                f"the width, got {intervention.operators[layer].kind} of rank {fold.rank} at "
                f"block {layer}; use --backend transformers, or an operator of lower rank"
            )
            raise InterventionError(message)


def _ends_before(layers: Sequence[int], point: HookPoint, architecture: str) -> list[int]:
    """The blocks at whose ends a hook point of the given blocks is seen; else ValueError."""
    if point is HookPoint.RESID_POST:
        return list(layers)
    if point is HookPoint.RESID_PRE and all(layer > 0 for layer in layers):
        return [layer - 1 for layer in layers]
    what = "resid_pre of block 0" if point is HookPoint.RESID_PRE else str(point)
    message = (
        f"[hook point] expected resid_post, or resid_pre of blocks from 1 on, in llamacpp "
        f"({architecture}), got {what}; use --backend transformers"
    )
    raise ValueError(message)
