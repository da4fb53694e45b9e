"""Where an intervention acts: how far it moves the state of every token of some texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cogit.evaluation.arms import Arm
from cogit.evaluation.neutral import relative
from cogit.sampling import Sample

if TYPE_CHECKING:
    from cogit.backends.base import Backend


def token_views(
    backend: Backend, arm: Arm, samples: dict[int, list[list[Sample]]], n_prompts: int
) -> list[dict[str, Any]]:
    """Entries of ``tokens``: the first prompts and their continuations, both directions.

    change: mean |h' - h| / |h| over the steered blocks, 0 where the operator does not act.
    """
    assert arm.towards is not None
    views: list[dict[str, Any]] = []
    for sign, intervention in arm.towards.items():
        with backend.steer(intervention, verify=False, control=True):
            for sample in samples[sign][0][:n_prompts]:
                ids = (*sample.prompt_ids, *sample.ids)
                n_prompt = len(sample.prompt_ids)
                (probe,) = backend.probe([ids], intervention.layers, n_prompt=n_prompt)
                change = relative(probe.before, probe.after).mean(axis=0)
                tokens = [
                    {"text": text, "generated": i >= n_prompt, "change": float(change[i])}
                    for i, text in enumerate(pieces(backend, ids))
                ]
                views.append(
                    {
                        "arm": arm.name,
                        "sign": sign,
                        "prompt": sample.prompt,
                        "layers": list(intervention.layers),
                        "tokens": tokens,
                    }
                )
    return views


def pieces(backend: Backend, ids: Sequence[int]) -> list[str]:
    """The text that each token adds; a token in the middle of a character adds none."""
    found: list[str] = []
    before = ""
    for end in range(1, len(ids) + 1):
        text = backend.detokenize(ids[:end])
        if not text.startswith(before):
            found.append(backend.detokenize([ids[end - 1]]))
            before = text
            continue
        added = text[len(before) :]
        if added.endswith("\ufffd"):
            found.append("")
            continue
        found.append(added)
        before = text
    return found
