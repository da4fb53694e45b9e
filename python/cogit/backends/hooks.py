"""Steering a transformers model by forward hooks on its blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from cogit import kernels
from cogit.affine import Affine
from cogit.backends.gate_hook import PlacedGate
from cogit.devices import plan_placement
from cogit.errors import MemoryRefusedError
from cogit.intervention import Intervention
from cogit.kernels import plain
from cogit.memory_operators import OperatorNeed, fold_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn

    Apply = Callable[[Tensor, Tensor | None], Tensor]


class TokenClock:
    """Knows each token's position in its own sequence, and so which rows an intervention meets.

    A pre-hook on the whole model reads the attention mask (padding does not count) and the length
    of the cache. A call that starts at position 0 sets the prompt's length.
    """

    def __init__(self) -> None:
        self.positions: Tensor | None = None  # (batch, position), -1 for padding
        self.forced_prompt: Sequence[int] | None = None  # per row, over what a call implies
        self.starts = False  # whether the present call begins its sequences
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
        self.starts = past == 0
        if self.starts:
            self._prompt = total

    def after_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forget the call, so that a block run on its own is refused and not steered by guess."""
        self.positions = None

    def active(self, intervention: Intervention) -> Tensor | None:
        """A (batch · position,) mask of the tokens to steer; None where all of them are."""
        positions, lengths = self._now()
        windows = [intervention.positions.window(n) for n in lengths]
        last = torch.iinfo(torch.long).max
        begin = positions.new_tensor([b for b, _ in windows])[:, None]
        end = positions.new_tensor([last if e is None else e for _, e in windows])[:, None]
        inside = (positions >= begin) & (positions < end) & (positions >= 0)
        return None if bool(inside.all()) else inside.reshape(-1)

    def prompt_tokens(self) -> Tensor:
        """A (batch, position) mask of the prompt, without its first token where there are more."""
        positions, lengths = self._now()
        end = positions.new_tensor([max(1, n) for n in lengths])[:, None]
        # Padding is at -1. What is not there yet cannot make up for a first token left out.
        begin = torch.where(torch.minimum(end, positions.amax(dim=1, keepdim=True) + 1) > 1, 1, 0)
        return (positions >= begin) & (positions < end)

    def _now(self) -> tuple[Tensor, list[int]]:
        """The present call's positions and each row's prompt length."""
        if self.positions is None or self._prompt is None:
            message = "[steer] expected a call of the whole model before its blocks run"
            raise ValueError(message)
        lengths = self._prompt.tolist() if self.forced_prompt is None else self.forced_prompt
        return self.positions, [int(n) for n in lengths]


class SteeringHooks:
    """The hooks of one intervention; ``remove`` leaves the model as it was."""

    def __init__(
        self, blocks: nn.ModuleList, clock: TokenClock, intervention: Intervention
    ) -> None:
        self._clock = clock
        self._intervention = intervention
        self._steered: Tensor | bool = False
        self._steered_at: Tensor | None = None
        folds = {} if intervention.strength == 0.0 else intervention.folds()
        # Where each block computes, so that no state ever leaves its device to be steered.
        homes = {layer: next(blocks[layer].parameters()) for layer in intervention.layers}
        require_room(folds, {layer: home.device for layer, home in homes.items()})
        gates = {
            layer: PlacedGate(gate, clock, homes[layer].device)
            for layer, gate in intervention.gates.items()
        }
        self._handles = [
            # First, so that whoever else watches a block's output sees the steered one.
            blocks[layer].register_forward_hook(
                self._hook(
                    applier(affine, homes[layer].device, homes[layer].dtype), gates.get(layer)
                ),
                prepend=True,
            )
            for layer, affine in folds.items()
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, apply: Apply, gate: PlacedGate | None) -> Callable[..., Any]:
        def steer_output(module: nn.Module, args: Any, output: Any) -> Any:
            steered = self._steered_now()
            hidden = hidden_of(output)
            if gate is not None:
                gate.watch(hidden)
            if steered is False:
                return None
            rows = None if steered is True else steered
            if gate is not None:
                rows = gate.strengths(hidden, rows)
            return with_hidden(output, apply(hidden.contiguous(), rows))

        return steer_output

    def _steered_now(self) -> Tensor | bool:
        """Which tokens of this forward call are steered: all, none, or 1 and 0 for each.

        A (batch · position,) float32 tensor in the last case. Found once for all blocks.
        """
        positions = self._clock.positions
        if positions is None or positions is not self._steered_at:
            active = self._clock.active(self._intervention)
            self._steered = (
                True if active is None else active.float() if bool(active.any()) else False
            )
            self._steered_at = positions
        return self._steered


def require_room(folds: Mapping[int, Affine], homes: Mapping[int, torch.device]) -> None:
    """MemoryRefusedError unless the folds fit beside the blocks that they steer.

    Anywhere else every state would be copied there and back.
    """
    for device in {home for home in homes.values() if home.type == "cuda"}:
        sizes = [fold_bytes(a.rank, a.d_model) for k, a in folds.items() if homes[k] == device]
        placed = plan_placement([OperatorNeed(size) for size in sizes], device)
        if sizes and not placed.device.startswith("cuda"):
            message = (
                f"[steer] expected room for the operators beside the model, got {placed.reason}, "
                f"where every state would travel; steer fewer blocks, lower the rank, or load the "
                f"model with --device cpu"
            )
            raise MemoryRefusedError(message)


def hidden_of(output: Any) -> Tensor:
    """The hidden states among a block's outputs."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """A block's outputs with the hidden states replaced."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def applier(affine: Affine, device: torch.device, dtype: torch.dtype) -> Apply:
    """The compiled kernel where it serves this device and dtype, else plain torch.

    Which of the two it is, :func:`kernel_name` tells.
    """
    if uses_kernel(device, dtype):
        return kernels.CompiledAffine(affine, device).apply
    down, bias, up, shift = (
        torch.from_numpy(x).to(device) for x in (affine.A, affine.a0, affine.B, affine.c)
    )
    weights = plain.fold(down, bias, up, shift, dtype)

    def apply(hidden: Tensor, strengths: Tensor | None) -> Tensor:
        return plain.apply_folded(hidden, weights, affine.restore, strengths)

    return apply


def uses_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """True where the compiled kernel serves a model of this dtype on this device."""
    built = device.type == "cpu" or (device.type == "cuda" and kernels.info()["cuda"]["built"])
    return built and dtype in (torch.float32, torch.bfloat16, torch.float16)


def kernel_name(device: torch.device, dtype: torch.dtype) -> str:
    """What applies an affine to such a model, for people to read."""
    if uses_kernel(device, dtype):
        return "compiled"
    return f"plain torch on {device.type} in {str(dtype).removeprefix('torch.')}"


def _cache_length(cache: Any) -> int:
    if cache is None:
        return 0
    return int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0
