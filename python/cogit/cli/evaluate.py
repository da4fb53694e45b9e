"""``cogit evaluate``: whether an intervention does anything that its controls do not."""

from __future__ import annotations

from typing import Annotated

import typer

from cogit.cli import evaluate_flags as flags
from cogit.cli import flags as shared
from cogit.cli.loading import BackendChoice, Dtype, Runtime
from cogit.cli.memory_flags import CheckMemory, Yes

NAME = "evaluate"


def command(
    intervention: flags.File,
    opposite: flags.Opposite = None,
    model: shared.Model = None,
    backend: shared.Backend = BackendChoice.transformers,
    prompts: flags.Prompts = None,
    neutral_prompts: flags.NeutralPrompts = None,
    neutral: flags.Neutral = None,
    pairs: flags.Pairs = None,
    judge: flags.JudgeSpec = None,
    match: flags.Match = flags.MatchChoice.kl,
    random: flags.Draws = None,
    seeds: flags.Seeds = None,
    size: flags.Size = None,
    quick: flags.Quick = False,
    instruction_positive: flags.Towards = None,
    instruction_negative: flags.Away = None,
    tests: flags.Tests = 1,
    tail: flags.Tail = 4,
    sweep_strength: flags.SweepStrength = False,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a continuation.")] = 25,
    temperature: Annotated[float, typer.Option(help="Of the sampling; 0 is greedy.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Likeliest tokens that may be drawn; 0: all.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of draws, splits and resamples.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Of the weights; transformers only.")] = Dtype.f32,
    threads: shared.Threads = None,
    n_ctx: flags.ContextLength = None,
    parallel: flags.Parallel = 8,
    out: flags.Out = None,
    yes: Yes = False,
    memory_check: CheckMemory = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Steer held-out prompts both ways, beside every control, and give a verdict.

    The verdict is "effect", "effect beyond the budget" or "no effect".
    """
    from cogit.cli.evaluate_request import Request, sampling_of, seeds_of, size_of
    from cogit.cli.evaluate_run import execute

    if n_ctx is None and backend is BackendChoice.llamacpp:
        n_ctx = 512
    execute(
        Request(
            intervention=intervention,
            opposite=opposite,
            backend=backend,
            model=model,
            runtime=Runtime(
                device,
                dtype,
                threads,
                n_ctx,
                parallel,
                assume_yes=yes,
                check_memory=memory_check,
            ),
            prompts=prompts,
            neutral_prompts=neutral_prompts,
            neutral=neutral,
            pairs=pairs,
            judge=judge,
            match=match.value,
            n_random=random,
            seeds=seeds_of(seeds),
            size=size_of(None if size is None else size.value, quick=quick),
            instructions=(instruction_positive, instruction_negative),
            n_tests=tests,
            tail=tail,
            sweep_strength=sweep_strength,
            sampling=sampling_of(max_tokens, temperature, top_k),
            seed=seed,
            out=out,
            json_output=json_output,
        )
    )
