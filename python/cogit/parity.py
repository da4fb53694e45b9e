"""Do both backends compute the same model, and does steering do the same in both?

The same token ids run through transformers (the reference) and llama.cpp, unsteered and steered.
The continuation is the reference's greedy one, teacher-forced through both, so that every logit is
compared under the same context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from cogit.intervention import Intervention
from cogit.operators import Commitment
from cogit.sampling import SamplingOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.backends import Backend

Measure = Literal["max_difference", "effect_cosine"]


@dataclass(frozen=True)
class Bound:
    """What must hold, and how large a probe shows it: mean |change| / |state| at a block."""

    measure: Measure
    value: float
    probe_change: float = 0.05


# Float32 weights agree to rounding. Others have logits of their own but the same effect of the
# intervention; 16 and 8 bits lose little of it, 4 bits more. Quantised arithmetic adds noise of a
# fixed size to either pass, in which the effect of a 5 % change nearly drowns on a small model: the
# cosine of Q8_0 was .9975 at 5 % and .9999 at 20 % there.
BOUNDS = {
    "F32": Bound("max_difference", 1e-3),
    "F16": Bound("effect_cosine", 0.999),
    "BF16": Bound("effect_cosine", 0.999),
    "Q8_0": Bound("effect_cosine", 0.999, probe_change=0.2),
    "Q4_K_M": Bound("effect_cosine", 0.99, probe_change=0.2),
}
PROMPTS = (
    "we visited the hotel in april and the room was",
    "The capital of France is",
    "In 1969, people walked on the Moon; since then,",
    "def mean(values):",
)


@dataclass(frozen=True)
class Agreement:
    """How two backends compare over some token positions.

    off, on: the largest absolute logit difference, unsteered and steered. argmax_off, argmax_on:
    share of positions with the same most likely token. effect_cosine: between the two backends'
    changes of the logits by steering; effect_rms: the reference's change, root mean square.
    """

    n_positions: int
    off: float
    on: float
    argmax_off: float
    argmax_on: float
    effect_cosine: float
    effect_rms: float


@dataclass(frozen=True)
class ParityReport:
    """The verdict over prompt and generated tokens together, and each on its own."""

    gguf_type: str
    bound: Bound
    holds: bool
    overall: Agreement
    prompt: Agreement
    generated: Agreement
    relative_change: dict[int, float]


def bound_for(gguf_type: str) -> Bound:
    """What must hold for a GGUF type; ValueError for a type that no bound is known for."""
    if gguf_type not in BOUNDS:
        message = f"[parity] expected a GGUF of type {', '.join(BOUNDS)}, got {gguf_type}"
        raise ValueError(message)
    return BOUNDS[gguf_type]


def probe_intervention(
    backend: Backend, prompts: Sequence[str], change: float, seed: int = 0
) -> Intervention:
    """A commitment on all blocks; ``change`` times the median norm of a state is its length."""
    sequences = [backend.tokenize(prompt) for prompt in prompts]
    layers = range(backend.identity.n_layers)
    norms = np.concatenate(
        [np.linalg.norm(x[:, 1:], axis=-1) for x in backend.residuals(sequences, layers)], axis=1
    )  # (layer, position), without the first token, whose norm is its own
    if not norms.size:
        message = "[parity] expected prompts of at least two tokens, got shorter ones"
        raise ValueError(message)
    drawn = Commitment.draw(backend.identity.d_model, seed=seed)
    typical = float(np.median(norms))
    strength = change * typical / float(np.linalg.norm(drawn.vector))
    return Intervention.everywhere(drawn, layers, backend.identity, strength=strength)


def compare_backends(
    reference: Backend,
    other: Backend,
    intervention: Intervention,
    gguf_type: str,
    *,
    prompts: Sequence[str] = PROMPTS,
    max_tokens: int = 16,
) -> ParityReport:
    """Compare logits of both backends under an intervention and without it.

    Raises ValueError if a prompt has other token ids in the other backend, or does not fit, and
    InterventionError if steering does not land in one of them.
    """
    bound = bound_for(gguf_type)
    require_same_tokens(reference, other, prompts)
    greedy = SamplingOptions(max_tokens=max_tokens, temperature=0.0, stop_at_eos=False)
    samples = reference.generate(prompts, greedy)
    sequences = [[*sample.prompt_ids, *sample.ids] for sample in samples]
    n_prompt = [len(sample.prompt_ids) for sample in samples]
    off, on, relative = [], [], {}
    for backend in (reference, other):
        off.append(backend.logits(sequences, n_prompt=n_prompt))
        with backend.steer(intervention) as verification:
            on.append(backend.logits(sequences, n_prompt=n_prompt))
        if verification is not None:
            relative = dict(verification.relative_change)

    def over(begins: Sequence[int], ends: Sequence[int]) -> Agreement:
        """Compare positions begin..end of each sequence."""
        windows = [slice(begin, end) for begin, end in zip(begins, ends, strict=True)]
        return _agreement(*(_rows(logits, windows) for logits in (*off, *on)))

    starts, ends = [0] * len(sequences), [len(ids) for ids in sequences]
    overall = over(starts, ends)
    if bound.measure == "max_difference":
        holds = max(overall.off, overall.on) <= bound.value
    else:
        holds = overall.effect_cosine >= bound.value
    return ParityReport(
        gguf_type=gguf_type,
        bound=bound,
        holds=holds,
        overall=overall,
        prompt=over(starts, n_prompt),
        generated=over(n_prompt, ends),
        relative_change=relative,
    )


def _rows(logits: Sequence[NDArray[np.float32]], windows: Sequence[slice]) -> NDArray[np.float64]:
    """The chosen positions of all sequences. (position, vocabulary)"""
    chosen = [rows[window] for rows, window in zip(logits, windows, strict=True)]
    return np.concatenate(chosen).astype(np.float64)


def _agreement(
    off: NDArray[np.float64],
    other_off: NDArray[np.float64],
    on: NDArray[np.float64],
    other_on: NDArray[np.float64],
) -> Agreement:
    """All four are (position, vocabulary)."""
    effect, other_effect = on - off, other_on - other_off
    scale = float(np.linalg.norm(effect) * np.linalg.norm(other_effect))
    return Agreement(
        n_positions=len(off),
        off=float(np.abs(other_off - off).max()),
        on=float(np.abs(other_on - on).max()),
        argmax_off=float((other_off.argmax(axis=1) == off.argmax(axis=1)).mean()),
        argmax_on=float((other_on.argmax(axis=1) == on.argmax(axis=1)).mean()),
        effect_cosine=float((effect * other_effect).sum() / scale) if scale > 0 else 0.0,
        effect_rms=float(np.sqrt((effect**2).mean())),
    )


def require_same_tokens(reference: Backend, other: Backend, prompts: Sequence[str]) -> None:
    """ValueError naming a text that has other token ids in the other backend."""
    for prompt in prompts:
        expected, got = reference.tokenize(prompt), other.tokenize(prompt)
        if expected != got:
            message = (
                f"[parity] expected the same token ids of {prompt!r} in both backends, got "
                f"{_head(expected)} in {reference.name} and {_head(got)} in {other.name}; convert "
                f"the model again, with its tokenizer"
            )
            raise ValueError(message)


def _head(ids: Sequence[int]) -> str:
    return f"{list(ids[:12])}{'…' if len(ids) > 12 else ''}"
