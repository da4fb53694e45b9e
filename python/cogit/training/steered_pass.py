"""Forward passes under an operator that is being trained: differentiable in its signal map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from cogit.backends.blocks import find_blocks
from cogit.backends.hooks import hidden_of, uses_kernel, with_hidden
from cogit.kernels import library, plain

if TYPE_CHECKING:
    from torch import Tensor

    from cogit.backends.transformers import TransformersBackend
    from cogit.operators import Unitary

    SignalMap = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PassResult:
    """Logits of a right-padded batch.

    logits: (row, position, vocabulary) in the model's dtype. ids, real: (row, position), real False
    for padding. predicted: (row, position - 1), True where the next token is real.
    """

    logits: Tensor
    ids: Tensor
    real: Tensor

    @property
    def predicted(self) -> Tensor:
        return self.real[:, 1:]

    def log_chances(self, first: int) -> Tensor:
        """Float32 log-softmax of the rows from ``first`` on: a copy as large as they are."""
        return self.logits[first:].float().log_softmax(dim=-1)

    def divergence_from(self, other: PassResult, *, first: int) -> Tensor:
        """Mean KL(other ‖ this) per real token of the rows from ``first`` on, in nats."""
        theirs, ours = other.log_chances(first), self.log_chances(first)
        # A token that the other run rules out (-inf) adds nothing.
        terms = torch.where(theirs > -torch.inf, theirs.exp() * (theirs - ours), 0.0)
        return terms.sum(dim=-1)[self.real[first:]].mean()


class SteeredPass:
    """Runs token rows through a model with a given signal map at some blocks' ends.

    The affine is applied as at inference: by the compiled kernel where it serves the model's device
    and dtype, else in plain torch; the first token is left alone.
    """

    def __init__(self, backend: TransformersBackend, operators: Mapping[int, Unitary]) -> None:
        self._backend = backend
        self._blocks = find_blocks(backend.model, backend.identity.n_layers)
        some = next(self._blocks.parameters())
        self._device, self._compiled = some.device, uses_kernel(some.device, some.dtype)
        self._placed = {
            layer: (
                torch.from_numpy(operator.basis.copy()).to(self._device),
                torch.from_numpy(operator.mean.copy()).to(self._device),
                operator.restore,
            )
            for layer, operator in operators.items()
        }

    def tokenize(self, text: str) -> list[int]:
        """Token ids; ValueError for a text of one token or beyond the context."""
        ids = self._backend.tokenize(text)
        if not 2 <= len(ids) <= self._backend.context_length:
            message = (
                f"[refine] expected texts of 2 to {self._backend.context_length} tokens, got "
                f"{len(ids)} in {text[:60]!r}"
            )
            raise ValueError(message)
        return ids

    def run(
        self, rows: Sequence[Sequence[int]], maps: Mapping[int, SignalMap] | None
    ) -> PassResult:
        """One forward pass of all rows; maps None is the plain model."""
        width = max(map(len, rows))
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        real = torch.zeros((len(rows), width), dtype=torch.bool)
        for number, tokens in enumerate(rows):
            ids[number, : len(tokens)] = torch.tensor(tokens)
            real[number, : len(tokens)] = True
        ids, real = ids.to(self._device), real.to(self._device)
        steered = real.clone()
        steered[:, 0] = False
        with self._placed_hooks(maps or {}, steered.reshape(-1).float()):
            output = self._backend.model(input_ids=ids, attention_mask=real.long(), use_cache=False)
        return PassResult(output.logits, ids, real)

    @contextmanager
    def _placed_hooks(self, maps: Mapping[int, SignalMap], strengths: Tensor) -> Iterator[None]:
        handles = [
            self._blocks[layer].register_forward_hook(
                self._hook(layer, signal_map, strengths), prepend=True
            )
            for layer, signal_map in maps.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, layer: int, signal_map: SignalMap, strengths: Tensor) -> Any:
        basis, mean, restore = self._placed[layer]
        linear, shift = (part.to(self._device) for part in signal_map)
        # h' = h + Q((A - I) x + τ) with x = Qᵀ(h - μ), as the affine (h Aᵀ + a0) B + c.
        change = linear - torch.eye(len(linear), dtype=linear.dtype, device=self._device)
        weights = (basis.T, -(mean @ basis), change.T @ basis.T, basis @ shift)
        down, bias, up, constant = (part.float().contiguous() for part in weights)
        apply = library.affine_apply if self._compiled else plain.affine_apply

        def steer_output(module: Any, args: Any, output: Any) -> Any:
            hidden = hidden_of(output).contiguous()
            return with_hidden(output, apply(hidden, down, bias, up, constant, restore, strengths))

        return steer_output


def token_log_likelihoods(result: PassResult, n_rows: int) -> Tensor:
    """(row, position - 1) log-likelihood of every token but the first, 0 at padding."""
    logits = result.logits[:n_rows, :-1].float()
    chosen = logits.gather(-1, result.ids[:n_rows, 1:, None])[..., 0]
    return torch.where(result.predicted[:n_rows], chosen - logits.logsumexp(dim=-1), 0.0)
