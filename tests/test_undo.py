"""Undo ratio, transport and round trip of operators that are known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from _models import D_MODEL, planted, rows, turn
from cogit.evaluation.round_trip import UNINFORMATIVE, round_trip, unitary_facts
from cogit.evaluation.transport import transport
from cogit.evaluation.undo import by_affine, by_inverse, undo_ratio
from cogit.operators import (
    Ablation,
    Additive,
    Dense,
    Diagonal,
    Operator,
    Unitary,
    registered,
)
from cogit.subspace import Subspace, fit_subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

ANGLES = (15.0, 30.0, 60.0, 75.0, 90.0)


@pytest.fixture(scope="module")
def subspace() -> Subspace:
    return fit_subspace(planted(separation=3.0), 0, k=2)


def on_the_line(subspace: Subspace, *levels: float) -> list[NDArray[np.float64]]:
    """Tokens at multiples of the half separation along u: 0 is neutral, ±1 are the classes."""
    along = np.outer(np.array(levels) * subspace.half_separation, subspace.direction)
    return [subspace.mean + along]


# ---- undo ratio ----


@pytest.mark.parametrize("level", [-1.0, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("angle", ANGLES)
def test_undo_ratio_of_the_adjoint_rotation(subspace: Subspace, angle: float, level: float) -> None:
    """N7: the formula on the line through the classes; 1 - cos θ for neutral tokens.

    x → x cos θ + s sin θ and back by -θ. Over tokens of all levels this averages to the .25, .35,
    .70 and 1.05 that were measured on language models at 15, 30, 60 and 90 degrees.
    """
    operator = Unitary.fit(subspace, angle=angle)
    states = on_the_line(subspace, level)
    found = undo_ratio(operator.fold(1.0), by_affine(operator.fold(-1.0)), states)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    edit = (cosine - 1) * level + sine
    rest = (cosine**2 - 1) * level + sine * (cosine - 1)
    if abs(edit) < 1e-9:  # a class on which 90° has nothing to do
        assert found.ratio is None
        return
    assert found.ratio is not None
    assert found.ratio.mean == pytest.approx(abs(rest / edit), abs=2e-5)
    assert found.median == pytest.approx(found.ratio.mean)
    if level == 0.0:
        assert found.ratio.mean == pytest.approx(1 - cosine, abs=2e-5)


def test_undo_ratio_of_an_additive_vector_is_zero(subspace: Subspace) -> None:
    operator = Additive.fit(subspace)
    states = [rows(9, subspace.mean.size, seed) for seed in range(4)]
    found = undo_ratio(operator.fold(1.0), by_affine(operator.fold(-1.0)), states)
    assert found.ratio is not None
    assert found.ratio.high < 1e-5
    assert (found.n_tokens, found.n_counted, found.note) == (36, 36, "")


@pytest.mark.parametrize("kind", registered())
def test_the_own_inverse_undoes_every_family(kind: str) -> None:
    operator = registered()[kind].example(D_MODEL, 1)
    states = [4 * rows(9, D_MODEL, seed) for seed in range(3)]
    fold = operator.fold(0.4)
    found = undo_ratio(fold, by_inverse(operator.inverse(0.4)), states)
    assert found.ratio is not None
    # The edit is made in float32, a hundredth or more of the state; the rest is its rounding.
    assert found.ratio.high < 1e-3
    shuffled = undo_ratio(fold, by_inverse(operator.inverse(0.4)), states, shuffle=3)
    assert shuffled.ratio is not None
    assert shuffled.ratio.low > 0.3


def test_small_edits_have_no_ratio(subspace: Subspace) -> None:
    """Below the floor a ratio is noise: it is not given, and the report says how many."""
    states = [rows(9, subspace.mean.size)]
    tiny = Additive(1e-4 * subspace.steering_vector)
    found = undo_ratio(tiny.fold(1.0), by_affine(tiny.fold(-1.0)), states)
    assert (found.ratio, found.median, found.n_counted) == (None, None, 0)
    assert found.note == "9 of 9 tokens below the edit floor of 0.001"
    mixed = [np.concatenate([states[0], 1e6 * states[0]])]
    some = undo_ratio(*(f(subspace) for f in (forward, backward)), mixed)
    assert (some.n_tokens, some.n_counted) == (18, 9)


def forward(subspace: Subspace) -> Any:
    return Additive.fit(subspace).fold(1.0)


def backward(subspace: Subspace) -> Any:
    return by_affine(Additive.fit(subspace).fold(-1.0))


def test_tokens_that_determine_no_state_are_counted_out() -> None:
    operator = turn(restore=True)
    states = [np.concatenate([rows(6, D_MODEL), 1e-3 * rows(6, D_MODEL)])]
    found = undo_ratio(operator.fold(0.5), by_inverse(operator.inverse(0.5)), states)
    assert found.n_counted < 12
    assert "do not determine a state" in found.note


# ---- transport ----


def test_transport_of_known_operators(subspace: Subspace) -> None:
    """u·(S₊ - S₋) / 4s: half the vector's length in units of s, and sin θ / 2 of a rotation."""
    states = [rows(9, subspace.mean.size, seed) for seed in range(5)]
    u, s = subspace.direction, subspace.half_separation

    def value(operator: Operator, strength: float = 1.0) -> float:
        return transport(operator, states, u, s, strength=strength).mean

    assert value(Additive.fit(subspace)) == pytest.approx(0.5, abs=1e-5)
    assert value(Additive.fit(subspace), -2.0) == pytest.approx(-1.0, abs=1e-5)
    for angle in ANGLES:
        expected = 1.5 * math.sin(math.radians(angle)) / 2
        found = value(Unitary.fit(subspace, angle=angle, gain=1.5))
        assert found == pytest.approx(expected, abs=1e-5)
    across = Additive(subspace.basis[:, 1])
    assert value(across) == pytest.approx(0.0, abs=1e-6)
    # Even in λ: what it does to +λ it does to -λ, about states that are neutral on average.
    still = Ablation.fit(subspace)
    assert transport(still, on_the_line(subspace, -1.0, 1.0), u, s).mean == pytest.approx(
        0.0, abs=1e-6
    )


def test_transport_comes_with_an_interval(subspace: Subspace) -> None:
    operator = Unitary.fit(subspace, restore=True)
    states = [rows(5, subspace.mean.size, seed) for seed in range(20)]
    found = transport(operator, states, subspace.direction, subspace.half_separation)
    assert found.low < found.mean < found.high


def test_transport_by_a_way_back_of_its_own(subspace: Subspace) -> None:
    """S₋ is the reverse at the positive strength: s·u there and 3 s·u back are 1 in units of 4s."""
    v, s, u = subspace.steering_vector, subspace.half_separation, subspace.direction
    states = on_the_line(subspace, -1.0, 1.0)
    there, back = Additive(v), Additive(-3.0 * v)
    # Folds are float32.
    assert transport(there, states, u, s, reverse=back).mean == pytest.approx(1.0, abs=1e-5)
    assert transport(there, states, u, s, reverse=there).mean == pytest.approx(0.0, abs=1e-6)


def test_transport_refuses(subspace: Subspace) -> None:
    operator, u = Additive.fit(subspace), subspace.direction
    states = [rows(5, subspace.mean.size)]
    for arguments in (
        (states, 2 * u, 1.0),
        (states, u[:-1], 1.0),
        (states, u, 0.0),
        (states, u, math.nan),
        ([states[0][:, :-1]], u, 1.0),
        ([states[0][:0]], u, 1.0),
        ([], u, 1.0),
    ):
        with pytest.raises(ValueError, match=r"^\[(transport|bootstrap)\] expected "):
            transport(operator, *arguments)


# ---- the round trip ----


@pytest.mark.parametrize(
    "operator", [turn(), Diagonal.example(D_MODEL, 0), Dense.example(D_MODEL, 0)]
)
def test_any_unitary_with_its_adjoint_scores_one(operator: Operator) -> None:
    """Q28: so the figure is labelled as saying nothing, and stands beside its controls."""
    h = rows(50, D_MODEL)
    found = round_trip(operator, operator, h, (1.0, -1.0))
    assert len(found.fidelities) == 20
    assert found.space == "lifted"
    for value in (found.mean, found.min, found.max, found.identity):
        assert value == pytest.approx(1.0, abs=1e-9)
    assert found.std < 1e-9
    assert found.shuffled < 0.9
    assert found.note == UNINFORMATIVE
    facts = unitary_facts(operator, operator, (1.0, -1.0), found.mean)
    assert facts is not None
    assert facts.conjugate_test["frobenius_norm"] < 1e-8


def test_conjugate_test_is_relative_to_the_root_of_q() -> None:
    """Q28: 24.99 at q = 2000 is 0.56, not 6e-6; two random unitaries are 1.41 apart."""
    operator = Dense.example(D_MODEL, 0)
    q = operator.projection.quantum_dim
    turned = replace(operator, matrix=np.exp(0.57j) * operator.matrix.conj().T)
    facts = unitary_facts(operator, turned, (1.0, 1.0), 1.0)
    assert facts is not None
    expected = 2 * math.sin(0.57 / 2)
    assert facts.conjugate_test["relative"] == pytest.approx(expected, abs=1e-9)
    assert facts.conjugate_test["frobenius_norm"] == pytest.approx(expected * math.sqrt(q))
    h = rows(20, D_MODEL)
    # A phase is not seen by a fidelity, and yet is no adjoint.
    assert round_trip(operator, turned, h, (1.0, 1.0)).mean == pytest.approx(1.0)
    other = replace(
        operator, matrix=np.linalg.qr(np.random.default_rng(1).standard_normal((q, q)))[0]
    )
    facts = unitary_facts(operator, other, (1.0, 1.0), 0.0)
    assert facts is not None
    assert facts.conjugate_test["relative"] == pytest.approx(math.sqrt(2), abs=0.2)
    with pytest.raises(ValueError, match="expected two unitaries of one size"):
        unitary_facts(operator, Diagonal.example(D_MODEL, 0), (1.0, 1.0), 0.0)


def test_unitary_facts_have_the_logged_fields(subspace: Subspace) -> None:
    """Q29: unitarity deviation, fidelity, reversibility."""
    operator = Dense.fit(subspace, ratio=1.5)
    positive, negative = (
        subspace.mean + x @ subspace.basis.T for x in (subspace.positive, subspace.negative)
    )
    facts = unitary_facts(operator, operator, (1.0, -1.0), 0.98, (positive, negative))
    assert facts is not None
    assert facts.unitarity_deviation < 1e-10
    assert facts.reversibility == 0.98
    assert facts.fidelity is not None
    untrained = replace(operator, matrix=np.eye(operator.projection.quantum_dim))
    before = unitary_facts(untrained, untrained, (1.0, 1.0), 1.0, (positive, negative))
    assert before is not None
    assert before.fidelity is not None
    assert facts.fidelity > before.fidelity
    assert unitary_facts(Additive.fit(subspace), operator, (1.0, 1.0), 1.0) is None


def test_operators_without_states_go_round_the_residual_stream() -> None:
    found = round_trip(
        Additive.example(D_MODEL, 0), Additive.example(D_MODEL, 0), rows(7, D_MODEL), (1.0, -1.0)
    )
    assert (found.space, len(found.fidelities)) == ("residual", 7)
    assert found.mean == pytest.approx(1.0)
