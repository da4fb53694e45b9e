"""Reading a hook point of a transformers model: which module of a block to watch, and how.

The parts of a block are found by following one short call through it: the attention by its class,
the norms by what they feed, the MLP as what is left. Then the sums that define the hook points are
checked on that call, block by block, so that an architecture that adds things up otherwise is
refused by name and never read at a wrong place.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from cogit.backends.hooks import hidden_of
from cogit.hook_points import HookPoint

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

Take = Callable[["Tensor"], None]
# Two ways to add up three numbers differ by at most this many roundings of their sizes' sum.
_ROUNDINGS = 4


@dataclass(frozen=True)
class Tap:
    """Where one hook point of one block is read.

    module: what is watched; its input if ``before``, else its output. minus_argument: the module
    adds this tensor among its arguments (the residual stream) itself, so it is taken away. scale:
    a multiplier on the way to the residual stream.
    """

    module: nn.Module
    before: bool = False
    minus_argument: int | str | None = None
    scale: float = 1.0

    def watch(self, take: Take) -> RemovableHandle:
        """Call ``take`` with (batch, position, d_model) on every call of the module.

        The tensor may be a view that the model goes on to change: copy what is kept.
        """
        if self.before:

            def enter(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
                take(_hidden_argument(args, kwargs))

            return self.module.register_forward_pre_hook(enter, with_kwargs=True)

        def leave(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            hidden = hidden_of(output)
            if self.minus_argument is not None:
                hidden = hidden - _argument(args, kwargs, self.minus_argument)
            take(hidden if self.scale == 1.0 else hidden * self.scale)

        return self.module.register_forward_hook(leave, with_kwargs=True)


@dataclass(eq=False)
class _Call:
    """One call of a part of a block: copies of its input, output and other arguments."""

    order: int
    name: str
    module: nn.Module
    hidden: Tensor
    output: Tensor
    others: dict[int | str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class _Parts:
    """The taps of one block, None where it has no such place."""

    taps: dict[HookPoint, Tap | None]
    why: str = ""


def tap_blocks(
    blocks: Sequence[nn.Module] | nn.ModuleList,
    layers: Sequence[int],
    point: HookPoint,
    architecture: str,
    call: Callable[[], object],
) -> list[Tap]:
    """One tap for each of the given blocks.

    call: runs the model on a few tokens; used only for hook points inside a block. ValueError,
    naming the architecture, where a block has no such place.
    """
    if point is HookPoint.RESID_POST:
        return [Tap(blocks[layer]) for layer in layers]
    if point is HookPoint.RESID_PRE:
        return [Tap(blocks[layer], before=True) for layer in layers]
    taps = []
    for layer, parts in zip(layers, _trace([blocks[i] for i in layers], call), strict=True):
        tap = parts.taps.get(point)
        if tap is None:
            message = (
                f"[hook point] expected a {point} in block {layer} of {architecture}, got "
                f"{parts.why or 'none'}; use resid_pre or resid_post"
            )
            raise ValueError(message)
        taps.append(tap)
    return taps


def _trace(blocks: Sequence[nn.Module], call: Callable[[], object]) -> list[_Parts]:
    """Follow one call through the blocks and find the parts of each."""
    calls: list[list[_Call]] = [[] for _ in blocks]
    whole: list[_Call | None] = [None] * len(blocks)
    handles: list[RemovableHandle] = []
    order = itertools.count()

    def listen(name: str, keep: Callable[[_Call], object], module: nn.Module) -> None:
        def note(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            result = hidden_of(output)
            if isinstance(result, torch.Tensor) and (hidden := _first_tensor(args, kwargs)):
                others = {
                    key: value.clone()
                    for key, value in _arguments(args, kwargs)
                    if key != hidden[0]
                    and isinstance(value, torch.Tensor)
                    and value.shape == hidden[1].shape
                }
                keep(_Call(next(order), name, module, hidden[1].clone(), result.clone(), others))

        # First of all hooks, so that the sums are checked before any steering.
        handles.append(module.register_forward_hook(note, prepend=True, with_kwargs=True))

    try:
        for index, block in enumerate(blocks):
            listen("block", functools.partial(whole.__setitem__, index), block)
            for name, child in block.named_children():
                listen(name, calls[index].append, child)
        call()
    finally:
        for handle in handles:
            handle.remove()
    return [
        _find_parts(block, outer, inner)
        for block, outer, inner in zip(blocks, whole, calls, strict=True)
    ]


def _find_parts(block: nn.Module, outer: _Call | None, calls: list[_Call]) -> _Parts:
    if outer is None:
        return _Parts({}, "a block that did not run")
    norms = [entry for entry in calls if "norm" in type(entry.module).__name__.lower()]
    attention = [entry for entry in calls if _is_attention(entry) and entry not in norms]
    mlp = [
        entry
        for entry in calls
        if entry not in norms
        and entry not in attention
        and any(True for _ in entry.module.parameters())
    ]
    if len(attention) != 1 or not mlp:
        names = ", ".join(f"{e.name} ({type(e.module).__name__})" for e in calls) or "nothing"
        return _Parts({}, f"a block that is not one attention and one MLP but {names}")
    attn, first, last = attention[0], mlp[0], mlp[-1]
    attn_norm = _feeding(attn, norms)
    mlp_norm = _feeding(first, norms)
    scale = float(getattr(block, "residual_multiplier", 1.0))
    attn_tap, attn_out = _out(attn, norms, scale, outer)
    mlp_tap, mlp_out = _out(last, norms, scale, outer)
    # The stream that the MLP's side reads: before its norm if it has one.
    side = first if mlp_norm is None else mlp_norm
    middle = side.hidden.reshape(outer.hidden.shape)
    taps: dict[HookPoint, Tap | None] = {
        HookPoint.ATTN_NORM: None if attn_norm is None else Tap(attn_norm.module),
        HookPoint.MLP_NORM: None if mlp_norm is None else Tap(mlp_norm.module),
        HookPoint.ATTN_OUT: attn_tap,
        HookPoint.MLP_OUT: mlp_tap,
    }
    if _adds_up(middle, outer.hidden, attn_out) and _adds_up(outer.output, middle, mlp_out):
        taps[HookPoint.RESID_MID] = Tap(side.module, before=True)
        return _Parts(taps, "no norm there")
    if _adds_up(outer.output, outer.hidden, attn_out, mlp_out):
        return _Parts(taps, "attention and MLP that are added at once (a parallel residual)")
    return _Parts({}, "a block whose output is not its input plus attention plus MLP")


def _is_attention(entry: _Call) -> bool:
    name = type(entry.module).__name__.lower()
    return "attention" in name or "attn" in name


def _feeding(part: _Call, norms: list[_Call]) -> _Call | None:
    """The norm whose output a part reads: the last one before it, should several agree."""
    found = [n for n in norms if n.order < part.order and _same(n.output, part.hidden)]
    return found[-1] if found else None


def _out(part: _Call, norms: list[_Call], scale: float, outer: _Call) -> tuple[Tap, Tensor]:
    """What a part adds to the residual stream: the tap, and the tensor of this call."""
    shape = outer.hidden.shape
    if part.others:
        # A module that is given the residual stream beside its input adds it (Bloom).
        key, residual = next(iter(part.others.items()))
        added = (part.output - residual).reshape(shape)
        return Tap(part.module, minus_argument=key, scale=scale), added * scale
    behind = [n for n in norms if n.order > part.order and _same(n.hidden, part.output)]
    source = behind[0] if behind else part
    return Tap(source.module, scale=scale), source.output.reshape(shape) * scale


def _same(one: Tensor, other: Tensor) -> bool:
    """The same numbers, in whatever shape."""
    return one.numel() == other.numel() and torch.equal(one.flatten(), other.flatten())


def _adds_up(total: Tensor, *terms: Tensor) -> bool:
    """Is this the sum of these, number by number, up to the roundings of the sum?"""
    parts = [term.float() for term in terms]
    error = (total.float() - sum(parts[1:], parts[0])).abs()
    size = sum((part.abs() for part in parts), total.float().abs())
    return bool((error <= _ROUNDINGS * torch.finfo(total.dtype).eps * size).all())


def _arguments(args: Any, kwargs: dict[str, Any]) -> Iterator[tuple[int | str, Any]]:
    """Arguments by their place or name."""
    yield from enumerate(args)
    yield from kwargs.items()


def _first_tensor(args: Any, kwargs: dict[str, Any]) -> tuple[int | str, Tensor] | None:
    """The hidden states among a module's arguments: the first tensor of floats."""
    for key, value in _arguments(args, kwargs):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return key, value
    return None


def _hidden_argument(args: Any, kwargs: dict[str, Any]) -> Tensor:
    found = _first_tensor(args, kwargs)
    if found is None:
        message = "[hook point] expected hidden states among a module's arguments, got none"
        raise ValueError(message)
    return found[1]


def _argument(args: Any, kwargs: dict[str, Any], key: int | str) -> Tensor:
    value: Tensor = args[key] if isinstance(key, int) else kwargs[key]
    return value
