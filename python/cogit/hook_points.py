"""Hook points: where in a block a state is read, and the names that other tools use for them.

A block adds its attention and its MLP to the residual stream, one after the other (sequential) or
both at once (parallel)::

    resid_pre ─ attn_norm ─ attention ─ attn_out ─(+)─ resid_mid
    resid_mid ─ mlp_norm ─ MLP ─ mlp_out ─(+)─ resid_post

- ``resid_pre``, ``resid_post``: the residual stream before and after the block.
- ``attn_out``, ``mlp_out``: what is added to the residual stream, so after a norm behind the
  attention or MLP where the architecture has one (Gemma 2, OLMo 2, GLM 4) and after a residual
  multiplier (Granite).
- ``resid_mid`` = ``resid_pre`` + ``attn_out``; a parallel block has none.
- ``attn_norm``, ``mlp_norm``: output of the norm that the attention or the MLP reads; an
  architecture without such a norm (OLMo 2) has none, and one norm may serve both (Cohere).
"""

from __future__ import annotations

import re
from enum import StrEnum


class HookPoint(StrEnum):
    """A place in a block. Its value is its name in files and on the command line."""

    RESID_PRE = "resid_pre"
    RESID_MID = "resid_mid"
    RESID_POST = "resid_post"
    ATTN_OUT = "attn_out"
    MLP_OUT = "mlp_out"
    ATTN_NORM = "attn_norm"
    MLP_NORM = "mlp_norm"


# Names of TransformerLens (Nanda and Bloom, 2022), whose norms are `ln1` and `ln2`.
_ALIASES = {f"hook_{point.value}": point for point in HookPoint if "norm" not in point.value} | {
    "ln1": HookPoint.ATTN_NORM,
    "ln1.hook_normalized": HookPoint.ATTN_NORM,
    "ln2": HookPoint.MLP_NORM,
    "ln2.hook_normalized": HookPoint.MLP_NORM,
}
_BLOCK = re.compile(r"blocks\.(\d{1,5})\.(.+)", re.ASCII)


def parse_hook_point(text: str) -> tuple[HookPoint, int | None]:
    """A hook point and, where the name holds one, a block number.

    Reads ``resid_post``, ``hook_resid_post``, ``ln1`` and ``blocks.7.hook_resid_post``.
    ValueError otherwise.
    """
    match = _BLOCK.fullmatch(text)
    block, name = (int(match[1]), match[2]) if match else (None, text)
    if name in _ALIASES:
        return _ALIASES[name], block
    try:
        return HookPoint(name), block
    except ValueError:
        message = (
            f"[hook point] expected one of {', '.join(HookPoint)}, or a name such as "
            f"blocks.7.hook_resid_post, got {text!r}"
        )
        raise ValueError(message) from None
