"""A historical null: dense complex steering as an earlier system did it, kept for comparison.

The state is averaged over batch and sequence, encoded by a complex random projection to unit norm,
turned by a dense Cayley unitary trained on Born fidelity, decoded by the pseudo-inverse without its
norm, and the one resulting vector is blended into every position. The unit vector is tiny beside a
residual stream and the same for all tokens, so nothing is steered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cogit.operators import LowRank
from cogit.training.cayley_module import DenseCayley

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATIO = 2.604
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 1e-4
_CLIP = 1.0
_BATCH = 10
_SPREAD = 0.01


@dataclass(frozen=True)
class SourceMethod:
    """One trained direction of the earlier system.

    projection: (d_model, q) complex, unit columns. unitary: (q, q) complex.
    fidelity: mean Born fidelity on the training states at the end.
    """

    projection: torch.Tensor
    unitary: torch.Tensor
    fidelity: float

    def operator(self, states: NDArray[np.float32]) -> LowRank:
        """h' = (1 - λ) h + λ v, with v decoded from the mean of the given states.

        states: (row, d_model), every position of every prompt: the average that was broadcast.
        """
        pooled = torch.from_numpy(states.astype(np.float32)).mean(dim=0, keepdim=True)
        turned = _encode(pooled, self.projection) @ self.unitary.T
        inverse = torch.linalg.pinv(self.projection)
        vector = (turned @ inverse).real[0].double().numpy()
        d_model = vector.size
        return LowRank(np.eye(d_model), np.zeros(d_model), -np.eye(d_model), vector)


def train_source_method(
    source: NDArray[np.float32],
    target: NDArray[np.float32],
    *,
    seed: int,
    epochs: int,
) -> SourceMethod:
    """Train U to turn source states into target states, rows paired, by 1 - |<t|Us>|².

    U = (I - iH)⁻¹(I + iH) with a dense Hermitian H, Adam at 1e-3, weight decay 1e-4, norm clipped.
    """
    generator = torch.Generator().manual_seed(seed)
    d_model = source.shape[1]
    q = round(RATIO * d_model)
    projection = torch.randn(d_model, q, generator=generator, dtype=torch.complex64)
    projection = projection / projection.norm(dim=0, keepdim=True)
    states = [_encode(torch.from_numpy(x.astype(np.float32)), projection) for x in (source, target)]
    # The draws of two squares, of which their method uses the upper triangles.
    real, imaginary = (_SPREAD * torch.randn(q, q, generator=generator) for _ in range(2))
    module = DenseCayley(q, spread=0.0)
    module.load_state_dict({"free": real.triu().T + imaginary.triu(1)})
    optimizer = torch.optim.Adam(module.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    for _ in range(epochs):
        order = torch.randperm(len(source), generator=generator)
        for start in range(0, len(source), _BATCH):
            rows = order[start : start + _BATCH]
            loss = 1.0 - _fidelity(module, states[0][rows], states[1][rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(module.parameters(), _CLIP)
            optimizer.step()
    module.eval()
    with torch.no_grad():
        return SourceMethod(projection, module.unitary(), float(_fidelity(module, *states)))


def _encode(states: torch.Tensor, projection: torch.Tensor) -> torch.Tensor:
    encoded = states.to(projection.dtype) @ projection  # (row, q)
    normalised: torch.Tensor = encoded / encoded.norm(dim=-1, keepdim=True)
    return normalised


def _fidelity(module: DenseCayley, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    overlaps: torch.Tensor = (target.conj() * module(source)).sum(dim=-1)
    return overlaps.abs().square().mean()
