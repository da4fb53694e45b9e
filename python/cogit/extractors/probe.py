"""A supervised linear probe, and what it says about texts that it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.extractors.base import Extraction, measured, register

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.float64]

# Largest entry of the gradient of the mean loss at which the weights count as found.
_CONVERGED = 1e-5


@register("probe")
def probe(
    positive: Rows, negative: Rows, /, *, penalty: float = 1.0, folds: int = 5, seed: int = 0
) -> Extraction:
    """Weights of an L2-penalised logistic regression on single states, as a unit direction.

    positive, negative: (pair, d_model) float64. penalty: of the squared weights, above zero, on
    states centred and scaled by one number to unit root mean square; 1 is the usual C = 1.
    folds: of the cross-validation, at most one a pair. seed: draws the folds.

    ``details`` holds ``accuracy``, the share of held-out states that are classified rightly, beside
    ``chance`` = 0.5 and ``chance_95``, which guessing exceeds once in 20 times at most. Pairs are
    what is held out: both texts of a pair share most of their content, and with one of them in the
    training set the other would not be unseen. The direction comes from all pairs.

    Alain and Bengio 2016; Hewitt and Liang 2019 on why accuracy needs a control. Solved in the
    span of the states, where the optimum lies whatever d_model. LinAlgError where the weights are
    zero or not found.
    """
    n_pairs, d_model = positive.shape
    if n_pairs < 2 or folds < 2:
        message = f"[probe] expected at least 2 pairs and 2 folds, got {n_pairs} and {folds}"
        raise ValueError(message)
    if not (penalty > 0 and np.isfinite(penalty)):
        message = f"[probe] expected a finite penalty above zero, got {penalty}"
        raise ValueError(message)
    states = np.concatenate([positive, negative])
    states -= states.mean(axis=0)
    labels = np.repeat([1.0, -1.0], n_pairs)
    axes, coordinates = None, states
    if d_model > len(states):
        axes, triangle = np.linalg.qr(states.T)
        coordinates = triangle.T
    weights, _ = _fit(coordinates, labels, penalty, d_model)
    if axes is not None:
        weights = axes @ weights
    length = float(np.linalg.norm(weights))
    if not length > 0:
        message = "[probe] expected classes that a plane separates better than chance, got none"
        raise np.linalg.LinAlgError(message)
    details = _held_out(coordinates, labels, min(folds, n_pairs), seed, penalty, d_model)
    details["penalty"] = float(penalty)
    return measured("probe", weights[None] / length, np.ones(1), positive, negative, details)


def _held_out(
    coordinates: Rows, labels: Rows, folds: int, seed: int, penalty: float, width: int
) -> dict[str, Any]:
    """Accuracy on pairs that were left out, in turn."""
    from scipy.stats import binom

    n_pairs = len(labels) // 2
    order = np.random.default_rng(seed).permutation(n_pairs)
    right = np.empty(2 * n_pairs, dtype=bool)
    for held in np.array_split(order, folds):
        test = np.concatenate([held, held + n_pairs])
        train = np.setdiff1d(np.arange(2 * n_pairs), test)
        weights, offset = _fit(coordinates[train], labels[train], penalty, width)
        right[test] = labels[test] * (coordinates[test] @ weights + offset) > 0
    return {
        "accuracy": float(right.mean()),
        "chance": 0.5,
        # A pair counts as one guess: the two in it are not independent.
        "chance_95": float(binom.ppf(0.95, n_pairs, 0.5)) / n_pairs,
        "folds": folds,
    }


def _fit(coordinates: Rows, labels: Rows, penalty: float, width: int) -> tuple[Rows, float]:
    """Weights (r,) and offset for states as given, fitted on centred and scaled ones."""
    centre = coordinates.mean(axis=0)
    x = coordinates - centre
    scale = float(np.sqrt((x**2).sum() / (len(x) * width)))
    if not scale > 0:
        message = "[probe] expected states that differ, got the same state everywhere"
        raise np.linalg.LinAlgError(message)
    weights, offset = _logistic(x / scale, labels, penalty)
    return weights / scale, offset - float(weights @ centre) / scale


def _logistic(x: Rows, labels: Rows, penalty: float) -> tuple[Rows, float]:
    """argmin Σ log(1 + exp(-y (x w + b))) + penalty |w|²/2, the sum taken as a mean."""
    from scipy.optimize import minimize
    from scipy.special import expit

    n = len(x)

    def loss(parameters: Rows) -> tuple[float, Rows]:
        weights, offset = parameters[:-1], parameters[-1]
        margin = labels * (x @ weights + offset)
        slope = -labels * expit(-margin) / n
        value = np.logaddexp(0, -margin).mean() + penalty / (2 * n) * (weights @ weights)
        gradient = np.append(x.T @ slope + penalty / n * weights, slope.sum())
        return float(value), gradient

    start = np.zeros(x.shape[1] + 1)
    options = {"maxiter": 5000, "maxfun": 10000, "ftol": 1e-14, "gtol": 1e-8}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    # The line search may give up within rounding of the optimum: the gradient tells.
    steepest = float(np.abs(found.jac).max())
    if not steepest <= _CONVERGED:
        message = f"[probe] expected a fit that converges, got a gradient of {steepest:.1e}"
        raise np.linalg.LinAlgError(message)
    return np.asarray(found.x[:-1]), float(found.x[-1])
