"""Every arm of an evaluation, the learned one and all that could explain its effect away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from cogit.evaluation.arms import Arm, Role, both_ways, flipped
from cogit.evaluation.subject import Subject, frame_of
from cogit.evaluation.thresholds import Settings
from cogit.intervention import Intervention
from cogit.operators import Additive, Diagonal, Operator
from cogit.operators.base import random_basis, random_direction

# Row Q50 names the seeds of its two controls.
DIAGONAL_SEEDS = (1234, 1235)
_SPREAD = 1_000_000
_DIAGONAL_PAIRS = 4
_ROUNDING = 1e-6  # of orthonormal bases


def all_arms(subject: Subject, settings: Settings, *, instructed: bool) -> list[Arm]:
    """The arms in the order of the report; strengths are not matched yet.

    instructed: the suite has instructions, so that they can be compared with steering.
    """
    towards = both_ways(subject.learned, subject.reverse)
    found = [Arm("baseline", "baseline"), Arm("learned", "learned", towards)]
    if settings.each_block and len(subject.learned.layers) > 1:
        for block in subject.learned.layers:
            alone = {sign: one.on_blocks([block]) for sign, one in towards.items()}
            found.append(Arm(f"learned at block {block} alone", "learned", alone))
    found.append(Arm("sign flipped", "sign_flipped", flipped(towards)))
    found.append(Arm("identity", "identity", _mapped(subject, lambda _, op: _identity(op))))
    resting = {sign: one.at_strength(0.0) for sign, one in towards.items()}
    found.append(Arm("strength zero", "strength_zero", resting))
    if subject.additive is not None:
        found.append(Arm("additive", "additive", both_ways(subject.additive)))
    if subject.source is not None:
        found.append(Arm("source", "source", both_ways(*subject.source)))
    found += [
        Arm("shuffled", "shuffled", both_ways(*pair), draw)
        for draw, pair in enumerate(subject.shuffled[: settings.n_shuffled])
    ]
    found += _draws(subject, settings, "space", settings.n_random)
    if has_subspace(subject):
        found += _draws(subject, settings, "subspace", settings.n_same_subspace)
    found += [
        Arm(f"diagonal {seed}", "diagonal", _diagonal(subject, seed), draw)
        for draw, seed in enumerate(DIAGONAL_SEEDS)
    ]
    if instructed:
        found.append(Arm("prompt only", "prompt_only", prompted=True))
        found.append(Arm("prompt and steer", "prompt_and_steer", towards, prompted=True))
    return found


def has_subspace(subject: Subject) -> bool:
    """Whether other operators of the family fit into the learned one's subspace at every block.

    The subspace of an additive operator is a line, in which only itself and its reverse lie; the
    contrastive subspace, where it is known, takes its place. That of a rotation's plane or of
    ablated directions holds nothing but these.
    """
    return all(
        _has_others(operator) or (_is_vector(operator) and frame_of(subject, layer) is not None)
        for layer, operator in subject.learned.operators.items()
    )


def _draws(
    subject: Subject, settings: Settings, space: Literal["space", "subspace"], count: int
) -> list[Arm]:
    role: Role = "random" if space == "space" else "random_same_subspace"
    name = "random" if space == "space" else "random in the same subspace"
    arms: list[Arm] = []
    for draw in range(count):
        seed = settings.seed * _SPREAD + draw + (1000 if space == "space" else 0)

        def other(layer: int, operator: Operator, seed: int = seed) -> Operator:
            if space == "subspace" and not _is_wide(operator):
                return _in_frame(subject, layer, operator, seed)
            return operator.randomised(seed, space)

        # The way back is the same draw reversed. Drawn anew by the same seed it may be the very map
        # of the way forth, which lifts one class by what it takes from the other: no control.
        forward = _mapped(subject, other)[1]
        arms.append(Arm(name, role, both_ways(forward), draw))
    return arms


def _mapped(
    subject: Subject, change: Callable[[int, Operator], Operator]
) -> dict[int, Intervention]:
    """Both directions of the learned one with every operator exchanged."""

    def of(one: Intervention) -> Intervention:
        operators = {layer: change(layer, operator) for layer, operator in one.operators.items()}
        return replace(one, operators=operators, lineage={})

    back = None if subject.reverse is None else of(subject.reverse)
    return both_ways(of(subject.learned), back)


def _identity(operator: Operator) -> Operator:
    return operator.identity(operator.d_model)


def _diagonal(subject: Subject, seed: int) -> dict[int, Intervention]:
    """Random phases, uniform over the circle, on the complex coordinates of the subspace."""

    def make(layer: int, operator: Operator) -> Operator:
        frame = frame_of(subject, layer)
        if frame is None:
            d_model = operator.d_model
            pairs = min(_DIAGONAL_PAIRS, d_model // 2)
            frame = np.zeros(d_model), random_basis(d_model, 2 * pairs, seed)
        mean, basis = frame
        phases = np.random.default_rng(seed).uniform(-np.pi, np.pi, basis.shape[1] // 2)
        return Diagonal(mean, basis, phases)

    # One and the same map turns forth and back; a way back of its own would be another draw.
    forward = _mapped(subject, make)[1]
    return both_ways(forward.at_strength(1.0))


def _is_wide(operator: Operator) -> bool:
    return bool(operator.span().shape[1] > 1)


def _has_others(operator: Operator) -> bool:
    """Whether a draw "of the subspace" stays in it; some families can only draw anywhere."""
    if not _is_wide(operator):
        return False
    own, drawn = operator.span(), operator.randomised(_SPREAD - 1, "subspace").span()
    outside = drawn - own @ (own.T @ drawn)
    return bool(np.linalg.norm(outside) <= _ROUNDING)


def _is_vector(operator: Operator) -> bool:
    fold = operator.fold(1.0)
    return fold.rank == 0 or not fold.B.any()


def _in_frame(subject: Subject, layer: int, operator: Operator, seed: int) -> Additive:
    """A vector as long as the operator's, in a random direction of the contrast's subspace."""
    frame = frame_of(subject, layer)
    assert frame is not None
    _, basis = frame
    length = float(np.linalg.norm(operator.fold(1.0).c))
    return Additive(length * basis @ random_direction(basis.shape[1], seed))
