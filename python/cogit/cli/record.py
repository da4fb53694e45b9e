"""``cogit record``: the states of contrast pairs, written to a file or a folder of shards."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.cli import flags, record_flags
from cogit.cli.console import print_json, say
from cogit.cli.loading import BackendChoice, Dtype, ModelSource, Runtime, display_name, open_model
from cogit.cli.memory_flags import CheckMemory, Yes
from cogit.cli.outputs import Force, require_apart, require_writable
from cogit.cli.record_flags import FILE, Moments, RowDtype
from cogit.cli.run_record import begin

if TYPE_CHECKING:
    from cogit.backends import Backend
    from cogit.layers import LayerRange
    from cogit.pairs import ContrastPair

NAME = "record"


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
        single = self.out.suffix == FILE
        if self.stats and not single:
            message = f"[out] expected a file {FILE} with --stats, got {self.out}"
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
    pairs: record_flags.Pairs,
    out: record_flags.Out,
    backend: flags.Backend = BackendChoice.transformers,
    model: flags.Model = None,
    layers: record_flags.Layers = None,
    hook_point: record_flags.HookPoint = "resid_post",
    select: record_flags.Select = "tail-4",
    cache: record_flags.Cache = None,
    resume: record_flags.Resume = False,
    row_dtype: record_flags.Rows = RowDtype.f32,
    stats: record_flags.Stats = None,
    device: flags.Device = "auto",
    dtype: flags.Dtype = Dtype.f32,
    threads: flags.Threads = None,
    n_ctx: flags.Context = None,
    force: Force = False,
    yes: Yes = False,
    memory_check: CheckMemory = True,
    json_output: flags.Json = False,
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
    if out.suffix == FILE:
        require_writable({"out": out}, inputs, force=force)
    else:
        require_apart({"out": out}, inputs)
    run = begin({"out": out}, {**inputs, "cache": None}, force=force or out.suffix != FILE)
    loaded_pairs = load_pairs(pairs)
    say("pairs", f"{len(loaded_pairs)} from {pairs}")
    say("model", f"{display_name(source)} ({source.origin}) in {backend.value}")
    runtime = Runtime(device, dtype, threads, n_ctx, assume_yes=yes, check_memory=memory_check)
    texts = [text for pair in loaded_pairs for text in pair.texts]
    # Shards go to the disk; a single file is held whole.
    held = len(texts) if out.suffix == FILE and stats is None else min(len(texts), 64)
    workload = Workload.of_texts(texts, recorded=held)
    with open_model(backend, source.path, runtime, workload=workload) as opened:
        started = time.perf_counter()
        facts = _record(opened, loaded_pairs, wish)
        facts["seconds"] = round(time.perf_counter() - started, 3)
    run.finish()
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
    elif wish.out.suffix == FILE:
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
