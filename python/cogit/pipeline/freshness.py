"""Use a finished phase again, or make it anew? By lineage first, then by age."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cogit.pipeline.lineage import Lineage
from cogit.pipeline.plan import PHASES
from cogit.pipeline.state import RunState

FRESH_SECONDS = 3600.0
Ask = Callable[[str], bool]


@dataclass(frozen=True)
class Policy:
    """How to treat finished phases of the same lineage.

    resume: use them all, of any age, and do not ask. yes: use those younger than an hour and do not
    ask. force: make all of them anew, also over a run of another lineage. ask: a question to a
    person at a terminal, answered True for "use them"; None where nobody can answer, which is then
    treated as ``yes``: a run without a terminal never waits.
    """

    resume: bool = False
    yes: bool = False
    force: bool = False
    ask: Ask | None = None


@dataclass(frozen=True)
class Decision:
    """For each phase: is it used again, and the reason in words."""

    reuse: dict[str, bool]
    reasons: dict[str, str]


def require_same_lineage(state: RunState, lineages: dict[str, Lineage], policy: Policy) -> None:
    """ValueError where the folder holds a run of another lineage, unless it may be replaced."""
    if policy.force:
        return
    for phase in PHASES:
        record = state.phases.get(phase)
        if record is None or record.fingerprint == lineages[phase].fingerprint:
            continue
        different = lineages[phase].differences(record.lineage)
        message = (
            f"[lineage] expected a run of this lineage in {state.folder}, got one whose phase "
            f"{phase} is {record.fingerprint}, not {lineages[phase].fingerprint} "
            f"({'; '.join(different[:3]) or 'made on another phase before it'}); name another "
            f"folder, or pass --force to make it anew"
        )
        raise ValueError(message)


def decide(
    state: RunState, lineages: dict[str, Lineage], policy: Policy, phases: Sequence[str] = PHASES
) -> Decision:
    """Which of ``phases`` to use again. Asks once, for all that are fresh.

    A phase is made anew where it is missing, of another lineage or an hour old, where its files are
    not those that were written, and where a phase before it is made anew.
    """
    reuse: dict[str, bool] = {}
    reasons: dict[str, str] = {}
    broken = False
    for phase in phases:
        problem = "made anew, as a phase before it" if broken else state.problem(phase)
        if problem is None and state.phases[phase].fingerprint != lineages[phase].fingerprint:
            problem = "of another lineage"
        if problem is None and policy.force:
            problem = "--force"
        if problem is None and not policy.resume and _stale(state, phase):
            problem = "finished an hour ago or more"
        broken = problem is not None
        reuse[phase] = not broken
        reasons[phase] = problem or "finished, of the same lineage"
    usable = [phase for phase in phases if reuse[phase]]
    if usable and not (policy.resume or policy.yes) and policy.ask is not None:
        oldest = max(state.phases[phase].age for phase in usable)
        question = f"{', '.join(usable)} finished up to {max(oldest, 0) / 60:.0f} min ago; use"
        if not policy.ask(question):
            reuse = dict.fromkeys(reuse, False)
            reasons |= dict.fromkeys(usable, "asked for anew")
    return Decision(reuse, reasons)


def require_earlier(state: RunState, lineages: dict[str, Lineage], first: str) -> None:
    """ValueError unless every phase before ``first`` is finished, whole and of this lineage."""
    for phase in PHASES[: PHASES.index(first)]:
        problem = state.problem(phase)
        if problem is None and state.phases[phase].fingerprint != lineages[phase].fingerprint:
            problem = "of another lineage"
        if problem is None and state.phases[phase].gate is not True:
            problem = "not through its gate"
        if problem is not None:
            message = (
                f"[pipeline] expected a finished phase {phase} in {state.folder} before {first}, "
                f"got one that is {problem}; run it first"
            )
            raise ValueError(message)


def _stale(state: RunState, phase: str) -> bool:
    """Of an hour or more; a time in the future is no better than none, but seconds are rounded."""
    return not -1.0 <= state.phases[phase].age < FRESH_SECONDS
