"""What ``cogit-infer`` does once its flags are read."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit import __version__
from cogit.cli.console import print_json, say
from cogit.cli.infer_flags import DEFAULT_LAMBDA, DEFAULT_PROMPT
from cogit.cli.loading import (
    BackendChoice,
    ModelSource,
    Runtime,
    describe_runtime,
    display_name,
    open_model,
)
from cogit.errors import InterventionError
from cogit.identity import ModelIdentity
from cogit.intervention import Intervention
from cogit.layers import LayerRange, describe_blocks
from cogit.memory_estimate import Workload
from cogit.operators import Commitment
from cogit.positions import Positions
from cogit.sampling import Sample, SamplingOptions
from cogit.text_files import read_lines, require_lines

if TYPE_CHECKING:
    from cogit.backends import Backend
    from cogit.verify import Verification

_MOST_PARALLEL = 8


@dataclass(frozen=True)
class Request:
    """The flags of one call, read and checked; None where a file or default decides."""

    backend: BackendChoice
    model: str | None
    prompts: tuple[str, ...]
    prompt_file: Path | None
    strength: float | None
    layers: LayerRange | None
    intervention: Path | None
    k: int
    positions: Positions | None
    first_token: bool
    sampling: SamplingOptions
    runtime: Runtime
    compare: bool
    json_output: bool
    verify: bool


def execute(request: Request) -> None:
    """Load, steer, generate, print."""
    request.runtime.require(request.backend)
    stored = None if request.intervention is None else Intervention.load(request.intervention)
    prompts = read_prompts(request)
    source = ModelSource.choose(request.backend, request.model)
    runtime = replace(request.runtime, n_parallel=min(len(prompts), _MOST_PARALLEL))
    workload = Workload.of_texts(prompts, generated=request.sampling.max_tokens)
    with open_model(request.backend, source.path, runtime, workload=workload) as backend:
        running = describe_runtime(backend, runtime)
        intervention = choose_intervention(request, stored, backend.identity)
        backend.require_fit(prompts, request.sampling.max_tokens)
        _introduce(request, source, backend, intervention, running)
        plain: list[Sample] = []
        if request.compare:
            plain = backend.generate(prompts, request.sampling, show_progress=True)
        with backend.steer(intervention, verify=request.verify) as verification:
            say("verified", _verdict(verification))
            steered = backend.generate(prompts, request.sampling, show_progress=True)
        identity = backend.identity
    if request.json_output:
        facts = _facts(request, source, identity, intervention, running, verification)
        print_json({**facts, **_samples(steered, plain)})
    else:
        _print_texts(steered, plain)


def choose_intervention(
    request: Request, stored: Intervention | None, model: ModelIdentity
) -> Intervention:
    """The file's intervention with the flags over it, or a commitment drawn for this model."""
    if stored is None:
        blocks = (request.layers or LayerRange(None)).resolve(model.n_layers)
        drawn = Commitment.draw(model.d_model, k=request.k, seed=request.sampling.seed)
        chosen = Intervention.everywhere(
            drawn, blocks, model, strength=DEFAULT_LAMBDA, lineage={"made_by": "cogit-infer"}
        )
    else:
        stored.identity.require_same_shape(model)
        chosen = _restricted(stored, request.layers)
    if request.strength is not None:
        chosen = chosen.at_strength(request.strength)
    positions = request.positions or chosen.positions
    if request.first_token:
        positions = replace(positions, first_token=True)
    chosen = replace(chosen, positions=positions)
    if chosen.strength != 0.0 and chosen.changes_nothing():
        message = (
            f"[intervention] expected operators that change something, got zeros only in "
            f"{request.intervention or 'the commitment'}; use --lambda 0 for a control"
        )
        raise InterventionError(message)
    return chosen


def _restricted(stored: Intervention, layers: LayerRange | None) -> Intervention:
    """The operators on the given blocks; ValueError if the file has none on one of them."""
    if layers is None or layers.blocks is None:
        return stored
    wanted = layers.resolve(stored.identity.n_layers) if layers.shares else layers.blocks
    missing = sorted(set(wanted) - set(stored.layers))
    if missing:
        message = (
            f"[layers] expected blocks that the intervention file has, "
            f"{describe_blocks(stored.layers)}, got {layers} with {describe_blocks(missing)}"
        )
        raise ValueError(message)
    return stored.on_blocks(wanted)


def kinds(intervention: Intervention) -> list[str]:
    """The kinds of operators in an intervention."""
    return sorted({operator.kind for operator in intervention.operators.values()})


def read_prompts(request: Request) -> list[str]:
    """All prompts of a call: flags first, then the file; the default one where none is given."""
    prompts = [_standard_input() if text == "-" else text for text in request.prompts]
    if request.prompt_file is not None:
        prompts += _lines(request.prompt_file)
    return prompts or [DEFAULT_PROMPT]


def _lines(source: Path) -> list[str]:
    if str(source) == "-":
        lines = _standard_input().splitlines()
        return require_lines(lines, "prompt-file", "a prompt", "standard input")
    return read_lines(source, "prompt-file", "a prompt")


def _standard_input() -> str:
    text = sys.stdin.read().rstrip("\n")
    if not text:
        message = "[prompt] expected a prompt on standard input, got none"
        raise ValueError(message)
    return text


def _introduce(
    request: Request,
    source: ModelSource,
    backend: Backend,
    intervention: Intervention,
    running: dict[str, str],
) -> None:
    """Say what is about to run, on standard error."""
    model = backend.identity
    say("backend", f"{backend.name} ({running['kernel']}), {running['dtype']}, {running['device']}")
    say(
        "model",
        f"{display_name(source)} ({source.origin}): {model.architecture}, {model.n_layers} blocks "
        f"of width {model.d_model}",
    )
    if request.intervention is None:
        chosen = f"commitment (no --intervention), k {request.k}, seed {request.sampling.seed}"
    else:
        chosen = f"{request.intervention}: {'+'.join(kinds(intervention))}"
    say("intervention", chosen)
    say(
        "steered",
        f"{describe_blocks(intervention.layers)}, strength {intervention.strength:g}, positions "
        f"{intervention.positions}",
    )
    for block, gate in intervention.gates.items():
        say("gated", f"block {block}: {gate.describe()}")
    if intervention.strength == 0.0:
        say("control", "strength 0 steers nothing: this is the unsteered model")
    if not request.prompts and request.prompt_file is None:
        say("prompt", f"{DEFAULT_PROMPT} (default)")


def _verdict(verification: Verification | None) -> str:
    if verification is None:
        return "not verified (--no-verify)"
    return verification.describe().removeprefix("verified: ")


def _print_texts(steered: Sequence[Sample], plain: Sequence[Sample]) -> None:
    """Continuations on standard output; labelled only where two kinds are shown."""
    for index, sample in enumerate(steered):
        if plain:
            print(f"unsteered: {plain[index].text}")
        print(f"steered: {sample.text}" if plain else sample.text)


def _facts(
    request: Request,
    source: ModelSource,
    identity: ModelIdentity,
    intervention: Intervention,
    running: dict[str, str],
    verification: Verification | None,
) -> dict[str, Any]:
    """Everything that decided the samples."""
    relative = verification.relative_change if verification else None
    return {
        "cogit_version": __version__,
        "backend": request.backend.value,
        **running,
        "model": identity.to_json(),
        "model_origin": source.origin,
        "intervention": {
            "file": None if request.intervention is None else str(request.intervention),
            "kinds": kinds(intervention),
            "content_hash": intervention.content_hash,
            "commitment": None
            if request.intervention is not None
            else {"k": request.k, "seed": request.sampling.seed},
        },
        "blocks": list(intervention.layers),
        "strength": intervention.strength,
        "control": intervention.changes_nothing(),
        "positions": asdict(intervention.positions),
        "gates": {str(b): gate.parameters() for b, gate in intervention.gates.items()},
        "seed": request.sampling.seed,
        "sampling": asdict(request.sampling),
        "verified": verification is not None,
        "norm_ratio": None if verification is None else _by_block(verification.norm_ratio),
        "cosine": None if verification is None else _by_block(verification.cosine),
        "relative_change": None if relative is None else _by_block(relative),
        "verification": None
        if verification is None
        else {
            "worst_error": verification.worst_error,
            "logit_change": verification.logit_change,
            "n_positions": verification.n_positions,
            "gate_open": {str(b): n for b, n in verification.gate_open.items()},
            "gate_undecided": verification.gate_undecided,
        },
    }


def _samples(steered: Sequence[Sample], plain: Sequence[Sample]) -> dict[str, Any]:
    def rows(samples: Sequence[Sample]) -> list[dict[str, Any]]:
        return [
            {
                "prompt": sample.prompt,
                "text": sample.text,
                "ids": list(sample.ids),
                "finish_reason": sample.finish_reason,
            }
            for sample in samples
        ]

    return {"samples": rows(steered), **({"unsteered": rows(plain)} if plain else {})}


def _by_block(values: Mapping[int, float]) -> dict[str, float]:
    return {str(block): value for block, value in values.items()}
