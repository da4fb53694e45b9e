"""``cogit parity``: the same model in transformers and in llama.cpp, with and without steering."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cogit.cli import flags
from cogit.cli.console import print_json, say
from cogit.cli.loading import BackendChoice, Runtime, open_model
from cogit.cli.memory_flags import CheckMemory, Yes

if TYPE_CHECKING:
    from cogit.intervention import Intervention
    from cogit.parity import Agreement, ParityReport

NAME = "parity"


def command(
    model: Annotated[Path, typer.Option(help="Model folder of transformers, the reference.")],
    gguf: Annotated[Path, typer.Option(help="The same model as a GGUF file.")],
    intervention: Annotated[
        Path | None,
        typer.Option(
            help="Intervention file to compare under.",
            show_default="a commitment on all blocks: 5 %, or 20 % if quantised",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="Text to compare on; repeatable.", show_default="a few sentences"),
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Generated tokens to compare.")] = 16,
    threads: flags.BothThreads = None,
    yes: Yes = False,
    memory_check: CheckMemory = True,
    json_output: flags.Json = False,
) -> None:
    """Compare logits of both backends. Exits with 1 if they do not agree."""
    from cogit.inspection import gguf_type as declared_type
    from cogit.intervention import Intervention
    from cogit.parity import PROMPTS, bound_for, compare_backends, probe_intervention

    stored = None if intervention is None else Intervention.load(intervention)
    gguf_type = declared_type(gguf)
    bound = bound_for(gguf_type)
    prompts = tuple(prompt or PROMPTS)
    runtime = Runtime("cpu", threads=threads, assume_yes=yes, check_memory=memory_check)
    with (
        open_model(BackendChoice.transformers, str(model), runtime) as reference,
        open_model(BackendChoice.llamacpp, str(gguf), runtime, kv_type="f32") as other,
    ):
        probe = stored or probe_intervention(reference, prompts, bound.probe_change)
        _introduce(model, gguf, gguf_type, probe, from_file=stored is not None)
        report = compare_backends(
            reference, other, probe, gguf_type, prompts=prompts, max_tokens=max_tokens
        )
    if json_output:
        print_json(
            {
                "model": str(model),
                "gguf": str(gguf),
                "intervention": probe.describe(),
                "content_hash": probe.content_hash,
                "prompts": list(prompts),
                **asdict(report),
            }
        )
    else:
        _print_report(report)
    if not report.holds:
        raise typer.Exit(1)


def _introduce(
    model: Path, gguf: Path, gguf_type: str, probe: Intervention, *, from_file: bool
) -> None:
    say("reference", f"{model} in transformers, f32")
    say("compared", f"{gguf} in llama.cpp, {gguf_type} with an f32 cache")
    origin = "" if from_file else "; a probe made for this, as no --intervention was given"
    say("intervention", f"{probe.describe()}{origin}")


def _print_report(report: ParityReport) -> None:
    parts = {"all": report.overall, "prompt": report.prompt, "generated": report.generated}
    print(
        f"{'tokens':<16}{'off':>10}{'on':>10}{'argmax off':>12}{'argmax on':>11}"
        f"{'effect cos':>12}{'effect rms':>12}"
    )
    for name, part in parts.items():
        print(_row(f"{name} ({part.n_positions})", part))
    changes = report.relative_change.values()
    if changes:
        print(f"change by block: {min(changes):.3g}..{max(changes):.3g} of the residual norm")
    if report.bound.measure == "max_difference":
        rule = f"logits within {report.bound.value:g}"
    else:
        rule = f"effect cosine at least {report.bound.value:g}"
    print(f"{report.gguf_type}: {rule}: {'holds' if report.holds else 'DOES NOT HOLD'}")


def _row(label: str, part: Agreement) -> str:
    return (
        f"{label:<16}{part.off:>10.2e}{part.on:>10.2e}{part.argmax_off:>12.3f}"
        f"{part.argmax_on:>11.3f}{part.effect_cosine:>12.6f}{part.effect_rms:>12.4g}"
    )
