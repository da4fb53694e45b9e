"""Generation with and without an intervention, on both backends: python -m bench.inject [--quick].

``value`` is the tokens per second of a steered run, ``baseline`` that of the unsteered one, and
``ratio`` what is left of the speed. Runs take turns in one process, with the same prompt, greedy,
and the same number of tokens; attaching and the first step after it do not count. Before any clock
runs, every intervention is shown to land, and strength 0 to give the same tokens.

Models: the shipped one, and random weights in the shape of a half-billion model. Rows ``hook.…``
are the cost of one hook alone (see ``bench.hooks``); rows ``….vs_f32`` compare a quantised model
with float32, both unsteered.
"""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.hooks import hook_rows
from bench.models import LAYERS, QUICK_LAYERS, Model, demo_model, random_model
from bench.rows import Row, arguments, cores, finish
from bench.timing import Timing, once
from cogit.demo.grammar import open_prompts
from cogit.intervention import Intervention
from cogit.operators import Additive, LowRank, Unitary
from cogit.operators.base import random_basis, random_direction
from cogit.sampling import SamplingOptions

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cogit.backends import Backend

VARIANTS = (
    ("transformers", "f32"),
    ("transformers", "bf16"),
    ("llamacpp", "f32"),
    ("llamacpp", "q8_0"),
)
_ANGLE, _RANK, _CHECKED = np.pi / 3, 16, 4


def interventions(backend: Backend, prompt: str) -> dict[str, Intervention]:
    """Rank 2 at one block, rank 16 at all, a vector at all; sizes follow the residual stream."""
    identity = backend.identity
    d_model, middle = identity.d_model, identity.n_layers // 2
    states = backend.residuals([backend.tokenize(prompt)], [middle])[0]
    norm = float(np.linalg.norm(states[0, 1:], axis=1).mean())
    cosine, sine = np.cos(_ANGLE), np.sin(_ANGLE)
    turn = np.array([[cosine, -sine], [sine, cosine]], dtype=np.complex128)
    unitary = Unitary(np.zeros(d_model), random_basis(d_model, 2, 0), turn, 0.5 * norm)
    up = 0.3 * random_basis(d_model, _RANK, 2).T
    down = random_basis(d_model, _RANK, 1).T
    lowrank = LowRank(down, np.full(_RANK, 0.03 * norm), up, np.zeros(d_model))
    additive = Additive(0.1 * norm * random_direction(d_model, 3))
    everywhere = range(identity.n_layers)
    return {
        "unitary.one": Intervention({middle: unitary}, identity),
        "lowrank16.all": Intervention.everywhere(lowrank, everywhere, identity),
        "additive.all": Intervention.everywhere(additive, everywhere, identity),
    }


def steering(backend: Backend, intervention: Intervention | None) -> AbstractContextManager[Any]:
    if intervention is None:
        return nullcontext()
    return backend.steer(intervention, verify=False)


def check(backend: Backend, arms: dict[str, Intervention], prompt: str) -> None:
    """Each arm lands where it should and moves the logits; strength 0 changes no token."""
    options = SamplingOptions(max_tokens=_CHECKED, temperature=0.0, stop_at_eos=False)
    ids = backend.tokenize(prompt)
    plain, expected = backend.logits([ids])[0], backend.generate([prompt], options)[0].ids
    for name, arm in arms.items():
        with backend.steer(arm):
            moved = float(np.abs(backend.logits([ids])[0] - plain)[1:].max())
        if not moved > 1e-3 * float(np.abs(plain).max()):
            message = f"[bench] expected {name} to move the logits of {backend.name}, got {moved:g}"
            raise RuntimeError(message)
        with steering(backend, arm.at_strength(0.0)):
            found = backend.generate([prompt], options)[0].ids
        if found != expected:
            message = f"[bench] expected the same tokens at strength 0 of {name}, got others"
            raise RuntimeError(message)


def generation(backend: Backend, prompt: str, options: SamplingOptions) -> float:
    """Seconds of a generation, after a short one that warms up what was attached just now."""
    backend.generate([prompt], replace(options, max_tokens=2))
    return once(partial(backend.generate, [prompt], options))[1]


def arms_in_turns(
    backend: Backend,
    arms: dict[str, Intervention],
    prompt: str,
    options: SamplingOptions,
    rounds: int,
) -> Timing:
    """Seconds of a generation under each arm, and unsteered."""
    runs: dict[str, Intervention | None] = {"unsteered": None, **arms}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, arm in runs.items():
            with steering(backend, arm):
                seconds[name].append(generation(backend, prompt, options))
    return Timing(seconds)


def types_in_turns(model: Model, prompt: str, options: SamplingOptions, rounds: int) -> Timing:
    """Seconds of an unsteered generation of each GGUF; one is loaded at a time."""
    seconds: dict[str, list[float]] = {kind: [] for kind in ("f32", "q8_0")}
    for _ in range(rounds):
        for kind, some in seconds.items():
            with model.load("llamacpp", kind) as backend:
                some.append(generation(backend, prompt, options))
    return Timing(seconds)


def model_rows(model: Model, n_tokens: int, rounds: int) -> list[Row]:
    """All arms of one model on all variants."""
    rows: list[Row] = []
    prompt = open_prompts(1, seed=0)[0]
    options = SamplingOptions(max_tokens=n_tokens, temperature=0.0, stop_at_eos=False)
    for backend_name, dtype in VARIANTS:
        print(f"{model.name}: {backend_name} {dtype}", flush=True)
        with model.load(backend_name, dtype) as backend:
            arms = interventions(backend, prompt)
            check(backend, arms, prompt)
            timing = arms_in_turns(backend, arms, prompt, options, rounds)
        base = f"inject.{backend_name}.{model.name}.{dtype}"
        rows += [_speed(f"{base}.{arm}", timing, arm, "unsteered", n_tokens) for arm in arms]
    print(f"{model.name}: q8_0 against f32", flush=True)
    timing = types_in_turns(model, prompt, options, rounds)
    name = f"inject.llamacpp.{model.name}.q8_0.vs_f32"
    return [*rows, _speed(name, timing, "q8_0", "f32", n_tokens)]


def _speed(row_id: str, timing: Timing, ours: str, baseline: str, n_tokens: int) -> Row:
    return Row(
        row_id,
        n_tokens / timing.median(ours),
        "tokens/s",
        n_tokens / timing.median(baseline),
        timing.ratio(baseline, ours),
        note=baseline,
    )


def main() -> None:
    options = arguments(__doc__)
    quick: bool = options.quick
    rows = hook_rows(quick=quick)
    rows += model_rows(demo_model(), 16 if quick else 64, 3 if quick else 9)
    with tempfile.TemporaryDirectory() as folder:
        print("making the random model ...", flush=True)
        model = random_model(Path(folder), QUICK_LAYERS if quick else LAYERS)
        rows += model_rows(model, 6 if quick else 16, 2 if quick else 5)
    finish("inject", rows, options, threads=cores())


if __name__ == "__main__":
    main()
