"""Steering a transformers model by forward hooks on its blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from cogit import kernels
from cogit.affine import Affine
from cogit.intervention import Intervention

if TYPE_CHECKING:
    from torch import Tensor, nn


class TokenClock:
    """Knows each token's position in its own sequence, and so which rows an intervention meets.

    A pre-hook on the whole model reads the attention mask (padding does not count) and the length
    of the cache. A call that starts at position 0 sets the prompt's length.
    """

    def __init__(self) -> None:
        self.positions: Tensor | None = None  # (batch, position), -1 for padding
        self.forced_prompt: Sequence[int] | None = None  # per row, over what a call implies
        self._prompt: Tensor | None = None  # (batch,)

    def before_forward(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is None:
            ids = kwargs["inputs_embeds"]
        batch, length = ids.shape[:2]
        mask = kwargs.get("attention_mask")
        past = _cache_length(kwargs.get("past_key_values"))
        if mask is not None and mask.ndim == 2:
            counted = mask.long()
            positions = (counted.cumsum(dim=1) - 1).masked_fill(counted == 0, -1)[:, -length:]
            total = counted.sum(dim=1)
        elif mask is None:
            positions = torch.arange(past, past + length, device=ids.device).expand(batch, length)
            total = positions[:, -1] + 1
        else:
            message = (
                f"[steer] expected an attention mask of shape (batch, position), "
                f"got {tuple(mask.shape)}"
            )
            raise ValueError(message)
        self.positions = positions
        if past == 0:
            self._prompt = total

    def after_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forget the call, so that a block run on its own is refused and not steered by guess."""
        self.positions = None

    def active(self, intervention: Intervention) -> Tensor | None:
        """A (batch · position,) mask of the tokens to steer; None where all of them are."""
        if self.positions is None or self._prompt is None:
            message = "[steer] expected a call of the whole model before its blocks run"
            raise ValueError(message)
        window = intervention.positions.window
        lengths = self._prompt.tolist() if self.forced_prompt is None else self.forced_prompt
        windows = [window(int(n)) for n in lengths]
        last = torch.iinfo(torch.long).max
        begin = self.positions.new_tensor([b for b, _ in windows])[:, None]
        end = self.positions.new_tensor([last if e is None else e for _, e in windows])[:, None]
        inside = (self.positions >= begin) & (self.positions < end) & (self.positions >= 0)
        return None if bool(inside.all()) else inside.reshape(-1)


class SteeringHooks:
    """The hooks of one intervention; ``remove`` leaves the model as it was."""

    def __init__(
        self, blocks: nn.ModuleList, clock: TokenClock, intervention: Intervention
    ) -> None:
        self._clock = clock
        self._intervention = intervention
        self._apply = _kernel_for(next(blocks.parameters()).device)
        self._mask: Tensor | None = None
        self._mask_of: Tensor | None = None
        folds = {} if intervention.strength == 0.0 else intervention.folds()
        self._handles = [
            # First, so that whoever else watches a block's output sees the steered one.
            blocks[layer].register_forward_hook(self._hook(affine), prepend=True)
            for layer, affine in folds.items()
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, affine: Affine) -> Callable[..., Any]:
        def steer_output(module: nn.Module, args: Any, output: Any) -> Any:
            hidden = hidden_of(output)
            mask = self._strengths()
            if mask is not None and not bool(mask.any()):
                return None
            rows = hidden.reshape(-1, hidden.shape[-1]).float()  # (batch · position, d_model)
            steered = self._apply(affine, rows, mask)
            return with_hidden(output, steered.to(hidden.dtype).reshape(hidden.shape))

        return steer_output

    def _strengths(self) -> Tensor | None:
        """The mask of this forward call as float32 strengths, computed once for all blocks."""
        if self._mask_of is None or self._mask_of is not self._clock.positions:
            active = self._clock.active(self._intervention)
            self._mask = None if active is None else active.float()
            self._mask_of = self._clock.positions
        return self._mask


def hidden_of(output: Any) -> Tensor:
    """The hidden states among a block's outputs."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """A block's outputs with the hidden states replaced."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def plain_apply(affine: Affine, rows: Tensor, strengths: Tensor | None) -> Tensor:
    """The affine in plain torch, on any device; the compiled kernel is tested against it."""
    down, up, shift, offset = (
        torch.from_numpy(x).to(rows) for x in (affine.A, affine.B, affine.c, affine.a0)
    )
    change = torch.addmm(shift, torch.addmm(offset, rows, down.T), up)
    if strengths is not None:
        change = change * strengths[:, None]
    steered = rows + change
    if not affine.restore:
        return steered
    before, after = (x.norm(dim=-1, keepdim=True) for x in (rows, steered))
    unchanged = (rows == steered).all(dim=-1, keepdim=True) | (after == 0)
    return torch.where(unchanged, steered, steered * (before / after))


def _kernel_for(device: torch.device) -> Callable[[Affine, Tensor, Tensor | None], Tensor]:
    """The compiled kernel on the CPU; plain torch elsewhere, as TransformersBackend.kernel says."""
    return kernels.affine_apply if device.type == "cpu" else plain_apply


def _cache_length(cache: Any) -> int:
    if cache is None:
        return 0
    return int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0
