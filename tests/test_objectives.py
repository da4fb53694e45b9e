"""The contrast-margin objective and the trained unitary behind it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from _plants import PLANTS, planted_states
from cogit.operators import Unitary
from cogit.operators.unitary_fits import power
from cogit.subspace import Subspace, fit_subspace
from cogit.training.flips import split_activations
from cogit.training.lifted import LiftedUnitary
from cogit.training.objectives import MarginSettings, fit_margin, margin_loss

# Sums of a few products of numbers near 1 in float64.
EXACT = 1e-10


@pytest.fixture(scope="module")
def subspace() -> Subspace:
    training, _ = split_activations(planted_states(PLANTS[4]), 0)
    return fit_subspace(training, 1, k=3)


def loss_of(operator: Unitary, subspace: Subspace, settings: MarginSettings) -> float:
    trained = LiftedUnitary(operator)
    states = torch.from_numpy(subspace.negative), torch.from_numpy(subspace.positive)
    loss, _ = margin_loss(
        trained.signal_map(1.0),
        trained.signal_map(-1.0),
        states,
        subspace.half_separation,
        settings,
    )
    return float(loss.detach())


# ---- the trained unitary ----


@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.0, 0.7, 1.0, 1.3])
def test_the_signal_map_is_the_operators(strength: float) -> None:
    operator = Unitary.example(40, 7)
    linear, shift = LiftedUnitary(operator).signal_map(strength)
    expected = operator.signal_map(strength)
    np.testing.assert_allclose(linear.detach().numpy(), expected[0], atol=EXACT)
    np.testing.assert_allclose(shift.detach().numpy(), expected[1], atol=EXACT)


@pytest.mark.parametrize("method", ["plane", "procrustes", "direct", "born"])
def test_training_starts_at_the_operator(subspace: Subspace, method: str) -> None:
    operator = Unitary.fit(subspace, method=method, angle=90.0, gain=1.5)  # type: ignore[arg-type]
    back = LiftedUnitary(operator).operator()
    np.testing.assert_allclose(back.matrix, operator.matrix, atol=EXACT)
    assert back.amplitude == operator.amplitude
    np.testing.assert_array_equal(back.basis, operator.basis)


def test_a_plane_needs_two_columns_and_says_so(subspace: Subspace) -> None:
    operator = Unitary.fit(subspace, angle=60.0)
    small = LiftedUnitary(operator, rank=2)
    np.testing.assert_allclose(small.operator().matrix, operator.matrix, atol=EXACT)
    with pytest.raises(ValueError, match=r"^\[lifted\] expected rank >= 2 for this start, got 1"):
        LiftedUnitary(operator, rank=1)
    with pytest.raises(ValueError, match=r"^\[lifted\] expected 1 <= rank <= 4, got 5"):
        LiftedUnitary(operator, rank=5)


def test_a_half_turn_is_no_start(subspace: Subspace) -> None:
    with pytest.raises(ValueError, match=r"^\[lifted\] expected a unitary without a half turn"):
        LiftedUnitary(Unitary.fit(subspace, angle=180.0))


def test_every_leaf_has_the_right_gradient(subspace: Subspace) -> None:
    """Against finite differences in float64, at a strength between the special ones."""
    trained = LiftedUnitary(Unitary.fit(subspace, method="procrustes", gain=1.5))

    def value(*leaves: torch.Tensor) -> torch.Tensor:
        trained.X, trained.Y, trained.log_gain = leaves
        linear, shift = trained.signal_map(0.6)
        weights = torch.linspace(-1, 1, linear.numel(), dtype=torch.float64)
        return (linear.reshape(-1) * weights).sum() + (shift**2).sum()

    assert torch.autograd.gradcheck(value, tuple(trained.leaves().values()), atol=1e-6)


def test_from_the_identity_there_is_a_gradient(subspace: Subspace) -> None:
    trained = LiftedUnitary(Unitary.fit(subspace, angle=0.0, gain=1.0))
    linear, shift = trained.signal_map(1.0)
    (linear.sum() + shift.sum()).backward()  # type: ignore[no-untyped-call]
    assert trained.X.grad is not None
    assert float(trained.X.grad.abs().max()) > 1e-3


# ---- the objective ----


def test_the_identity_is_the_worst_point(subspace: Subspace) -> None:
    """A plain overlap has the identity close to its best; here nothing gains less."""
    settings = MarginSettings()
    identity = loss_of(Unitary.fit(subspace, angle=0.0), subspace, settings)
    # mean relu(margin - 0)² / margin² and no price.
    assert identity == pytest.approx(1.0, abs=1e-12)
    losses = [
        loss_of(Unitary.fit(subspace, angle=a, gain=1.5), subspace, settings)
        for a in (10.0, 30.0, 60.0)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] < identity
    away = Unitary.fit(subspace, angle=-30.0, gain=1.5)
    assert loss_of(away, subspace, settings) > identity


def test_the_loss_by_hand(subspace: Subspace) -> None:
    """The formula of the module, with U^λ from the Schur form and plain NumPy."""
    settings = MarginSettings(margin=1.7, price=0.3)
    operator = Unitary.fit(subspace, method="procrustes", gain=1.5)
    expected = []
    for rows, sign in ((subspace.negative, 1.0), (subspace.positive, -1.0)):
        turned = power(operator.matrix, sign)
        z = rows[:, 0::2] + 1j * rows[:, 1::2]
        moved = z @ turned[1:, 1:].T + operator.amplitude * turned[1:, 0]
        change = (moved - z) / subspace.half_separation
        gain = sign * change[:, 0].real
        beside = (np.abs(change) ** 2).sum(axis=1) - change[:, 0].real ** 2
        missing = np.maximum(1.7 - gain, 0) / 1.7
        expected.append((missing**2).mean() + 0.3 * beside.mean())
    assert loss_of(operator, subspace, settings) == pytest.approx(np.mean(expected), abs=EXACT)


def test_training_lowers_the_loss_and_repeats(subspace: Subspace) -> None:
    first, second = (fit_margin(subspace, MarginSettings(steps=60)) for _ in range(2))
    losses = [row["loss"] for row in first.history]
    assert losses[0] == pytest.approx(1.0, abs=1e-12)
    assert losses[-1] < 0.3 * losses[0]
    np.testing.assert_array_equal(first.operator.matrix, second.operator.matrix)
    assert first.history == second.history
    # Most of what was asked for: 2 half separations.
    assert first.history[-1]["gain"] > 1.4


def test_what_was_learned_moves_the_reference_to_the_direction(subspace: Subspace) -> None:
    """The planted truth is one plane; the price keeps the other axes out of it."""
    matrix = fit_margin(subspace, MarginSettings(price=1.0)).operator.matrix
    column = np.abs(matrix[1:, 0])
    assert column[0] > 5 * column[1:].max()


@pytest.mark.parametrize("wrong", [{"margin": 0.0}, {"price": -1.0}, {"steps": 0}, {"gain": -1.0}])
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^\[margin\] expected positive settings"):
        MarginSettings(**wrong)  # type: ignore[arg-type]
