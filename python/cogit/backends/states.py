"""Reading hook points of one padded batch of a transformers model, without its head."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from cogit.backends.base import TokenIds
    from cogit.backends.hooks import TokenClock
    from cogit.backends.taps import Tap

PaddingSide = Literal["left", "right"]
Span = tuple[int, int]


def pad(sequences: Sequence[TokenIds], side: PaddingSide) -> tuple[Tensor, Tensor]:
    """(batch, position) token ids and attention mask; padding is token 0 and masked."""
    width = max(map(len, sequences))
    ids = torch.zeros((len(sequences), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(sequences):
        start = width - len(tokens) if side == "left" else 0
        ids[row, start : start + len(tokens)] = torch.tensor(list(tokens))
        mask[row, start : start + len(tokens)] = 1
    return ids, mask


def forward_base(model: Any, clock: TokenClock, ids: Tensor, mask: Tensor) -> None:
    """Run the model below its language-model head, so that no logits are ever made.

    Positions count from each text's first token, wherever the padding is: rotary and learned
    positions take them as ids, and models that take none (ALiBi) read them off the mask.
    """
    base = model.base_model
    inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    if "position_ids" in inspect.signature(base.forward).parameters:
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    # The clock's hooks sit on the whole model, whose call this replaces.
    clock.before_forward(model, (), inputs)
    try:
        base(**inputs, use_cache=False)
    finally:
        clock.after_forward(model, None, None)


def read_states(
    forward: Callable[[Tensor, Tensor], None],
    taps: Sequence[Tap],
    sequences: Sequence[TokenIds],
    spans: Sequence[Span],
    *,
    width: int,
    mean: bool,
    side: PaddingSide,
) -> list[NDArray[np.float32]]:
    """One batch; for each sequence (layer, row, d_model) float32: the span's tokens or their mean.

    Rows are taken inside the hooks: of a block's states nothing else is kept.
    """
    ids, mask = pad(sequences, side)
    picker = _Picker(ids.shape, sequences, spans, mean=mean, side=side)
    # Made beforehand: small tensors kept from block to block would split the free memory between
    # the large ones of the forward pass, and the heap would grow with the number of blocks.
    rows = torch.empty((len(taps), sum(picker.counts), width), dtype=torch.float32)
    reached: set[int] = set()

    def keep(index: int) -> Callable[[Tensor], None]:
        def take(hidden: Tensor) -> None:
            rows[index] = picker.pick(hidden)
            reached.add(index)

        return take

    handles = []
    try:
        for index, tap in enumerate(taps):
            handles.append(tap.watch(keep(index)))
        forward(ids, mask)
    finally:
        for handle in handles:
            handle.remove()
    if len(reached) != len(taps):
        message = f"[record] expected the model to reach {len(taps)} blocks, got {len(reached)}"
        raise ValueError(message)
    ends = np.cumsum(picker.counts)
    return np.split(rows.numpy(), ends[:-1], axis=1)


class _Picker:
    """Takes the tokens of all spans out of a padded batch of states, in float32."""

    def __init__(
        self,
        shape: Sequence[int],
        sequences: Sequence[TokenIds],
        spans: Sequence[Span],
        *,
        mean: bool,
        side: PaddingSide,
    ) -> None:
        sizes = [end - begin for begin, end in spans]
        self.counts = [1] * len(spans) if mean else sizes
        self._shape, self._mean = tuple(shape), mean
        # Rows are padded to the longest span by repeating its last token, which then counts for 0.
        steps = torch.arange(max(sizes))[None, :]
        lengths = torch.tensor(sizes)[:, None]
        starts = torch.tensor(
            [
                begin + (shape[1] - len(ids) if side == "left" else 0)
                for ids, (begin, _) in zip(sequences, spans, strict=True)
            ]
        )[:, None]
        self._columns = starts + torch.minimum(steps, lengths - 1)
        self._rows = torch.arange(len(spans))[:, None]
        self._valid = steps < lengths
        self._weights = self._valid / lengths

    def pick(self, hidden: Tensor) -> Tensor:
        """(row, d_model) float32, from (batch, position, d_model) or its flat form."""
        shaped = hidden.detach().reshape(*self._shape, -1)
        device = shaped.device
        picked = shaped[self._rows.to(device), self._columns.to(device)].float()
        if self._mean:
            return (picked * self._weights.to(device)[..., None]).sum(dim=1)
        return picked[self._valid.to(device)]
