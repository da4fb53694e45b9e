"""What every backend offers: tokens, states, logits, generation, and steering with proof."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from cogit.errors import InterventionError
from cogit.hook_points import HookPoint
from cogit.identity import ModelIdentity
from cogit.intervention import Intervention
from cogit.memory_log import StageLog
from cogit.progress import track
from cogit.sampling import FinishReason, Sample, Sampler, SamplingOptions

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from cogit.verify import Verification

TokenIds = Sequence[int]


@dataclass(frozen=True)
class Probe:
    """One sequence's states at the end of some blocks, seen on both sides of the steering.

    before, after: (layer, position, d_model) float32. logits: (position, vocabulary) float32.
    """

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    logits: NDArray[np.float32]


class Backend(ABC):
    """A loaded model. Not thread-safe: one caller at a time."""

    name: ClassVar[str]
    identity: ModelIdentity
    context_length: int
    eos_ids: frozenset[int]
    batch_size: int
    precision: float
    """Relative rounding of a state in this backend's residual stream, such as 2^-24 for float32."""

    def __init__(self) -> None:
        self._intervention: Intervention | None = None
        self.stages = StageLog("cpu")

    @abstractmethod
    def tokenize(self, text: str) -> list[int]:
        """Token ids, with the model's own special tokens in front."""

    @abstractmethod
    def detokenize(self, ids: TokenIds) -> str:
        """Text of token ids, without special tokens."""

    @abstractmethod
    def probe(
        self,
        sequences: Sequence[TokenIds],
        layers: Sequence[int],
        *,
        n_prompt: int | None = None,
    ) -> list[Probe]:
        """Forward passes with the states at the given blocks; a fresh cache for each sequence.

        n_prompt: how many leading tokens count as the prompt; all of them by default.
        """

    @abstractmethod
    def logits(
        self, sequences: Sequence[TokenIds], *, n_prompt: Sequence[int] | None = None
    ) -> list[NDArray[np.float32]]:
        """(position, vocabulary) logits of each sequence, as steered now.

        n_prompt: for each sequence, how many leading tokens count as the prompt; all by default.
        """

    @abstractmethod
    def _attach(self, intervention: Intervention | None) -> None:
        """Place an intervention, or take the present one away."""

    @abstractmethod
    def _generate(
        self, prompts: Sequence[TokenIds], rows: Sequence[int], sampler: Sampler
    ) -> list[list[int]]:
        """Continuations of one batch. A row ends with an end-of-text token, or at the limit."""

    @abstractmethod
    def close(self) -> None:
        """Free the model. Safe to call twice."""

    @property
    def intervention(self) -> Intervention | None:
        """What is steering now."""
        return self._intervention

    @property
    def numerics(self) -> str:
        """Which arithmetic makes the states: other arithmetic, other roundings."""
        return f"{self.name}, rounding {self.precision:.3g}"

    def residuals(
        self, sequences: Sequence[TokenIds], layers: Sequence[int]
    ) -> list[NDArray[np.float32]]:
        """(layer, position, d_model) states at the end of the given blocks, as steered now."""
        return [probe.after for probe in self.probe(sequences, layers)]

    def states(
        self,
        sequences: Sequence[TokenIds],
        layers: Sequence[int],
        spans: Sequence[tuple[int, int]],
        *,
        mean: bool,
        hook_point: HookPoint = HookPoint.RESID_POST,
    ) -> list[NDArray[np.float32]]:
        """States at a hook point of the given blocks, of some tokens alone, as steered now.

        spans: for each sequence a half-open range of its tokens, not empty. Returns for each
        (layer, token, d_model) float32, or (layer, 1, d_model) with the ``mean`` over its span.
        The sequences make one batch. ValueError for a hook point that the model does not have.
        """
        if hook_point is not HookPoint.RESID_POST:
            message = f"[hook point] expected resid_post in {self.name}, got {hook_point}"
            raise ValueError(message)
        found = self.residuals(sequences, layers)
        rows = [states[:, slice(*span)] for states, span in zip(found, spans, strict=True)]
        return [row.mean(axis=1, keepdims=True) for row in rows] if mean else rows

    @contextmanager
    def steer(
        self, intervention: Intervention, *, verify: bool = True, control: bool = False
    ) -> Iterator[Verification | None]:
        """Steer within a ``with`` block and take the intervention away afterwards.

        ``control`` says that the operators are meant to change nothing; without it, only strength
        0 may do so.

        ``verify`` first runs a probe that compares the change that lands with the analytic one at
        every block and position, and zero elsewhere. Raises InterventionError when the model has
        another shape, when a change does not land as asked, when it changes nothing, or when a gate
        can never open.
        """
        from cogit.verify import verify_application

        if self._intervention is not None:
            message = (
                f"[steer] expected an unsteered backend, got one under "
                f"{self._intervention.describe()}; leave its `with` block first"
            )
            raise ValueError(message)
        intervention.identity.require_same_shape(self.identity)
        if not control and intervention.strength != 0.0:
            _require_openable(intervention)
        if not control and intervention.strength != 0.0 and intervention.changes_nothing():
            message = (
                f"[steer] expected operators that change something, got zeros in "
                f"{intervention.describe()}; use strength 0 or control=True for a control"
            )
            raise InterventionError(message)
        try:
            self.dial(intervention)
            yield verify_application(self, intervention) if verify else None
        finally:
            self._attach(None)
            self._intervention = None

    def dial(self, intervention: Intervention) -> None:
        """Swap the intervention of a running ``steer`` block, as for another strength."""
        intervention.identity.require_same_shape(self.identity)
        self._attach(intervention)
        self._intervention = intervention
        self.stages.tell("after operators")

    def generate(
        self,
        prompts: Sequence[str],
        options: SamplingOptions | None = None,
        *,
        show_progress: bool = False,
    ) -> list[Sample]:
        """Continue each prompt. Row i draws its noise from (seed, i), whatever the batch size.

        Raises ValueError before any work when a prompt is empty or does not fit the context.
        """
        chosen = options or SamplingOptions()
        ids = self.require_fit(prompts, chosen.max_tokens)
        sampler = Sampler(chosen, range(len(prompts)))
        return self._continued(prompts, ids, sampler, show_progress=show_progress)

    def replicate(
        self, prompts: Sequence[str], options: SamplingOptions, seeds: Sequence[int]
    ) -> list[list[Sample]]:
        """Continuations (seed, prompt) under several seeds, in common batches.

        The noise is that of ``generate`` under each seed; the batches are others, which may round
        the logits otherwise. ValueError as there, and without seeds.
        """
        if not seeds:
            message = "[generate] expected at least one seed, got none"
            raise ValueError(message)
        n = len(prompts)
        ids = self.require_fit(prompts, options.max_tokens) * len(seeds)
        sampler = Sampler(options, range(len(ids)), seeds)
        found = self._continued(list(prompts) * len(seeds), ids, sampler)
        return [found[start : start + n] for start in range(0, len(found), n)] if n else []

    def _continued(
        self,
        prompts: Sequence[str],
        ids: Sequence[TokenIds],
        sampler: Sampler,
        *,
        show_progress: bool = False,
    ) -> list[Sample]:
        order = sorted(range(len(prompts)), key=lambda row: len(ids[row]))
        starts = range(0, len(order), self.batch_size)
        generated: dict[int, list[int]] = {}
        for start in track(starts, "generating", show=show_progress):
            rows = order[start : start + self.batch_size]
            outputs = self._generate([ids[row] for row in rows], rows, sampler)
            generated.update(zip(rows, outputs, strict=True))
        return [
            self._sample(prompt, ids[row], generated[row], sampler.options)
            for row, prompt in enumerate(prompts)
        ]

    def _sample(
        self, prompt: str, prompt_ids: TokenIds, ids: Sequence[int], options: SamplingOptions
    ) -> Sample:
        ended = options.stop_at_eos and bool(ids) and ids[-1] in self.eos_ids
        kept = ids[:-1] if ended else ids
        reason: FinishReason = "stop" if ended else "length"
        return Sample(prompt, tuple(prompt_ids), tuple(kept), self.detokenize(kept), reason)

    def require_fit(self, prompts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Token ids of the prompts; ValueError if one is empty or exceeds the context."""
        tokenized = [self.tokenize(prompt) for prompt in prompts]
        for prompt, ids in zip(prompts, tokenized, strict=True):
            if not ids:
                message = f"[generate] expected a prompt of at least one token, got {prompt!r}"
                raise ValueError(message)
            if len(ids) + max_tokens > self.context_length:
                message = (
                    f"[generate] expected prompt and continuation within the context of "
                    f"{self.context_length} tokens, got {len(ids)} + {max_tokens}; shorten the "
                    f"prompt or lower max_tokens"
                )
                raise ValueError(message)
        return tokenized

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _require_openable(intervention: Intervention) -> None:
    for layer in intervention.never_opening():
        message = (
            f"[steer] expected gates that some state can open, got a "
            f"{intervention.gates[layer].describe()} at block {layer}, which none "
            f"can; fit it again, or use control=True for a control"
        )
        raise InterventionError(message)
