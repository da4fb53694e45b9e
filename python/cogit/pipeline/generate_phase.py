"""Phase 3: continuations of open prompts, unsteered and steered either way, for people to read.

``continuations.json`` is ``{"results": [{"prompt", "baseline", "interventions_negative",
"interventions_positive"}], "config": {…}}``, the interventions by strength. When it was written is
in the manifest and the state: two runs of the same plan give the same file. ``tokens.json`` holds
the ids that every text was made from, so that a reader can check where the prompt ended.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.pipeline.files import write_json
from cogit.pipeline.fit_phase import load_fitted
from cogit.sampling import SamplingOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cogit.backends.base import Backend
    from cogit.intervention import Intervention
    from cogit.pipeline.dims import Dims
    from cogit.pipeline.material import Material
    from cogit.pipeline.plan import Plan
    from cogit.sampling import Sample

TEXTS, TOKENS = "continuations.json", "tokens.json"
MULTIPLES = (0.5, 1.0, 1.5)
WAYS = {"interventions_negative": -1, "interventions_positive": 1}


def strengths_of(plan: Plan) -> tuple[float, ...]:
    """Multiples of the chosen strength; blends for a trained unitary."""
    if plan.strengths:
        return plan.strengths
    return plan.base.blend_ratios if plan.trains else MULTIPLES


def sampling_of(plan: Plan) -> SamplingOptions:
    """The same on both backends."""
    return SamplingOptions(
        max_tokens=plan.max_tokens,
        temperature=plan.temperature,
        top_k=plan.top_k,
        stop_at_eos=plan.stop_at_eos,
        seed=plan.chosen_seed,
    )


def run_generate(
    folder: Path,
    earlier: Path,
    plan: Plan,
    dims: Dims,
    material: Material,
    backend: Backend,
    *,
    show: bool,
) -> None:
    """Write the phase's files to ``folder``, with the operators of the fit phase in ``earlier``."""
    learned, opposite, _ = load_fitted(earlier)
    prompts = material.prompts[: plan.examples]
    options = sampling_of(plan)
    arms: dict[tuple[str, str], list[Sample]] = {
        ("baseline", ""): backend.generate(prompts, options, show_progress=show)
    }
    for way, sign in WAYS.items():
        for value in strengths_of(plan):
            one = _towards(learned, opposite, sign, value, plan)
            with backend.steer(one):
                samples = backend.generate(prompts, options, show_progress=show)
            arms[way, f"{abs(one.strength):g}"] = samples
    config = {
        "model": backend.identity.name,
        "fingerprint": backend.identity.fingerprint,
        "backend": backend.name,
        "quantum_dim": dims.q if plan.trains else None,
        "method": plan.method,
        "strengths": [float(key) for way, key in arms if way == "interventions_positive"],
        "blend_ratios": list(strengths_of(plan)) if plan.trains else None,
        "layers": list(learned.layers),
        "intervention": learned.content_hash,
        "sampling": dict(vars(options)),
    }
    write_json(folder / TEXTS, {"results": _results(prompts, arms), "config": config})
    write_json(folder / TOKENS, {"continuations": _tokens(arms)})


def _towards(
    learned: Intervention, opposite: Intervention | None, sign: int, value: float, plan: Plan
) -> Intervention:
    """To one class. value: a blend of a trained unitary, else a multiple of the chosen strength."""
    if plan.trains:
        one = learned if sign > 0 or opposite is None else opposite
        return one.at_strength(value)
    return learned.at_strength(sign * value * learned.strength)


def _results(
    prompts: Sequence[str], arms: dict[tuple[str, str], list[Sample]]
) -> list[dict[str, Any]]:
    return [
        {
            "prompt": prompt,
            "baseline": arms["baseline", ""][row].text,
            **{
                way: {key: found[row].text for (name, key), found in arms.items() if name == way}
                for way in WAYS
            },
        }
        for row, prompt in enumerate(prompts)
    ]


def _tokens(arms: dict[tuple[str, str], list[Sample]]) -> list[dict[str, Any]]:
    return [
        {
            "arm": name,
            "strength": key or None,
            "row": row,
            "prompt_ids": list(sample.prompt_ids),
            "ids": list(sample.ids),
            "finish_reason": sample.finish_reason,
        }
        for (name, key), samples in arms.items()
        for row, sample in enumerate(samples)
    ]
