"""``cogit quantised``: what fewer bits do to an intervention's effect, and to speed."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cogit.cli import quantised_flags
from cogit.cli.console import print_json, say
from cogit.cli.loading import BackendChoice, Dtype, ModelSource, Runtime, open_model
from cogit.cli.memory_flags import CheckMemory, Yes

if TYPE_CHECKING:
    from cogit.quantised import Comparison, Form, FormResult, Material

NAME = "quantised"
_NEUTRAL = 32
_PROMPTS = 8


class Bits(StrEnum):
    eight = "8bit"
    four = "4bit"


def command(
    intervention: Annotated[Path, typer.Option(help="Intervention file.")],
    pairs: quantised_flags.Pairs,
    model: quantised_flags.Model = None,
    gguf: quantised_flags.Gguf = None,
    bnb: Annotated[
        list[Bits] | None, typer.Option(help="Also in bitsandbytes, if installed; repeatable.")
    ] = None,
    neutral: quantised_flags.Neutral = None,
    prompts: quantised_flags.Prompts = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="New tokens to compare logits on.")] = 16,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds of interleaved timings.")] = 5,
    max_degradation: quantised_flags.MaxDegradation = 0.02,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    device: Annotated[str, typer.Option(help="Device of the reference and of bitsandbytes.")] = (
        "auto"
    ),
    dtype: Annotated[Dtype, typer.Option(help="Precision of the reference.")] = Dtype.f32,
    threads: quantised_flags.Threads = None,
    yes: Yes = False,
    memory_check: CheckMemory = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare steering in full precision with steering of the quantised model, side by side.

    Exits with 1 where a form's effect differs by --max-degradation or more, or where there is none.
    Speed is reported as measured here.
    """
    from cogit.intervention import Intervention
    from cogit.pairs import load_pairs
    from cogit.quantised import compare_forms
    from cogit.quantised_forms import full_form, gguf_source

    stored = Intervention.load(intervention)
    contrast = load_pairs(pairs)
    source = ModelSource.choose(BackendChoice.transformers, model).path
    wanted = gguf or ([] if bnb else ["q8_0"])
    files = [(name, gguf_source(name, source)) for name in wanted]
    texts = _texts(neutral, prompts)
    plain = Runtime(threads=threads, assume_yes=yes, check_memory=memory_check)
    runtime = replace(plain, device=device, dtype=dtype)
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cogit-gguf-")))
        made = [path or _make(source, name, temporary) for name, path in files]
        backend = stack.enter_context(open_model(BackendChoice.transformers, source, runtime))
        reference = full_form(source, backend, dtype.value)
        forms = [_gguf(path, plain, stack) for path in made]
        extra, absent = _bitsandbytes(source, bnb or [], device, stack)
        forms += extra
        material = _material(backend, contrast, texts, max_tokens, repeats)
        _introduce(reference, forms, stored.describe(), len(contrast))
        if not forms:
            message = f"[quantised] expected a form to compare, got none: {'; '.join(absent)}"
            raise ValueError(message)
        found = compare_forms(
            reference, forms, stored, material, threshold=max_degradation, seed=seed
        )
    if json_output:
        facts = {"model": source, "intervention": str(intervention), **found.to_json()}
        print_json({**facts, "content_hash": stored.content_hash, "not_measured": absent})
    else:
        _print(found, absent)
    if not found.holds:
        raise typer.Exit(1)


def _texts(neutral: Path | None, prompts: Path | None) -> tuple[list[str], list[str] | None]:
    from cogit.autofit import neutral_texts
    from cogit.text_files import read_lines

    texts, _ = neutral_texts(neutral)
    given = None if prompts is None else read_lines(prompts, "prompts", "a prompt")
    return (texts[:_NEUTRAL] if neutral is None else texts), given


def _material(
    backend: Any,
    contrast: Any,
    texts: tuple[list[str], list[str] | None],
    max_tokens: int,
    repeats: int,
) -> Material:
    from cogit.autofit import open_prompts
    from cogit.quantised import Material

    neutral, prompts = texts
    if prompts is None:
        prompts = (open_prompts(backend, contrast) or neutral)[:_PROMPTS]
    return Material(contrast, neutral, prompts, max_tokens, repeats)


def _make(model: str, kind: str, folder: Path) -> Path:
    from cogit.quantised_forms import make_gguf

    found = make_gguf(model, kind, folder)
    say("quantised", found.describe())
    return found.path


def _gguf(path: Path, runtime: Runtime, stack: ExitStack) -> Form:
    from cogit.quantised_forms import gguf_form

    return gguf_form(
        path, stack.enter_context(open_model(BackendChoice.llamacpp, str(path), runtime))
    )


def _bitsandbytes(
    model: str, wanted: list[Bits], device: str, stack: ExitStack
) -> tuple[list[Form], list[str]]:
    """The forms that can be had, and why the others cannot."""
    from cogit.errors import BackendMissingError
    from cogit.quantised_forms import bitsandbytes_form

    forms: list[Form] = []
    absent: list[str] = []
    for bits in wanted:
        try:
            form = bitsandbytes_form(model, bits.value, device)
        except BackendMissingError as error:
            absent.append(f"bitsandbytes {bits.value}: {error}")
            say("not measured", absent[-1])
            continue
        stack.enter_context(form.backend)
        forms.append(form)
    return forms, absent


def _introduce(reference: Form, forms: list[Form], intervention: str, n_pairs: int) -> None:
    say("reference", reference.name)
    say("compared", ", ".join(form.name for form in forms) or "nothing")
    say("intervention", f"{intervention}; {n_pairs} pairs")


def _print(found: Comparison, absent: list[str]) -> None:
    columns = [_column(result) for result in found.results]
    width = max(22, *(len(cell) + 2 for column in columns for cell in column.values()))
    for label in columns[0]:
        print(f"{label:<32}" + "".join(f"{column[label]:>{width}}" for column in columns))
    print("speed is of the engine too: with --gguf f32, llama.cpp stands beside transformers")
    for line in absent:
        print(f"not measured: {line}")
    if not found.has_effect:
        print("no effect of the reference: its interval holds zero, so nothing can be lost")
    for result in found.results[1:]:
        verdict = "holds" if result.holds and found.has_effect else "DOES NOT HOLD"
        print(f"{result.name}: effect within {found.threshold:.2%} of the reference's: {verdict}")


def _column(result: FormResult) -> dict[str, str]:
    effect, lost, speed = result.contrast, result.degradation, result.speed
    return {
        "": result.name,
        "file, MiB": f"{result.file_bytes / 2**20:.1f}" if result.file_bytes else "not known",
        "weights in memory, MiB": f"{result.weight_bytes / 2**20:.1f}",
        "contrast, nats a pair": f"{effect.mean:.4f} [{effect.low:.3f}, {effect.high:.3f}]",
        "lost of it": "nothing to lose"
        if lost is None
        else f"{lost.mean:.2%} [{lost.low:.2%}, {lost.high:.2%}]",
        "cosine of the effect": f"{result.effect_cosine:.6f}",
        "KL from reference, plain": f"{result.plain_kl:.2e}",
        "KL from reference, steered": f"{result.steered_kl:.2e}",
        "KL of steering, neutral texts": f"{result.neutral_kl:.4f}",
        "perplexity, plain": f"{result.perplexity:.3f}",
        "perplexity, steered": f"{result.steered_perplexity:.3f}",
        "generation, tokens/s": f"{speed.generation:.0f} (x{speed.generation_ratio:.2f})",
        "prefill, tokens/s": f"{speed.prefill:.0f} (x{speed.prefill_ratio:.2f})",
    }
