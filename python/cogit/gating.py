"""Gating an intervention by texts: states of both conditions, one fitted gate a block."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.gates import GateFit, fit_similarity_gate
from cogit.intervention import Intervention
from cogit.progress import track

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.backends.base import Backend

    Fit = Callable[[list[NDArray[np.float32]], list[NDArray[np.float32]]], GateFit]

_CHUNK = 32


def fit_gates(
    backend: Backend,
    intervention: Intervention,
    on_texts: Sequence[str],
    off_texts: Sequence[str],
    *,
    fit: Fit = fit_similarity_gate,
    show_progress: bool = False,
) -> tuple[Intervention, dict[int, GateFit]]:
    """Put the intervention behind gates that open for texts like ``on_texts`` only.

    Blocks are fitted from the first to the last, each on states as the gated blocks before it leave
    them, which is what its gate will see. Every token counts but the first of a text, an attention
    sink. fit: ``fit_similarity_gate``, ``fit_learned_gate`` or one of them with options set by
    functools.partial. Returns the gated intervention, its lineage holding the fits, and the fits.

    Raises ValueError for texts that are too few, too short or too long, or where a block's states
    do not tell the conditions apart (see the fits).
    """
    intervention.identity.require_same_shape(backend.identity)
    sequences = [_tokens(backend, text) for text in (*on_texts, *off_texts)]
    gated = intervention.ungated()
    fits: dict[int, GateFit] = {}
    for layer in intervention.layers:
        earlier = [block for block in intervention.layers if block < layer]
        with _under(backend, gated, earlier):
            states = _states(backend, sequences, layer, show=show_progress)
        fits[layer] = fit(states[: len(on_texts)], states[len(on_texts) :])
        gated = gated.gated({**gated.gates, layer: fits[layer].gate})
    lineage = {
        **intervention.lineage,
        "gates": {
            "ungated": intervention.ungated().content_hash,
            "on": _fingerprint(on_texts),
            "off": _fingerprint(off_texts),
            "fits": {str(layer): found.to_json() for layer, found in fits.items()},
        },
    }
    return replace(gated, lineage=lineage), fits


@contextmanager
def _under(backend: Backend, intervention: Intervention, blocks: list[int]) -> Iterator[None]:
    """The backend steered at some blocks of an intervention only, or not at all."""
    if not blocks:
        yield
        return
    with backend.steer(intervention.on_blocks(blocks), verify=False):
        yield


def _states(
    backend: Backend, sequences: Sequence[list[int]], layer: int, *, show: bool
) -> list[NDArray[np.float32]]:
    """(token, d_model) of each text at the end of a block, without its first token."""
    states: list[NDArray[np.float32]] = []
    starts = range(0, len(sequences), _CHUNK)
    for start in track(starts, f"reading block {layer}", show=show):
        chunk = sequences[start : start + _CHUNK]
        states += [found[0, 1:] for found in backend.residuals(chunk, [layer])]
    return states


def _tokens(backend: Backend, text: str) -> list[int]:
    ids = backend.tokenize(text)
    if not 2 <= len(ids) <= backend.context_length:
        message = (
            f"[gate] expected texts of 2 to {backend.context_length} tokens (the context), got "
            f"{len(ids)} in {text[:60]!r}"
        )
        raise ValueError(message)
    return ids


def _fingerprint(texts: Sequence[str]) -> dict[str, Any]:
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    return {"texts": len(texts), "sha256": digest}
