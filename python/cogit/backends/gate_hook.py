"""A gate on torch: the factor of every token of a forward call, where its block's hook runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from cogit.backends.hooks import TokenClock
    from cogit.gates import Gate


class PlacedGate:
    """One block's gate on a device.

    Scores are float32, row by row without a matrix product, so that whether a token is steered does
    not depend on how many share its batch, nor on TF32. A gate of scope "prompt" decides in the
    call that begins the sequences and holds that for the calls that continue them from the cache;
    rows keep their order between the two, as they do in generation without beams.
    """

    def __init__(self, gate: Gate, clock: TokenClock, device: torch.device) -> None:
        self._gate, self._clock = gate, clock
        self._direction = torch.from_numpy(gate.direction).to(device)
        self._mean = torch.from_numpy(gate.mean).to(device)
        self._length = float(torch.linalg.vector_norm(self._direction.double()))
        self._held: Tensor | None = None  # (batch,) factors that the prompts decided

    def watch(self, hidden: Tensor) -> None:
        """Let a prompt decide even where none of its own tokens is steered.

        hidden: (batch, position, d_model), before the operator.
        """
        if self._gate.scope == "prompt" and self._clock.starts:
            seen = self._clock.prompt_tokens()[..., None]
            rows = _wide(hidden)
            # Padding may hold anything, even NaN: it is left out, not multiplied by 0.
            total = torch.where(seen, rows, 0.0).sum(dim=1)
            self._held = self._factors(total / seen.sum(dim=1))

    def strengths(self, hidden: Tensor, active: Tensor | None) -> Tensor:
        """(batch · position,) float32: the factor of each token, 0 where ``active`` is."""
        batch, length = hidden.shape[:2]
        if self._gate.scope == "token":
            factors = self._factors(_wide(hidden)).reshape(-1)
        else:
            if self._held is None or len(self._held) != batch:
                held = "none" if self._held is None else f"those of {len(self._held)} sequences"
                message = (
                    f"[gate] expected the prompts of these {batch} sequences first, got {held}; "
                    f"begin with a call of the whole prompts"
                )
                raise ValueError(message)
            factors = self._held[:, None].expand(batch, length).reshape(-1)
        factors = factors.float()
        return factors if active is None else torch.where(active > 0, factors, 0.0)

    def _factors(self, states: Tensor) -> Tensor:
        gate, score = self._gate, self.scores(states)
        if gate.width == 0.0:
            return (score >= gate.threshold).to(score.dtype)
        smooth = torch.sigmoid((score - gate.threshold) / gate.width)
        # By the score, so that no rounding of the sigmoid decides whether a gate is closed.
        return torch.where(score < gate.opening_score, 0.0, smooth)

    def scores(self, states: Tensor) -> Tensor:
        """(..., d_model) states to (...,) scores."""
        centred = states - self._mean
        score = (centred * self._direction).sum(dim=-1)
        if self._gate.measure == "cosine":
            norm = torch.linalg.vector_norm(centred, dim=-1) * self._length
            score = torch.where(norm > 0, score / norm, 0.0)
        return score


def _wide(hidden: Tensor) -> Tensor:
    return hidden.to(torch.promote_types(hidden.dtype, torch.float32))
