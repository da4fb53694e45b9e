"""What ``cogit fit`` found, as JSON and as people read it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cogit import autofit

if TYPE_CHECKING:
    from cogit.cli.fit_request import Outcome, Request

_TABLE_ROWS = 5


def facts_of(request: Request, outcome: Outcome) -> dict[str, Any]:
    """Everything that was found, as JSON."""
    found = outcome.intervention
    budget = request.budget
    overall, criteria = autofit.verdict(
        outcome.flips.values(), outcome.score, outcome.shuffled_contrast, budget
    )
    refined = outcome.refined
    return {
        "intervention": found.describe(),
        "file": str(request.out),
        "content_hash": found.content_hash,
        "layers": list(found.layers),
        "strength": found.strength,
        "settings": outcome.settings,
        "splits": outcome.splits,
        "flips": {str(layer): report.to_json() for layer, report in outcome.flips.items()},
        "in_sample_flips": {str(i): rate.to_json() for i, rate in outcome.in_sample.items()},
        "undo": {str(layer): one.to_json() for layer, one in outcome.undo.items()},
        "undo_on": "states it was fitted on" if outcome.in_sample else "held-out states",
        "shuffled_fits": {
            "strength": outcome.control_strength,
            "kind": "trained" if outcome.trained is not None else "fitted, not refined",
        },
        "contrast": None if outcome.score is None else outcome.score.to_json(),
        "shuffled_contrast": outcome.shuffled_contrast,
        "neutral_kl": outcome.neutral_kl,
        "neutral": outcome.neutral,
        "budget": {"target_nll_rise": budget.target_nll, "neutral_kl": budget.neutral_kl},
        "transport": {str(layer): asdict(value) for layer, value in outcome.transport.items()},
        "transport_on": outcome.transport_on,
        "table": [] if outcome.choice is None else list(outcome.choice.table),
        "refined": None
        if refined is None
        else {
            "steps_done": refined.steps_done,
            "best_step": refined.step,
            "before": refined.before.to_json(),
            "after": refined.after.to_json(),
        },
        "born": None if outcome.trained is None else outcome.trained.to_json(),
        "opposite_file": None if request.out_opposite is None else str(request.out_opposite),
        "criteria": criteria,
        "verdict": overall,
    }


def print_facts(facts: dict[str, Any]) -> None:
    """Effect, cost and controls side by side, and the verdict."""
    print(facts["intervention"])
    print(f"{'fit':<30}{_words(facts['settings'])}; pairs {_words(facts['splits'])}")
    _print_table(facts["table"])
    _print_refined(facts["refined"])
    if facts["born"] is not None:
        from cogit.cli.fit_born import print_born

        print_born(facts["born"], facts["opposite_file"])
    for layer, report in facts["flips"].items():
        where = f"held-out flips, block {layer}"
        print(f"{where:<30}{_rate(report['fitted'])}; own class kept {_rate(report['kept'])}")
        print(f"{'  identity':<30}{_rate(report['identity'])}")
        worst = report["shuffled_worst"]["rate"]
        kept = report["shuffled_kept"]["rate"]
        print(
            f"{'  shuffled classes':<30}{_rate(report['shuffled'])}, worst draw {worst:.2f}; own "
            f"class kept {kept:.3f}"
        )
        apart = report["apart"]
        print(
            f"{'  without steering':<30}the classes of {apart['n_pairs']} pairs are told apart "
            f"with p = {apart['p']:.2g}"
        )
    for layer, rate in facts["in_sample_flips"].items():
        print(f"{'flips, block ' + layer:<30}{_rate(rate)} of the states it was fitted on")
    if facts["refined"] is not None:
        print(
            f"{'  shuffled fits':<30}are closed forms, not refined, at strength "
            f"{facts['shuffled_fits']['strength']:.4g}, that of the refined operator"
        )
    for layer, ways in facts["undo"].items():
        _print_undo(layer, ways, facts["undo_on"])
    if facts["contrast"] is not None:
        _print_contrast(facts)
    if facts["neutral_kl"] is not None:
        print(f"{'neutral KL':<30}{facts['neutral_kl']:.4f} nats a token ({facts['neutral']})")
    for layer, value in facts["transport"].items():
        where = f"transport, block {layer}"
        print(
            f"{where:<30}{value['mean']:+.3f} [{value['low']:.3f}, {value['high']:.3f}] on "
            f"{facts['transport_on']}; identity 0"
        )
    for name, holds in facts["criteria"].items():
        print(f"[{'x' if holds else ' '}] {name}")
    print(f"verdict: {facts['verdict']}")


def _print_contrast(facts: dict[str, Any]) -> None:
    score = facts["contrast"]
    low, high = score["ci"]
    print(
        f"{'held-out contrast':<30}{score['contrast']:+.3f} [{low:.3f}, {high:.3f}] nats a pair; "
        f"identity 0"
    )
    controls = facts["shuffled_contrast"]
    if controls:
        print(
            f"{'  shuffled classes':<30}{sum(controls) / len(controls):+.3f} "
            f"({min(controls):+.3f} … {max(controls):+.3f})"
        )
    budget = facts["budget"]["target_nll_rise"]
    print(
        f"{'NLL rise of the target':<30}{score['target_nll_rise']:+.4f} nats a token "
        f"(budget {budget:g})"
    )


def _print_undo(layer: str, ways: dict[str, Any], states: str) -> None:
    """What is left of the edit after taking it back; 0 undoes it."""
    where = f"undo ratio, block {layer}"
    named = {"own inverse": ways["own_inverse"], "opposite": ways["opposite"]}
    for name, undo in named.items():
        if undo is None:
            found = f"none: {ways['own_inverse_refused']}"
        elif undo["ratio"] is None:
            found = f"none: {undo['note']}"
        else:
            ratio = undo["ratio"]
            note = f"; {undo['note']}" if undo["note"] else ""
            found = f"{ratio['mean']:.3g} [{ratio['low']:.3g}, {ratio['high']:.3g}]{note}"
        print(f"{where:<30}{name} {found} ({states})")
        where = ""


def _print_table(table: list[dict[str, Any]]) -> None:
    if not table:
        return
    print(f"choice among {len(table)}, by contrast:")
    chosen = next(i for i, row in enumerate(table) if _is_last_measured(table, i))
    for row in table[:_TABLE_ROWS]:
        print(f"  {_words(row)}")
    if chosen >= _TABLE_ROWS:
        print(f"  number {chosen + 1} is the first within the budget: {_words(table[chosen])}")
    if len(table) > _TABLE_ROWS:
        print("  all of them: --json")


def _is_last_measured(table: list[dict[str, Any]], index: int) -> bool:
    return "neutral_kl" in table[index] and not any(
        "neutral_kl" in row for row in table[index + 1 :]
    )


def _print_refined(refined: dict[str, Any] | None) -> None:
    if refined is None:
        return
    before, after = refined["before"], refined["after"]
    print(
        f"{'refined':<30}{refined['steps_done']} steps, best at {refined['best_step']}: contrast "
        f"on calibration pairs {before['contrast']:+.3f} (KL {before['neutral_kl']:.4f}) to "
        f"{after['contrast']:+.3f} (KL {after['neutral_kl']:.4f})"
    )


def _rate(rate: dict[str, Any]) -> str:
    low, high = rate["ci"]
    return f"{rate['rate']:.3f} [{low:.3f}, {high:.3f}]"


def _words(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )
