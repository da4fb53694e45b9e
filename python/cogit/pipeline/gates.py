"""Gates between phases: what must hold before the next one is run.

Each gate reads the files that its phase wrote, so that an old file, one of another run or a damaged
one cannot pass. The first check that fails stops the pipeline. No gate rests on a figure that the
identity or a fit to shuffled classes reaches too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.activations import Activations
from cogit.errors import ArtefactError, InterventionError
from cogit.pipeline import fit_phase, generate_phase, record_phase, reverse_phase
from cogit.pipeline.files import LINEAGE, read_json
from cogit.pipeline.plan import PHASES
from cogit.projection import Projection
from cogit.subspace import Subspace

if TYPE_CHECKING:
    from cogit.backends.base import Backend
    from cogit.pipeline.dims import Dims
    from cogit.pipeline.lineage import Lineage
    from cogit.pipeline.plan import Plan

_CAUGHT = (OSError, ValueError, KeyError, IndexError, TypeError, ArtefactError, InterventionError)
VERDICTS = ("effect", "effect beyond the budget", "no effect")
# Float32 logits of an edit of nothing; what the reverse report takes for rounding.
_STILL = 1e-5


@dataclass(frozen=True)
class Check:
    """One condition. expected, found: in words, the same for the same files."""

    name: str
    holds: bool
    expected: str
    found: str
    remedy: str = "run the phase again"


class GateFailed(RuntimeError):
    """A phase is not good enough for the next one."""

    def __init__(self, phase: str, check: Check) -> None:
        self.phase, self.check = phase, check
        super().__init__(
            f"gate P{PHASES.index(phase) + 1} ({phase}): {check.name}: expected {check.expected}, "
            f"found {check.found}; {check.remedy}"
        )


@dataclass(frozen=True)
class Context:
    """What a gate may know. run: the folder with all phases."""

    run: Path
    plan: Plan
    dims: Dims
    lineages: dict[str, Lineage]
    backend: Backend


def run_gate(phase: str, context: Context) -> list[Check]:
    """All checks of a phase, which hold; GateFailed with the first that does not."""
    done: list[Check] = []
    # One by one: a later check may rest on what an earlier one holds.
    for check in itertools.chain(_lineage(phase, context), _GATES[phase](context)):
        done.append(check)
        if not check.holds:
            raise GateFailed(phase, check)
    return done


def to_json(checks: list[Check]) -> list[dict[str, Any]]:
    """For the report."""
    return [{k: v for k, v in asdict(check).items() if k != "remedy"} for check in checks]


def _lineage(phase: str, context: Context) -> Iterator[Check]:
    expected = context.lineages[phase].fingerprint

    def found() -> str:
        return str(read_json(context.run / phase / LINEAGE)["fingerprint"])

    yield _compared("results of this run", expected, found)


def _compared(name: str, expected: str, found: Callable[[], str], remedy: str = "") -> Check:
    """A check of a value that may not be had at all."""
    remedy = remedy or "run the phase again"
    try:
        value = found()
    except _CAUGHT as error:
        return Check(name, False, expected, " ".join(str(error).split())[:200], remedy)
    return Check(name, value == expected, expected, value, remedy)


# ---- P1 ----


def _gate_record(context: Context) -> Iterator[Check]:
    folder, dims = context.run / "record", context.dims
    for name in (record_phase.FIT, record_phase.HELD_OUT):
        shape = f"{dims.layers} x width {dims.d_model}"
        yield _compared(f"states in {name}", shape, lambda name=name: _shape(folder / name))  # type: ignore[misc]
    if context.plan.trains:
        sizes = f"({dims.d_model}, {dims.q})"
        yield _compared(
            "projection",
            sizes,
            lambda: str(Projection.load(folder / record_phase.PROJECTION).matrix.shape),
        )
    else:
        for layer in dims.layers:
            yield _compared(
                f"subspace of block {layer}",
                f"block {layer}, width {dims.d_model}",
                lambda layer=layer: _space(folder / record_phase.subspace_name(layer)),  # type: ignore[misc]
            )
    yield _apart(folder)


def _shape(path: Path) -> str:
    states = Activations.load(path)
    return f"{states.layers} x width {states.identity.d_model}"


def _space(path: Path) -> str:
    subspace = Subspace.load(path)
    return f"block {subspace.layer}, width {subspace.identity.d_model}"


def _apart(folder: Path) -> Check:
    expected = f"p < {record_phase.LEVEL:g} at a block, by Holm, on held-out pairs"
    remedy = "give more pairs, or pairs that differ in what is to be steered"
    try:
        facts = read_json(folder / record_phase.SEPARATION)
        p = float(facts["p_holm"])
        found = f"p = {p:.2g} at block {facts['best_layer']}"
    except _CAUGHT as error:
        return Check("classes told apart", False, expected, str(error), remedy)
    return Check("classes told apart", p < record_phase.LEVEL, expected, found, remedy)


# ---- P2 ----


def _gate_fit(context: Context) -> Iterator[Check]:
    folder, dims, plan = context.run / "fit", context.dims, context.plan
    try:
        learned, opposite, _ = fit_phase.load_fitted(folder)
        facts = read_json(folder / fit_phase.FACTS)
        hashes = [learned.content_hash, None if opposite is None else opposite.content_hash]
        noted = [facts["hash"], facts["opposite_hash"]]
        fidelity, flips = dict(facts["fidelity"]), dict(facts["flips_of_both"])
        criteria = dict(facts["criteria"])
    except _CAUGHT as error:
        yield Check("operators of this run", False, "both directions", str(error)[:200])
        return
    yield Check(
        "operators of this run",
        hashes == noted and (opposite is not None) == plan.trains,
        "the operators that fit.json tells of, both directions",
        "the same" if hashes == noted else "others",
    )
    width, blocks = learned.identity.d_model, set(learned.layers) <= set(dims.layers)
    yield Check(
        "dimensions",
        width == dims.d_model and blocks,
        f"width {dims.d_model}, blocks among {dims.layers}",
        f"width {width}, blocks {learned.layers}",
    )
    yield from _directions(plan.min_fidelity, fidelity, flips)
    yield Check(
        "controls compared",
        len(criteria) > 0,
        "criteria that name the identity and shuffled classes",
        f"{len(criteria)} criteria",
    )
    for name, holds in criteria.items():
        yield Check(
            f"control margin: {name}",
            bool(holds),
            "better than the identity and fits to shuffled classes, on held-out pairs",
            "that" if holds else "no better",
            "give more pairs, or other blocks (--layers)",
        )


def _directions(least: float, fidelity: Any, flips: Any) -> Iterator[Check]:
    for direction in ("to_positive", "to_negative"):
        named = direction.replace("_", " ")
        row, flip = fidelity.get(direction) or {}, flips.get(direction) or {}
        trained = row.get("trained")
        good = isinstance(trained, float) and trained > least
        controls = (
            f"identity {_number(row.get('identity'))}, shuffled {_number(row.get('shuffled'))}"
        )
        yield Check(
            f"fidelity {named}",
            good,
            f"above {least:g}",
            f"{_number(trained)} ({controls})",
            "lower the gain or the strength",
        )
        rate, before = flip.get("rate"), flip.get("identity")
        moved = isinstance(rate, float) and isinstance(before, float) and rate > before
        yield Check(
            f"flips {named}",
            moved,
            "more held-out states carried over than lie there anyway",
            f"{_number(rate)}, identity {_number(before)}",
            "raise the gain or the strength",
        )


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "none"


# ---- P3 ----


def _gate_generate(context: Context) -> Iterator[Check]:
    folder = context.run / "generate"
    try:
        texts = read_json(folder / generate_phase.TEXTS)
        tokens = read_json(folder / generate_phase.TOKENS)["continuations"]
        results, config = texts["results"], texts["config"]
        learned = fit_phase.load_fitted(context.run / "fit")[0]
        arms = [len(results[0][way]) for way in generate_phase.WAYS]
    except _CAUGHT as error:
        yield Check("continuations", False, "some of both directions", str(error)[:200] or "none")
        return
    yield Check("continuations", min(arms) > 0, "some of both directions", f"{arms} strengths")
    yield Check(
        "operator and model",
        (config.get("intervention"), config.get("fingerprint"))
        == (learned.content_hash, context.backend.identity.fingerprint),
        "those of this run",
        f"{str(config.get('intervention'))[:8]} on {str(config.get('fingerprint'))[:8]}",
    )
    try:
        wrong = _miscut(results, tokens, context.backend)
    except _CAUGHT as error:
        wrong = " ".join(str(error).split())[:100] or "an incomplete list"
    yield Check(
        "cut by token ids",
        wrong is None,
        "every text to be the text of its ids, after the ids of its prompt",
        "that" if wrong is None else f"not so for {wrong}",
    )


def _miscut(results: list[Any], tokens: list[Any], backend: Backend) -> str | None:
    """The first continuation whose text is not that of its ids, or which is in one file only."""
    texts: dict[tuple[str, str | None, int], str] = {}
    for row, one in enumerate(results):
        texts["baseline", None, row] = one["baseline"]
        for way in generate_phase.WAYS:
            texts.update({(way, key, row): text for key, text in one[way].items()})
    for one in tokens:
        where = one["arm"], one["strength"], one["row"]
        text = texts.pop(where, None)
        prompt = results[one["row"]]["prompt"]
        if text != backend.detokenize(one["ids"]) or one["prompt_ids"] != backend.tokenize(prompt):
            return f"{where[0]} {where[1] or ''} of prompt {where[2]}"
    return f"{next(iter(texts))}, which has no ids" if texts else None


# ---- P4 ----


def _gate_evaluate(context: Context) -> Iterator[Check]:
    from cogit.pipeline.evaluate_phase import REPORT

    try:
        report = read_json(context.run / "evaluate" / REPORT)
        learned = fit_phase.load_fitted(context.run / "fit")[0]
        named = report["intervention"]["hash"], report["model"]["fingerprint"]
        verdict, arms = report["verdict"], report["arms"]
    except _CAUGHT as error:
        yield Check("evaluation of this run", False, "a report", str(error)[:200])
        return
    expected = learned.content_hash, context.backend.identity.fingerprint
    yield Check(
        "evaluation of this run",
        named == expected,
        f"operator {expected[0][:8]} on {expected[1][:8]}",
        f"operator {str(named[0])[:8]} on {str(named[1])[:8]}",
    )
    yield Check("verdict", verdict in VERDICTS, f"one of {', '.join(VERDICTS)}", str(verdict))
    roles = [arm.get("role") for arm in arms]
    needed = ["baseline", "learned", "identity", "strength_zero", "random"]
    missing = [role for role in needed if role not in roles]
    yield Check(
        "arms", not missing, ", ".join(needed), f"no {', '.join(missing)}" if missing else "all"
    )
    yield _exact(arms)


def _exact(arms: list[Any]) -> Check:
    """The controls that change nothing must give the unsteered texts, to the last one."""
    rates = [arm["positive_rate"] for arm in arms if arm["role"] == "baseline"]
    off = [
        arm["name"]
        for arm in arms
        if arm["role"] in ("identity", "strength_zero")
        and (arm["positive_rate"] not in rates or not _is_still(arm.get("neutral_kl")))
    ]
    return Check(
        "controls exact",
        not off,
        "identity and strength 0 to give what the unsteered model gives",
        f"{', '.join(off)} differ" if off else "that",
        "report this: a hook changes what it should not",
    )


def _is_still(kl: Any) -> bool:
    """What was not measured is not still."""
    return isinstance(kl, int | float) and kl <= _STILL


# ---- P5 ----


def _gate_reverse(context: Context) -> Iterator[Check]:
    try:
        report = read_json(context.run / "reverse" / reverse_phase.REPORT)
        learned = fit_phase.load_fitted(context.run / "fit")[0]
        layers, logits = report["layers"], report["logits"]
        blocks = [row["layer"] for row in layers]
        still = [row["identity"]["edit"] for row in layers]
        shuffled = [row["shuffled"]["n_tokens"] for row in layers]
        trips = [row["source_report"]["round_trip"] for row in layers]
        identity = [trip["identity"] for trip in trips], [trip["shuffled"] for trip in trips]
        kl = float(logits["identity"]["mean"])
    except _CAUGHT as error:
        yield Check("reverse report", False, "with its controls", str(error)[:200])
        return
    yield Check(
        "reverse report",
        report.get("content_hash") == learned.content_hash and blocks == list(learned.layers),
        f"operator {learned.content_hash[:8]} on {list(learned.layers)}",
        f"operator {str(report.get('content_hash'))[:8]} on {blocks}",
    )
    yield Check(
        "identity control",
        max(still) == 0.0 and kl <= _STILL and all(abs(one - 1.0) < 1e-6 for one in identity[0]),
        "no edit, no KL and a round trip of 1",
        f"edit {max(still):g}, KL {kl:.2g}, round trip {min(identity[0]):.6f}",
    )
    yield Check(
        "shuffled control",
        min(shuffled) > 0 and all(isinstance(one, float) for one in identity[1]),
        "states compared with those of other tokens",
        f"{min(shuffled)} tokens, round trip {identity[1][0]}",
    )


_GATES: dict[str, Callable[[Context], Iterator[Check]]] = {
    "record": _gate_record,
    "fit": _gate_fit,
    "generate": _gate_generate,
    "evaluate": _gate_evaluate,
    "reverse": _gate_reverse,
}
