"""``cogit subspace``: the contrastive subspace of recorded states, one block or a table of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cogit.cli.console import print_json, say
from cogit.cli.outputs import Force, Inputs, require_writable
from cogit.cli.run_record import begin

if TYPE_CHECKING:
    from cogit.activations import Activations
    from cogit.subspace import Subspace

NAME = "subspace"
_ALL = "all"


class Method(StrEnum):
    contrastive_pca = "contrastive_pca"
    ensemble = "ensemble"
    mean_difference = "mean_difference"
    pca = "pca"
    probe = "probe"


class Weights(StrEnum):
    proportional = "proportional"
    softmax = "softmax"
    rank = "rank"


@dataclass(frozen=True)
class Request:
    """What the flags ask for."""

    method: str
    k: int
    alpha: float
    weights: Any
    temperature: float
    strict: bool


def command(
    activations: Annotated[Path, typer.Option(help="Recorded states of contrast pairs.")],
    layer: Annotated[int | None, typer.Option(help="Block to fit, from 0.")] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="Blocks to compare, without writing: all, 8-16, 50%-75%, middle."),
    ] = None,
    method: Annotated[
        Method, typer.Option(help="What finds the direction, the first column.")
    ] = Method.contrastive_pca,
    k: Annotated[int, typer.Option(min=1, help="Complex dimensions: 2k columns.")] = 4,
    alpha: Annotated[
        float, typer.Option(help="Weight of the variation that pairs have in common.")
    ] = 1.0,
    weights: Annotated[
        Weights | None, typer.Option(help="Weigh the columns by what they explain.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of --weights softmax.")] = 1.0,
    protect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[:COLUMNS]",
            help="Subspace file whose direction stays untouched, or whose first columns (a number "
            "or all); repeatable.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail where the method fails; never fall back.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="File to write; nothing is written without.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw the spectrum: .png, .svg, .pdf.")
    ] = None,
    force: Force = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find where two classes of recorded states differ, and by how much."""
    from cogit.activations import Activations

    if (layer is None) == (layers is None):
        message = "[subspace] expected --layer for one block or --layers for a table, one of them"
        raise ValueError(message)
    if layers is not None and (out is not None or plot is not None):
        message = "[subspace] expected --out and --plot with --layer only; --layers writes nothing"
        raise ValueError(message)
    request = Request(
        method.value, k, alpha, None if weights is None else weights.value, temperature, strict
    )
    kept = [name for one in protect or [] for name in (one, one.rpartition(":")[0]) if name]
    inputs: Inputs = {"activations": activations, "protect": kept}
    require_writable({"out": out, "plot": plot}, inputs, force=force)
    run = begin({"out": out, "plot": plot}, inputs, force=force)
    states = Activations.load(activations)
    protected = _protected(protect or [], states)
    with _warnings_as_lines():
        if layers is not None:
            _table(states, layers, protected, request, json_output=json_output)
            return
        assert layer is not None
        subspace = _fit(states, layer, protected, request)
        facts = _facts(subspace, states, request)
    if plot is not None:
        _draw(subspace, plot)
        facts["plot"] = str(plot)
    if out is not None:
        facts["file"] = str(subspace.save(out))
        facts["content_hash"] = subspace.content_hash
    run.finish()
    if json_output:
        print_json(facts)
    else:
        _print_facts(facts)


def _fit(states: Activations, layer: int, protected: Any, request: Request) -> Subspace:
    from cogit.subspace import fit_subspace

    return fit_subspace(
        states,
        layer,
        k=request.k,
        method=request.method,
        alpha=request.alpha,
        protected=protected,
        weights=request.weights,
        temperature=request.temperature,
        strict=request.strict,
    )


def _facts(subspace: Subspace, states: Activations, request: Request) -> dict[str, Any]:
    """What there is to know of one block, JSON-ready."""
    from cogit.extractors import extract

    lineage = subspace.lineage
    pair = states.at(subspace.layer)
    own = request.method == "probe" and not lineage["fallback"]
    probe = lineage["extractor"] if own else extract(*pair, "probe").details
    component = None
    if request.method == "contrastive_pca":
        leading = extract(*pair, "contrastive_pca", alpha=request.alpha)
        component = leading.angle_to_mean_difference
    return {
        "layer": subspace.layer,
        "hook_point": subspace.hook_point,
        "method": request.method,
        "alpha": lineage["alpha"],
        "k": request.k,
        "pairs": lineage["n_pairs"],
        "protected": lineage["n_protected"],
        "angle_to_mean_difference": lineage["angle_to_mean_difference"],
        "leading_component_angle": component,
        "half_separation": subspace.half_separation,
        "residual_norm": subspace.residual_norm,
        "spectrum": subspace.spectrum.tolist(),
        "weights": None if subspace.weights is None else subspace.weights.tolist(),
        "probe": {name: probe.get(name) for name in ("accuracy", "chance", "chance_95", "folds")},
        "agreement": lineage["extractor"] if request.method == "ensemble" else None,
        "fallback": lineage["fallback"],
        "reason": lineage["reason"],
        "model": subspace.identity.name,
    }


def _table(
    states: Activations, layers: str, protected: Any, request: Request, *, json_output: bool
) -> None:
    """One row a block. A block without a subspace has its reason; if none has one, that raises."""
    from cogit.layers import LayerRange
    from cogit.progress import track

    wanted = LayerRange.parse(layers)
    blocks: Sequence[int] = states.layers
    if wanted.blocks is not None:
        blocks = wanted.resolve(states.identity.n_layers)
    rows: list[dict[str, Any]] = []
    failures: list[ValueError] = []
    for block in track(blocks, "fitting"):
        states.at(block)  # a block that was not recorded is no row of the table
        try:
            rows.append(_facts(_fit(states, block, protected, request), states, request))
        except ValueError as error:
            failures.append(error)
            rows.append({"layer": block, "reason": str(error)})
    if len(failures) == len(rows):
        raise failures[0]
    if json_output:
        print_json({"method": request.method, "model": states.identity.name, "layers": rows})
        return
    print(
        f"{'block':>5}{'angle':>8}{'half separation':>17}{'of the norm':>13}"
        f"{'probe':>8}{'chance 95 %':>13}  at {states.hook_point}"
    )
    for row in rows:
        print(_row(row))


def _row(row: dict[str, Any]) -> str:
    if "half_separation" not in row:
        return f"{row['layer']:>5}  {row['reason']}"
    probe = row["probe"]
    accuracy = "failed" if probe["accuracy"] is None else f"{probe['accuracy']:.3f}"
    bound = "" if probe["chance_95"] is None else f"{probe['chance_95']:.3f}"
    line = (
        f"{row['layer']:>5}{row['angle_to_mean_difference']:>7.1f}°{row['half_separation']:>17.4g}"
        f"{row['half_separation'] / row['residual_norm']:>12.1%} {accuracy:>8}{bound:>13}"
    )
    return line + (f"  fell back: {row['reason']}" if row["fallback"] else "")


def _print_facts(facts: dict[str, Any]) -> None:
    probe = facts["probe"]
    share = facts["half_separation"] / facts["residual_norm"]
    lines = {
        "block": f"{facts['layer']} of {facts['model']}, {facts['pairs']} pairs, "
        f"{facts['hook_point']}",
        "method": f"{facts['method']}, alpha {facts['alpha']:g}, {2 * facts['k']} columns",
        "direction": f"{facts['angle_to_mean_difference']:.1f}° from the mean difference",
        "half separation": f"{facts['half_separation']:.4g}, {share:.1%} of a state's norm",
        "spectrum": ", ".join(f"{value:.4g}" for value in facts["spectrum"]),
    }
    if facts["leading_component_angle"] is not None:
        angle = facts["leading_component_angle"]
        lines["first component"] = f"{angle:.1f}° from the mean difference"
    if facts["protected"]:
        lines["protected"] = f"{facts['protected']} dimensions"
    if facts["weights"] is not None:
        lines["weights"] = ", ".join(f"{value:.3f}" for value in facts["weights"])
    if facts["agreement"]:
        angles = facts["agreement"]["angles"].items()
        lines["angles"] = "; ".join(f"{names} {value:.1f}°" for names, value in angles)
    if probe["accuracy"] is None:
        lines["probe"] = "failed"
    else:
        lines["probe"] = (
            f"{probe['accuracy']:.3f} on held-out pairs, chance {probe['chance']:g}, guessing "
            f"stays below {probe['chance_95']:.3f} in 95 % of cases"
        )
    if facts["fallback"]:
        lines["fell back"] = f"to the mean difference: {facts['reason']}"
    lines["file"] = facts.get("file", "none written; give --out")
    for name, text in lines.items():
        print(f"{name:<17}{text}")


def _protected(given: Sequence[str], states: Activations) -> Any:
    """The protected directions (p, d_model) of FILE or FILE:COLUMNS, or None."""
    import numpy as np

    from cogit.errors import ArtefactError
    from cogit.subspace import Subspace

    rows = []
    for one in given:
        name, _, count = one.rpartition(":")
        if not name or not (count == _ALL or count.isdecimal()):
            name, count = one, "1"
        loaded = Subspace.load(name)
        width, columns = loaded.basis.shape
        taken = columns if count == _ALL else int(count)
        if width != states.identity.d_model:
            message = (
                f"[protect] expected directions of width {states.identity.d_model}, got {width} "
                f"in {name}"
            )
            raise ArtefactError(message)
        if not 1 <= taken <= columns:
            message = f"[protect] expected 1..{columns} columns of {name} or all, got {count}"
            raise ValueError(message)
        rows.append(loaded.basis[:, :taken].T)
    return np.concatenate(rows) if rows else None


def _draw(subspace: Subspace, path: Path) -> None:
    """The spectrum of the further columns as bars."""
    from matplotlib.figure import Figure

    from cogit.artefact import write_bytes
    from cogit.figures import image_bytes

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(1, len(subspace.spectrum) + 1), subspace.spectrum, color="#1b6ca8")
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel("column after the direction")
    axes.set_ylabel("eigenvalue")
    axes.set_title(f"{subspace.lineage['method']}, block {subspace.layer}")
    write_bytes(path, image_bytes(figure, path.suffix))


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """cogit's warnings as lines on standard error."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        say("warning", " ".join(str(message).split()))

    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        warnings.showwarning = show
        yield
