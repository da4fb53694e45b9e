"""Two directions by the Born loss: inverses and polarity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from _born import encoded, gaussian, parts, projection, residual_states
from cogit.cayley import unitarity_deviation
from cogit.training.born_config import BornConfig
from cogit.training.born_pair import (
    DIRECTIONS,
    BornFit,
    OperatorPair,
    check_polarity,
    fit_born,
    polarity,
)
from cogit.training.cayley_module import DenseCayley

if TYPE_CHECKING:
    pass

RESIDUAL = BornConfig(epochs=40, learning_rate=5e-3)


@pytest.fixture(scope="module")
def residual() -> BornFit:
    """Both directions between classes of states like those of a residual stream."""
    return fit_born(*residual_states(), RESIDUAL, projection=projection())


@pytest.fixture(scope="module")
def inverse() -> BornFit:
    return fit_born(*residual_states(), RESIDUAL, projection=projection(), exact_inverse=True)


def test_the_inverse_is_exact(inverse: BornFit) -> None:
    """Row Q11: fidelity of U*U ψ at least 1 - 1e-5."""
    assert inverse.pair.exact_inverse
    assert list(inverse.results) == ["negative_to_positive"]
    assert inverse.round_trip == pytest.approx(1.0, abs=1e-5)
    states = torch.from_numpy(gaussian(np.random.default_rng(0), 50, 42)).to(torch.complex64)
    states = states / states.norm(dim=1, keepdim=True)
    assert inverse.pair.round_trip(states) == pytest.approx(1.0, abs=1e-5)
    there, back = (inverse.pair.unitary(direction) for direction in DIRECTIONS)
    assert np.array_equal(back, there.conj().T)


def test_two_trained_operators_are_no_exact_inverses(residual: BornFit) -> None:
    assert not residual.pair.exact_inverse
    assert list(residual.results) == list(DIRECTIONS)
    assert residual.round_trip < 1 - 1e-5
    for direction, result in residual.results.items():
        matrix = residual.pair.unitary(direction)
        assert np.array_equal(matrix, result.module.unitary().detach().numpy())
        assert unitarity_deviation(torch.from_numpy(matrix)) < 1e-4


def test_polarity_is_right(residual: BornFit, inverse: BornFit) -> None:
    """Row Q11."""
    for fit in (residual, inverse):
        assert fit.polarity.verdict == "right"
        assert min(fit.polarity.own) > 0.4
        assert max(fit.polarity.other) < 0
        found = check_polarity(fit.pair, *parts(fit))
        assert found == fit.polarity
        assert fit.to_json()["polarity"]["verdict"] == "right"


def test_swapped_names_are_detected(residual: BornFit, inverse: BornFit) -> None:
    """Row Q11: for two trained operators and for one with its inverse."""
    there, back = residual.pair.negative_to_positive, residual.pair.positive_to_negative
    assert back is not None
    for pair in (OperatorPair(back, there), OperatorPair(back)):
        assert polarity(pair, *parts(residual)).verdict == "swapped"
        with pytest.raises(ValueError, match=r"^\[polarity\] expected .*two names swapped .*; exc"):
            check_polarity(pair, *parts(residual))
    swapped = DenseCayley.from_unitary(torch.from_numpy(inverse.pair.unitary(DIRECTIONS[1])))
    with pytest.raises(ValueError, match="swapped"):
        check_polarity(OperatorPair(swapped.eval()), *parts(inverse))


def test_an_operator_that_does_nothing_has_no_polarity(residual: BornFit) -> None:
    still = DenseCayley(42, spread=0.0).eval()
    for pair in (OperatorPair(still), OperatorPair(still, still)):
        assert polarity(pair, *parts(residual)).verdict == "unclear"
        with pytest.raises(ValueError, match=r"^\[polarity\] expected .*no clear direction"):
            check_polarity(pair, *parts(residual))
    # One good and one idle direction is no good pair.
    pair = OperatorPair(residual.pair.negative_to_positive, still)
    assert polarity(pair, *parts(residual)).verdict == "unclear"


def test_a_global_phase_changes_no_polarity(inverse: BornFit) -> None:
    """The Born loss leaves it free."""
    phase = torch.tensor(np.exp(0.5j), dtype=torch.complex64)
    turned = DenseCayley.from_unitary(
        phase * torch.from_numpy(inverse.pair.unitary("negative_to_positive"))
    )
    found = polarity(OperatorPair(turned.eval()), *parts(inverse))
    np.testing.assert_allclose(found.own, inverse.polarity.own, atol=1e-3)


def test_encoded_states_do_without_a_projection(inverse: BornFit) -> None:
    negative, positive = (encoded(rows, projection()) for rows in residual_states())
    fit = fit_born(negative, positive, RESIDUAL, exact_inverse=True)
    # The encoding is normalised before or after the states are handed over.
    np.testing.assert_allclose(
        fit.results["negative_to_positive"].loss_history,
        inverse.results["negative_to_positive"].loss_history,
        atol=1e-5,
    )
    assert fit.projection is None
    assert inverse.projection is not None
