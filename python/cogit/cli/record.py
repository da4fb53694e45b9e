"""``cogit record``: the states of contrast pairs, written to a file or a folder of shards."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cogit.cli import infer_flags as flags
from cogit.cli.console import print_json, say
from cogit.cli.loading import BackendChoice, Dtype, ModelSource, Runtime, display_name, open_model
from cogit.cli.memory_flags import CheckMemory, Yes
from cogit.cli.outputs import Force, require_apart, require_writable

if TYPE_CHECKING:
    from cogit.backends import Backend
    from cogit.layers import LayerRange
    from cogit.pairs import ContrastPair

NAME = "record"
_FILE = ".safetensors"


class RowDtype(StrEnum):
    f32 = "f32"
    f16 = "f16"


class Moments(StrEnum):
    covariance = "covariance"
    variance = "variance"


@dataclass(frozen=True)
class _Wish:
    """What to record and where to; checked before a model is loaded."""

    out: Path
    layers: LayerRange | None
    hook_point: str
    select: str
    cache: Path | None
    resume: bool
    rows: RowDtype
    stats: Moments | None

    def require(self) -> None:
        """ValueError for flags that do not go together: none is ignored."""
        from cogit.hook_points import parse_hook_point
        from cogit.selection import Selection

        parse_hook_point(self.hook_point)
        selection = Selection.parse(self.select)
        single = self.out.suffix == _FILE
        if self.stats and not single:
            message = f"[out] expected a file {_FILE} with --stats, got {self.out}"
        elif self.stats and self.cache:
            message = "[cache] expected no --cache with --stats, which keep no rows; leave it out"
        elif single and self.resume:
            message = f"[resume] expected a folder as --out with --resume, got the file {self.out}"
        elif single and self.rows is not RowDtype.f32:
            message = (
                f"[row-dtype] expected a folder as --out for rows in {self.rows.value}, got the "
                f"file {self.out}"
            )
        elif single and not self.stats and not selection.averages:
            message = (
                f"[select] expected a folder as --out for {selection}, which keeps a row for each "
                f"token, got the file {self.out}"
            )
        else:
            return
        raise ValueError(message)


def command(
    pairs: Annotated[
        str,
        typer.Option(
            help="Contrast pairs: JSONL or CSV file (positive, negative, perhaps prompt); two text "
            "files a.txt,b.txt; dataset:NAME?split=train[:100]&positive=COLUMN&negative=COLUMN."
        ),
    ],
    out: Annotated[Path, typer.Option(help=f"Folder of shards, or one file *{_FILE}.")],
    backend: flags.Backend = BackendChoice.transformers,
    model: flags.Model = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Blocks, from 0, half-open: 24-32 is 24..31; 0,4,8-12; 50%-75%; middle; all.",
            show_default="all",
        ),
    ] = None,
    hook_point: Annotated[
        str,
        typer.Option(
            help="resid_pre, resid_mid, resid_post, attn_out, mlp_out, attn_norm, mlp_norm, or a "
            "name such as blocks.7.hook_resid_post. llamacpp: resid_post, resid_pre."
        ),
    ] = "resid_post",
    select: Annotated[
        str,
        typer.Option(
            help="Tokens of a text: last, tail-K (mean of the last K), answer (mean of what "
            "follows the prompt), all, after-first."
        ),
    ] = "tail-4",
    cache: Annotated[
        Path | None, typer.Option(help="Folder of earlier recordings, to read from and add to.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a folder that was not finished.")
    ] = False,
    row_dtype: Annotated[RowDtype, typer.Option(help="Type of the stored rows.")] = RowDtype.f32,
    stats: Annotated[
        Moments | None,
        typer.Option(
            help="Keep means and covariances, or variances, of each block instead of rows.",
            show_default="rows",
        ),
    ] = None,
    device: flags.Device = "auto",
    dtype: flags.Dtype = Dtype.f32,
    threads: flags.Threads = None,
    n_ctx: flags.Context = None,
    force: Force = False,
    yes: Yes = False,
    memory_check: CheckMemory = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Record a model's states on contrast pairs: one load, one pass for all blocks.

    A folder is written shard by shard, with bounded memory; --resume goes on after an interruption.
    """
    from cogit.layers import LayerRange
    from cogit.memory_estimate import Workload
    from cogit.pairs import load_pairs

    wish = _Wish(
        out=out,
        layers=None if layers is None else LayerRange.parse(layers),
        hook_point=hook_point,
        select=select,
        cache=cache,
        resume=resume,
        rows=row_dtype,
        stats=stats,
    )
    wish.require()
    source = ModelSource.choose(backend, model)
    inputs = {"pairs": pairs, "model": source.path, "cache": cache}
    if out.suffix == _FILE:
        require_writable({"out": out}, inputs, force=force)
    else:
        require_apart({"out": out}, inputs)
    loaded_pairs = load_pairs(pairs)
    say("pairs", f"{len(loaded_pairs)} from {pairs}")
    say("model", f"{display_name(source)} ({source.origin}) in {backend.value}")
    runtime = Runtime(device, dtype, threads, n_ctx, assume_yes=yes, check_memory=memory_check)
    texts = [text for pair in loaded_pairs for text in pair.texts]
    # Shards go to the disk; a single file is held whole.
    held = len(texts) if out.suffix == _FILE and stats is None else min(len(texts), 64)
    workload = Workload.of_texts(texts, recorded=held)
    with open_model(backend, source.path, runtime, workload=workload) as opened:
        started = time.perf_counter()
        facts = _record(opened, loaded_pairs, wish)
        facts["seconds"] = round(time.perf_counter() - started, 3)
    if json_output:
        print_json(facts)
    else:
        _print(facts)


def _record(backend: Backend, pairs: list[ContrastPair], wish: _Wish) -> dict[str, Any]:
    from cogit.activation_moments import record_moments
    from cogit.activations import record
    from cogit.recording import make_plan, record_to

    where: dict[str, Any] = {"hook_point": wish.hook_point, "select": wish.select}
    plan = make_plan(backend, pairs, wish.layers, **where)
    recipe, width = plan.recipe, backend.identity.d_model
    if wish.stats:
        diagonal = wish.stats is Moments.variance
        size = 2 * len(recipe.layers) * width * (1 if diagonal else width) * 8
        say("memory", f"{size / 1e6:.1f} MB for the {wish.stats.value} of every block and class")
        moments = record_moments(backend, pairs, wish.layers, diagonal=diagonal, **where)
        moments.save(wish.out)
        kind, size = f"{wish.stats.value} of states", wish.out.stat().st_size
    elif wish.out.suffix == _FILE:
        record(backend, pairs, wish.layers, cache=wish.cache, **where).save(wish.out)
        kind, size = "activations", wish.out.stat().st_size
    else:
        store = record_to(
            backend,
            pairs,
            wish.out,
            wish.layers,
            dtype=wish.rows.value,
            resume=wish.resume,
            cache=wish.cache,
            **where,
        )
        kind, size = f"activation store of {len(store.recipe.shards)} shards", store.size()
    return {
        "kind": kind,
        "out": str(wish.out),
        "bytes": size,
        "pairs": len(pairs),
        "tokens": plan.n_tokens,
        "rows": sum(1 if recipe.select.averages else end - begin for begin, end in plan.spans),
        "layers": list(recipe.layers),
        "hook_point": str(recipe.hook_point),
        "select": str(recipe.select),
        "model": recipe.identity.to_json(),
        "cache": None if wish.cache is None else str(wish.cache),
    }


def _print(facts: dict[str, Any]) -> None:
    from cogit.layers import describe_blocks

    where = f"{facts['hook_point']} of {describe_blocks(facts['layers'])}"
    print(f"{'recorded':<13}{where}, {facts['select']}")
    print(f"{'rows':<13}{facts['rows']} of {facts['pairs']} pairs, {facts['tokens']} tokens")
    print(f"{'written':<13}{facts['out']}: {facts['kind']}, {facts['bytes'] / 1e6:.2f} MB")
    print(f"{'time':<13}{facts['seconds']:.2f} s")
