"""The arms of the demo: what is fitted, what it is calibrated over, and every control."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cogit.activations import Activations
from cogit.backends.base import Backend
from cogit.demo.source_method import train_source_method
from cogit.evaluation.calibrate import Candidate
from cogit.evaluation.evaluate import Arm
from cogit.intervention import Intervention
from cogit.operators import Additive, Operator, Unitary
from cogit.positions import Positions
from cogit.subspace import Subspace, fit_subspace

ANGLES = (60.0, 90.0)
GAINS = (1.0, 1.5, 2.0, 3.0, 4.0)
STRENGTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
# Random subspaces are judged by their mean, which needs more draws than a comparison with each.
N_SAME_SUBSPACE, N_RANDOM_SUBSPACE = 8, 12
# The blend at which the earlier method is shown: half of every state is replaced.
SOURCE_BLEND = 0.5
_SOURCE_PAIRS = 50


def unitary_candidates(subspaces: list[Subspace]) -> list[Candidate]:
    """Plane rotations over layers, angles and gains."""
    return [
        _candidate(
            subspace,
            Unitary.fit(subspace, method="plane", angle=angle, gain=gain),
            {"angle": angle, "gain": gain},
        )
        for subspace in subspaces
        for angle in ANGLES
        for gain in GAINS
    ]


def additive_candidates(subspaces: list[Subspace]) -> list[Candidate]:
    """The mean difference over layers and strengths."""
    return [
        _candidate(subspace, Additive.fit(subspace), {"strength": strength}, strength)
        for subspace in subspaces
        for strength in STRENGTHS
    ]


def subspaces_of(activations: Activations) -> list[Subspace]:
    """The contrastive subspace of every recorded block."""
    return [fit_subspace(activations, layer) for layer in activations.layers]


def fixed_arms(unitary: Intervention, additive: Intervention) -> list[Arm]:
    """Plain model, both operators, and the two controls that must change nothing."""
    layer, operator = _only(unitary)
    identity = replace(operator, matrix=np.eye(len(operator.matrix), dtype=np.complex128))
    return [
        Arm("unsteered", None),
        Arm.both_ways("unitary", unitary),
        Arm.both_ways("additive", additive),
        Arm.both_ways("identity", replace(unitary, operators={layer: identity}), control=True),
        Arm.both_ways("strength_zero", unitary.at_strength(0.0), control=True),
    ]


def random_arms(unitary: Intervention, seed: int) -> dict[str, list[Arm]]:
    """The same angles about random axes of the subspace, and the same U in random subspaces."""
    layer, operator = _only(unitary)
    return {
        "random_same_subspace": [
            _control(unitary, layer, operator.randomised(seed + draw, "subspace"))
            for draw in range(N_SAME_SUBSPACE)
        ],
        "random_subspace": [
            _control(unitary, layer, operator.randomised(seed + 1000 + draw, "space"))
            for draw in range(N_RANDOM_SUBSPACE)
        ],
    }


def source_arm(
    backend: Backend,
    activations: Activations,
    layer: int,
    prompts: list[str],
    *,
    seed: int,
    epochs: int,
) -> tuple[Arm, dict[str, float]]:
    """The earlier system's method at a layer, one operator trained for each direction."""
    positive, negative = (states[:_SOURCE_PAIRS] for states in activations.at(layer))
    recorded = backend.residuals([backend.tokenize(prompt) for prompt in prompts], [layer])
    states = np.concatenate([block[0] for block in recorded])
    interventions: dict[int, Intervention] = {}
    fidelity: dict[str, float] = {}
    for sign, name, source, target in (
        (1, "to_positive", negative, positive),
        (-1, "to_negative", positive, negative),
    ):
        method = train_source_method(source, target, seed=seed, epochs=epochs)
        interventions[sign] = Intervention(
            {layer: method.operator(states)},
            activations.identity,
            SOURCE_BLEND,
            Positions(first_token=True),
        )
        fidelity[name] = method.fidelity
    return Arm("source", interventions), fidelity


def _candidate(
    subspace: Subspace, operator: Operator, fit: dict[str, float], strength: float = 1.0
) -> Candidate:
    settings = {"layer": subspace.layer, **fit}
    intervention = Intervention(
        {subspace.layer: operator},
        subspace.identity,
        strength,
        lineage={
            "made_by": "cogit demo",
            "fit": {"operator": operator.kind, **settings},
            "n_pairs": len(subspace.positive),
        },
    )
    return Candidate(settings, intervention)


def _control(unitary: Intervention, layer: int, operator: Operator) -> Arm:
    return Arm.both_ways("control", replace(unitary, operators={layer: operator}))


def _only(unitary: Intervention) -> tuple[int, Unitary]:
    ((layer, operator),) = unitary.operators.items()
    if not isinstance(operator, Unitary):
        message = f"[demo] expected a unitary operator, got {operator.kind}"
        raise TypeError(message)
    return layer, operator
