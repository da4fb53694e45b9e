"""Finding the decoder blocks of any transformers model by structure, not by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def text_config(config: Any) -> Any:
    """The configuration of the language model proper, also inside a multi-modal one."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def count(config: Any, *names: str) -> int:
    """The first of several names for the same measure; ValueError if none is there."""
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    message = f"[model] expected one of {', '.join(names)} in {type(config).__name__}, got none"
    raise ValueError(message)


def find_blocks(model: nn.Module, n_layers: int) -> nn.ModuleList:
    """The outermost list of ``n_layers`` modules of one class: the decoder blocks.

    ValueError for encoder-decoder models, and where no list or several fit equally well.
    """
    from torch import nn

    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        message = (
            f"[model] expected a decoder-only model, got the encoder-decoder {type(model).__name__}"
        )
        raise ValueError(message)
    found = [
        (name.count("."), name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    ]
    if not found:
        message = (
            f"[model] expected a list of {n_layers} blocks somewhere in {type(model).__name__}, "
            f"got none; its architecture is not supported"
        )
        raise ValueError(message)
    depth = min(entry[0] for entry in found)
    outermost = [entry for entry in found if entry[0] == depth]
    if len(outermost) > 1:
        names = ", ".join(entry[1] for entry in outermost)
        message = (
            f"[model] expected one list of {n_layers} blocks in {type(model).__name__}, got {names}"
        )
        raise ValueError(message)
    return outermost[0][2]
