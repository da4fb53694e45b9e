"""Fitting a gate to states of two conditions, with what it is worth on texts it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.gates.gate import DEFAULT_FLOOR, Gate, Measure, Scope
from cogit.gates.rates import GateRates, Rate, accuracy, assess, deciding_states

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.gates.rates import States

    Texts = Sequence[States]
    Learn = Callable[[list[NDArray[np.float64]], list[NDArray[np.float64]]], Gate]

# Four texts of each condition can be labelled in 70 ways: fewer cannot reach the level.
_LEAST_HELD = 4
_LEAST_TEXTS = 2 * _LEAST_HELD
_LEVEL = 0.05
_SHUFFLES = 20
# A smooth gate's sigmoid reaches ±4 at the mean scores of the two conditions: .98 and .02.
_STEEPNESS = 8.0
_RIDGE = 1e-2
_ITERATIONS = 500
_CLEAR = 1e-10


@dataclass(frozen=True)
class GateFit:
    """A gate, what it does on held-out texts, and what chance does there.

    chance: the held-out accuracy of fits to shuffled labels, the mean and its range over 20
    shuffles. n_train: how many texts of each condition it was fitted on.
    """

    gate: Gate
    held_out: GateRates
    chance: Rate
    n_train: tuple[int, int]

    @property
    def decides(self) -> bool:
        """True where held-out texts are told apart: an AUC that shuffled labels rarely reach."""
        return self.held_out.auc_p <= _LEVEL

    def describe(self) -> str:
        """One line for people."""
        rates = self.held_out
        return (
            f"{self.gate.describe()}; held out: opens on {rates.true_positive} with the condition, "
            f"{rates.false_positive} without; accuracy {rates.accuracy}, shuffled labels "
            f"{self.chance.value:.3f}; AUC {rates.auc:.3f}, p {rates.auc_p:.3g}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "gate": self.gate.parameters(),
            "held_out": self.held_out.to_json(),
            "chance_accuracy": {
                "mean": self.chance.value,
                "least": self.chance.low,
                "largest": self.chance.high,
                "shuffles": self.chance.n,
            },
            "train_texts": {"on": self.n_train[0], "off": self.n_train[1]},
            "decides": self.decides,
        }


def fit_similarity_gate(
    on_states: Texts,
    off_states: Texts,
    *,
    measure: Measure = "cosine",
    smooth: bool = False,
    scope: Scope = "token",
    max_false_positive: float | None = None,
    floor: float = DEFAULT_FLOOR,
    held_out: float = 1 / 3,
    seed: int = 0,
    allow_chance: bool = False,
) -> GateFit:
    """A gate on the similarity of h − m to the mean difference of the conditions.

    on_states, off_states: one array (token, d_model) for each text with and without the condition,
    or one array (text, d_model). m is the middle of the two means. The threshold is the one that
    maximises true minus false positives on the training texts; max_false_positive bounds the share
    of their tokens without the condition that may open the gate. smooth: a sigmoid instead of a
    step. held_out: the share of texts kept for the rates.

    Raises ValueError for too few texts, states that are not finite, or conditions that the held-out
    texts cannot tell apart, unless ``allow_chance``.
    """
    if max_false_positive is not None and not 0 <= max_false_positive <= 1:
        message = f"[gate] expected max_false_positive in [0, 1], got {max_false_positive}"
        raise ValueError(message)

    def learn(on: list[NDArray[np.float64]], off: list[NDArray[np.float64]]) -> Gate:
        means = [np.concatenate(texts).mean(axis=0) for texts in (on, off)]
        difference = means[0] - means[1]
        length = np.linalg.norm(difference)
        # Equal means leave no direction; any one will be found to decide nothing.
        direction = difference / length if length > 0 else np.eye(len(difference))[0]
        gate = Gate(direction, (means[0] + means[1]) / 2, 0.0, "similarity", measure, scope=scope)
        scores = [gate.score(np.concatenate(texts)) for texts in (on, off)]
        threshold = best_threshold(scores[0], scores[1], max_false_positive)
        gap = float(scores[0].mean() - scores[1].mean())
        width = max(gap / _STEEPNESS, 1e-6) if smooth else 0.0
        return Gate(direction, gate.mean, threshold, "similarity", measure, width, floor, scope)

    on, off = _checked(on_states, off_states, scope)
    return _fit(learn, *_split(on, off, held_out, seed), seed, allow_chance)


def fit_learned_gate(
    on_states: Texts,
    off_states: Texts,
    *,
    n_coordinates: int = 8,
    scope: Scope = "token",
    floor: float = DEFAULT_FLOOR,
    held_out: float = 1 / 3,
    seed: int = 0,
    allow_chance: bool = False,
) -> GateFit:
    """A logistic regression on a few coordinates of the state.

    The coordinates are the mean difference and the first principal axes of the training states, so
    that n_coordinates + 1 numbers are learned whatever d_model is; they fold into one direction.
    Both conditions weigh the same, however many tokens each has, with an L2 penalty of 0.01 on the
    standardised coordinates. Otherwise as :func:`fit_similarity_gate`.
    """
    if n_coordinates < 1:
        message = f"[gate] expected n_coordinates >= 1, got {n_coordinates}"
        raise ValueError(message)
    on, off = _checked(on_states, off_states, scope)
    train, held = _split(on, off, held_out, seed)
    pooled = np.concatenate([*train[0], *train[1]])
    mean = pooled.mean(axis=0)
    # Without labels, so that fits to shuffled ones may share them.
    axes = _principal_axes(pooled - mean, n_coordinates - 1)

    def learn(on: list[NDArray[np.float64]], off: list[NDArray[np.float64]]) -> Gate:
        rows = [np.concatenate(texts) - mean for texts in (on, off)]
        difference = rows[0].mean(axis=0) - rows[1].mean(axis=0)
        length = np.linalg.norm(difference)
        first = difference / length if length > 0 else np.eye(len(mean))[0]
        basis = np.column_stack([first, axes])
        weights, bias = logistic(rows[0] @ basis, rows[1] @ basis)
        direction = basis @ weights
        if not direction.astype(np.float32).any():
            direction = first * 1e-6  # as good as none, but a gate needs one
        return Gate(direction, mean, -bias, "learned", "projection", 1.0, floor, scope)

    return _fit(learn, train, held, seed, allow_chance)


def best_threshold(
    on: NDArray[np.float64], off: NDArray[np.float64], max_false_positive: float | None = None
) -> float:
    """The threshold with the most true minus false positives (Youden 1950).

    It lies in the middle between two neighbouring scores, between the two farthest apart among
    equals. max_false_positive: the largest share of ``off`` that may reach the threshold.
    """
    scores = np.unique(np.concatenate([on, off]))
    gaps = np.diff(scores)
    middles = scores[:-1] + gaps / 2
    # Beyond all scores is a threshold too: there the gate stays closed.
    beyond = scores[-1] + max(float(gaps.max(initial=0.0)), 1e-3 * abs(scores[-1]), 1e-6)
    candidates = np.append(middles, beyond)
    sizes = np.append(gaps, 0.0)
    on_sorted, off_sorted = np.sort(on), np.sort(off)
    true = 1.0 - np.searchsorted(on_sorted, candidates) / len(on)
    false = 1.0 - np.searchsorted(off_sorted, candidates) / len(off)
    value = true - false
    if max_false_positive is not None:
        value = np.where(false <= max_false_positive, value, -np.inf)
    # Counts are whole numbers: what differs by less is the same share, rounded.
    best = value >= value.max() - 1e-12
    return float(candidates[np.where(best, sizes, -1.0).argmax()])


def logistic(
    on: NDArray[np.float64], off: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Weights and bias of a logistic regression, both classes weighing the same.

    on, off: (n, coordinate). Minimises the mean log loss plus 0.01/2 |weights|², in standardised
    coordinates; the problem is convex, so that there is one answer.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    rows = np.concatenate([on, off])
    middle, scale = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    x = (rows - middle) / scale
    sign = np.concatenate([np.ones(len(on)), -np.ones(len(off))])
    share = np.concatenate([np.full(len(on), 0.5 / len(on)), np.full(len(off), 0.5 / len(off))])

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, bias = values[:-1], values[-1]
        margin = sign * (x @ weights + bias)
        pull = -share * sign * expit(-margin)
        total = float(share @ np.logaddexp(0.0, -margin) + 0.5 * _RIDGE * weights @ weights)
        return total, np.append(x.T @ pull + _RIDGE * weights, pull.sum())

    found = minimize(
        loss,
        np.zeros(x.shape[1] + 1),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _ITERATIONS, "gtol": 1e-8, "ftol": 1e-14},
    )
    weights = found.x[:-1] / scale
    return np.asarray(weights), float(found.x[-1] - weights @ middle)


def _fit(
    learn: Learn,
    train: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]],
    held: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]],
    seed: int,
    allow_chance: bool,
) -> GateFit:
    gate = learn(*train)
    rates = assess(gate, *held)
    accuracies = []
    for shuffle in range(_SHUFFLES):
        rng = np.random.default_rng([seed, shuffle])
        control = learn(*_shuffled(train, rng))
        accuracies.append(accuracy(control, *held))
    chance = Rate(float(np.mean(accuracies)), min(accuracies), max(accuracies), _SHUFFLES)
    fit = GateFit(gate, rates, chance, (len(train[0]), len(train[1])))
    if not fit.decides and not allow_chance:
        message = (
            f"[gate] expected conditions that held-out texts tell apart, got an AUC of "
            f"{rates.auc:.3f} (chance 0.5, p {rates.auc_p:.2g}); choose another "
            f"block, give more texts or set allow_chance"
        )
        raise ValueError(message)
    return fit


def _shuffled(
    train: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]], rng: np.random.Generator
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """The same texts under labels drawn anew, as many of each."""
    texts = [*train[0], *train[1]]
    order = rng.permutation(len(texts))
    n_on = len(train[0])
    return [texts[i] for i in order[:n_on]], [texts[i] for i in order[n_on:]]


def _split(
    on: list[NDArray[np.float64]], off: list[NDArray[np.float64]], held_out: float, seed: int
) -> tuple[
    tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]],
    tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]],
]:
    """Training and held-out texts, split by text: tokens of one text are too much alike."""
    if not 0 < held_out < 1:
        message = f"[gate] expected a held-out share between 0 and 1, got {held_out}"
        raise ValueError(message)
    train: list[list[NDArray[np.float64]]] = []
    held: list[list[NDArray[np.float64]]] = []
    for number, texts in enumerate((on, off)):
        n_held = min(max(_LEAST_HELD, round(held_out * len(texts))), len(texts) - _LEAST_HELD)
        order = np.random.default_rng([seed, number]).permutation(len(texts))
        held.append([texts[i] for i in order[:n_held]])
        train.append([texts[i] for i in order[n_held:]])
    return (train[0], train[1]), (held[0], held[1])


def _checked(
    on: Texts, off: Texts, scope: Scope
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """The deciding states of each text; ValueError for what cannot be fitted."""
    made: list[list[NDArray[np.float64]]] = []
    widths: set[int] = set()
    for name, texts in (("on", on), ("off", off)):
        rows = [np.atleast_2d(np.asarray(text, np.float64)) for text in texts]
        if len(rows) < _LEAST_TEXTS:
            message = (
                f"[gate] expected at least {_LEAST_TEXTS} texts of each condition, got {len(rows)} "
                f"{name} the condition; half of them or fewer are held out"
            )
            raise ValueError(message)
        for text in rows:
            if text.ndim != 2 or text.size == 0 or not np.isfinite(text).all():
                message = (
                    f"[gate] expected finite states (token, d_model) for each text, got "
                    f"{text.shape} {name} the condition"
                )
                raise ValueError(message)
            widths.add(text.shape[1])
        made.append([deciding_states(scope, text) for text in rows])
    if len(widths) > 1:
        message = f"[gate] expected states of one width, got {sorted(widths)}"
        raise ValueError(message)
    return made[0], made[1]


def _principal_axes(centred: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """The first principal axes (d_model, up to n), by the smaller of the two Gram matrices."""
    rows, width = centred.shape
    n = min(n, rows - 1, width)
    if n < 1:
        return np.zeros((width, 0))
    wide = width > rows
    values, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    # Below this part of the largest an axis is rounding, and a fit would make it loud.
    kept = values[::-1][:n] > _CLEAR * values[-1]
    axes = vectors[:, ::-1][:, :n][:, kept]
    if wide:
        axes = centred.T @ axes
        axes /= np.linalg.norm(axes, axis=0)
    return np.asarray(axes)
