"""The earlier method: it trains to high fidelity, and does nothing to text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from _planted import PLANTED_LAYER, Run, run
from cogit import reference
from cogit.demo.arms import SOURCE_BLEND
from cogit.demo.source_method import RATIO, SourceMethod, train_source_method

if TYPE_CHECKING:
    from numpy.typing import NDArray

D_MODEL, N = 24, 50


def states(n: int = N, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, D_MODEL))
    values[:, 0] += 2.0
    return values.astype(np.float32)


def turned(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """A quarter turn in three planes."""
    turn = np.eye(D_MODEL, dtype=np.float32)
    for plane in range(0, 6, 2):
        turn[plane : plane + 2, plane : plane + 2] = [[0, -1], [1, 0]]
    return rows @ turn.T


def train(epochs: int, seed: int = 0) -> SourceMethod:
    return train_source_method(states(), turned(states()), seed=seed, epochs=epochs)


@pytest.fixture(scope="module")
def trained() -> SourceMethod:
    return train(20)


@pytest.fixture(scope="module")
def planted() -> Run:
    return run(connected=True)


def test_the_born_loss_falls_on_a_planted_rotation(trained: SourceMethod) -> None:
    fidelities = [train(0).fidelity, train(4).fidelity, trained.fidelity]
    assert fidelities == sorted(fidelities)
    # From a near-identity, whose fidelity is the squared overlap of states a turn apart, most of
    # the loss is gone. A random projection bends angles a little, so that 1 is out of reach.
    assert fidelities[0] < 0.6
    assert fidelities[-1] > 0.9


def test_fidelity_is_the_mean_squared_overlap(trained: SourceMethod) -> None:
    projection = trained.projection.numpy().astype(np.complex128)
    unitary = trained.unitary.numpy().astype(np.complex128)
    encoded = [rows @ projection for rows in (states(), turned(states()))]
    source, target = (e / np.linalg.norm(e, axis=1, keepdims=True) for e in encoded)
    overlaps = np.einsum("nq,nq->n", target.conj(), source @ unitary.T)
    # complex64 against complex128 over sums of q = 62 terms.
    assert trained.fidelity == pytest.approx((np.abs(overlaps) ** 2).mean(), abs=1e-5)


def test_the_trained_matrix_is_unitary(trained: SourceMethod) -> None:
    unitary = trained.unitary.numpy().astype(np.complex128)
    q = round(RATIO * D_MODEL)
    assert unitary.shape == (q, q)
    # A complex64 solve: 1e-6 is seen, and 1e-4 allows for a hundred times that.
    assert np.abs(unitary.conj().T @ unitary - np.eye(q)).max() < 1e-4


def test_columns_of_the_projection_have_unit_norm(trained: SourceMethod) -> None:
    norms = np.linalg.norm(trained.projection.numpy(), axis=0)
    # float32 division.
    np.testing.assert_allclose(norms, 1.0, atol=1e-6)


def test_training_is_seeded() -> None:
    one, same, other = train(2), train(2), train(2, seed=1)
    assert one.fidelity == same.fidelity
    assert np.array_equal(one.unitary.numpy(), same.unitary.numpy())
    assert not np.array_equal(one.projection.numpy(), other.projection.numpy())


def test_one_vector_serves_all_positions(trained: SourceMethod) -> None:
    rows = states(40, seed=1)
    operator = trained.operator(rows)
    vector = operator.shift
    for strength in (0.25, 0.5, 1.0):
        found = reference.affine_apply(operator.fold(strength), rows)
        expected = (1 - strength) * rows.astype(np.float64) + strength * vector
        # The fold is float32: half a unit in the last place of values of about 5.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.array_equal(reference.affine_apply(operator.fold(0.0), rows), rows)


def test_the_vector_is_the_decoded_mean_without_its_norm(trained: SourceMethod) -> None:
    rows = states(40, seed=1)
    projection = trained.projection.numpy().astype(np.complex128)
    encoded = rows.astype(np.float64).mean(axis=0) @ projection
    moved = trained.unitary.numpy().astype(np.complex128) @ (encoded / np.linalg.norm(encoded))
    expected = (moved @ np.linalg.pinv(projection)).real
    vector = trained.operator(rows).shift
    # complex64 against complex128, through a well-conditioned pseudo-inverse.
    np.testing.assert_allclose(vector, expected, rtol=0, atol=1e-5)
    # A unit state decodes to less than a unit vector: the length of the mean is forgotten.
    assert np.linalg.norm(vector) < 1.0
    longer = trained.operator(100 * rows).shift
    # The encoding is normalised in float32.
    np.testing.assert_allclose(longer, vector, rtol=0, atol=1e-5)


def test_on_the_planted_model_fidelity_is_high(planted: Run) -> None:
    assert set(planted.fidelity) == {"to_positive", "to_negative"}
    assert all(0.9 < value <= 1.0 for value in planted.fidelity.values())


def test_it_changes_states_and_lifts_nothing(planted: Run) -> None:
    interventions = planted.source.interventions
    assert interventions is not None
    for intervention in interventions.values():
        assert intervention.strength == SOURCE_BLEND
        with planted.backend.steer(intervention) as proof:
            assert proof is not None
            # Half of each state is replaced by next to nothing: 3 % of its norm at most.
            assert proof.relative_change[PLANTED_LAYER] == pytest.approx(SOURCE_BLEND, abs=0.03)
            assert proof.logit_change > 0
    found, unitary = planted.result("source"), planted.result("unitary")
    assert found.lift.contains(0.0)
    assert abs(found.lift.mean) < 3
    assert found.lift.high < unitary.lift.low
    assert abs(found.override.mean) < 3
