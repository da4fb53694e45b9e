"""A gate: how much of an operator's change a token gets, read off its own residual stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np

from cogit.entries import entry

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Kind = Literal["similarity", "learned", "random"]
Measure = Literal["projection", "cosine"]
Scope = Literal["token", "prompt"]
DEFAULT_FLOOR = 0.05
_EPS = float(np.finfo(np.float32).eps)
# What float32 may lose in a sum over d_model, in units of its rounding: the same allowance that
# the proof of application makes for a landed change.
_ROUNDINGS = 64.0


@dataclass(frozen=True, eq=False)
class Gate:
    """A factor in [0, 1] that multiplies an operator's change, before the norm is restored.

        score(h) = w·(h − m)                   measure "projection"
                 = w·(h − m) / (|w| |h − m|)   measure "cosine", 0 where h = m
        factor   = 1 where score ≥ t, else 0               width 0: a hard gate
                 = sigmoid((score − t) / width), and        width > 0: a smooth one
                   exactly 0 where the sigmoid is below the floor

    h is the state at the end of the operator's block, before the operator; a token whose factor is
    0 keeps its state bit for bit. A factor between 0 and 1 scales the change, not the angle of a
    rotation.

    scope "token" decides for each token by its own state. scope "prompt" decides once for a
    sequence, by the mean state of its prompt (the first token left out, as it is an attention
    sink), and holds that for every token, generated ones included. The whole prompt is seen before
    any of its tokens is steered, so early tokens of a prompt depend on later ones; without a stated
    prompt length a scored text is all prompt.

    direction: (d_model,) w. mean: (d_model,) m. Both, the threshold and the width are float32, so
    that every backend computes from the same numbers. kind: how it was made.

    A condition by similarity follows conditional activation steering (Lee et al. 2024,
    arXiv:2409.05907); the learned gate is a logistic regression.

    Raises ValueError or TypeError for values that make no gate.
    """

    direction: NDArray[np.floating[Any]]
    mean: NDArray[np.floating[Any]]
    threshold: float
    kind: Kind = "similarity"
    measure: Measure = "projection"
    width: float = 0.0
    floor: float = DEFAULT_FLOOR
    scope: Scope = "token"

    def __post_init__(self) -> None:
        for name in ("direction", "mean"):
            object.__setattr__(self, name, _vector(name, getattr(self, name)))
        if self.mean.shape != self.direction.shape:
            message = (
                f"[gate] expected mean and direction of one width, got {self.mean.size} and "
                f"{self.direction.size}"
            )
            raise ValueError(message)
        if not self.direction.any():
            message = "[gate] expected a direction other than zero; a gate reads its states by it"
            raise ValueError(message)
        for name, choices in (("kind", Kind), ("measure", Measure), ("scope", Scope)):
            if getattr(self, name) not in get_args(choices):
                message = (
                    f"[gate] expected {name} among {', '.join(get_args(choices))}, got "
                    f"{getattr(self, name)!r}"
                )
                raise ValueError(message)
        for name in ("threshold", "width", "floor"):
            with np.errstate(over="ignore"):
                object.__setattr__(self, name, float(np.float32(getattr(self, name))))
        if not (np.isfinite(self.threshold) and np.isfinite(self.width) and self.width >= 0):
            message = (
                f"[gate] expected a finite threshold and a finite width of at least 0, got "
                f"{self.threshold} and {self.width}"
            )
            raise ValueError(message)
        if not 0 <= self.floor < 1:
            message = f"[gate] expected a floor in [0, 1), got {self.floor}"
            raise ValueError(message)

    @property
    def d_model(self) -> int:
        return int(self.direction.size)

    @property
    def opening_score(self) -> float:
        """The score from which on the gate is open: where the sigmoid reaches the floor."""
        if self.width == 0.0:
            return self.threshold
        if self.floor == 0.0:
            return -np.inf
        logit = np.log(self.floor / (1.0 - self.floor))
        return float(np.float32(self.threshold + self.width * logit))

    def score(self, states: ArrayLike) -> NDArray[np.float64]:
        """Scores in float64. states: (..., d_model); returns (...,)."""
        centred = np.asarray(states, np.float64) - self.mean
        weights = self.direction.astype(np.float64)
        score = centred @ weights
        if self.measure == "cosine":
            norm = np.linalg.norm(centred, axis=-1) * np.linalg.norm(weights)
            score = np.divide(score, norm, out=np.zeros_like(norm), where=norm > 0)
        return np.asarray(score)

    def factor(self, score: ArrayLike) -> NDArray[np.float64]:
        """The factor of each score, in [0, 1]."""
        scores = np.asarray(score, np.float64)
        if self.width == 0.0:
            return np.asarray(scores >= self.threshold, np.float64)
        # tanh does not overflow where exp would.
        smooth: NDArray[np.float64] = 0.5 + 0.5 * np.tanh(
            0.5 * (scores - self.threshold) / self.width
        )
        return np.where(scores < self.opening_score, 0.0, smooth)

    def factors(self, states: ArrayLike, n_prompt: int) -> NDArray[np.float64]:
        """The factors of one sequence. states: (position, d_model); returns (position,)."""
        rows = np.asarray(states, np.float64)
        return self._spread(self.factor(self.score(self._read(rows, n_prompt))), len(rows))

    def bounds(
        self, states: ArrayLike, n_prompt: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The least and the largest factor that float32 may find, each (position,).

        They differ by nearly 1 where a hard gate's score is within rounding of its threshold.
        """
        rows = np.asarray(states, np.float64)
        read = self._read(rows, n_prompt)
        score = self.score(read)
        centred = np.linalg.norm(read - self.mean, axis=-1)
        # A mean over tokens rounds as its longest member does.
        size = centred
        if self.scope == "prompt":
            size = np.full_like(centred, np.linalg.norm(rows, axis=-1).max() + centred)
        slack = _ROUNDINGS * _EPS * size
        if self.measure == "projection":
            slack = slack * np.linalg.norm(self.direction.astype(np.float64))
        else:
            slack = np.divide(slack, centred, out=np.full_like(slack, 2.0), where=centred > 0)
        low, high = self.factor(score - slack), self.factor(score + slack)
        return self._spread(low, len(rows)), self._spread(high, len(rows))

    def can_open(self) -> bool:
        """False where no state gets any of the change: a cosine never exceeds 1."""
        return self.measure == "projection" or bool(self.factor(1.0) > 0)

    def randomised(self, seed: int, states: ArrayLike) -> Gate:
        """The control: a random direction, open for the same share of the given states.

        states: (n, d_model), of both conditions in the shares of interest.
        """
        rows = np.asarray(states, np.float64)
        own = self.score(rows)
        share = float((self.factor(own) > 0).mean())
        drawn = np.random.default_rng(seed).standard_normal(self.d_model)
        drawn *= np.linalg.norm(self.direction) / np.linalg.norm(drawn)
        control = replace(self, direction=drawn, kind="random")
        score = control.score(rows)
        spread = float(own.std())
        width = self.width * (float(score.std()) / spread if spread > 0 else 1.0)
        opening = float(np.quantile(score, 1.0 - share, method="higher"))
        if share in (0.0, 1.0):
            opening = float(score.min()) if share else float(np.nextafter(score.max(), np.inf))
        below = 0.0 if width == 0.0 or self.floor == 0.0 else np.log(self.floor / (1 - self.floor))
        return replace(control, threshold=opening - width * below, width=width)

    def describe(self) -> str:
        """A few words for people."""
        form = f"{self.measure} ≥ {self.threshold:.4g}"
        if self.width > 0.0:
            form = (
                f"sigmoid(({self.measure} − {self.threshold:.4g}) / {self.width:.4g}), 0 below "
                f"{self.floor:g}"
            )
        return f"{self.kind} gate, {form}, per {self.scope}"

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The arrays to save."""
        return {"direction": self.direction, "mean": self.mean}

    def parameters(self) -> dict[str, Any]:
        """The JSON values to save beside them."""
        return {
            "kind": self.kind,
            "measure": self.measure,
            "scope": self.scope,
            "threshold": self.threshold,
            "width": self.width,
            "floor": self.floor,
        }

    @classmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any]) -> Self:
        """The inverse of ``tensors`` and ``parameters``; KeyError, ValueError or TypeError."""
        names = {"kind": str, "measure": str, "scope": str}
        numbers = {"threshold": float, "width": float, "floor": float}
        values: dict[str, Any] = {
            name: entry(parameters, name, kind) for name, kind in (names | numbers).items()
        }
        return cls(tensors["direction"], tensors["mean"], **values)

    def _read(self, rows: NDArray[np.float64], n_prompt: int) -> NDArray[np.float64]:
        """The states that decide: each token's, or the one of the prompt."""
        if self.scope == "token":
            return rows
        end = max(1, min(n_prompt, len(rows)))
        return np.asarray(rows[min(1, end - 1) : end].mean(axis=0, keepdims=True))

    def _spread(self, values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        return values if self.scope == "token" else np.repeat(values, n)


def _vector(name: str, value: ArrayLike) -> NDArray[np.float32]:
    given = np.asarray(value)
    if given.dtype.kind not in "fiu":
        message = f"[gate] expected real numbers in {name}, got {given.dtype}"
        raise TypeError(message)
    with np.errstate(over="ignore"):
        vector = np.ascontiguousarray(given, dtype=np.float32)
    if vector.ndim != 1 or vector.size == 0:
        message = f"[gate] expected {name} of shape (d_model,), got {vector.shape}"
        raise ValueError(message)
    if not np.isfinite(vector).all():
        message = f"[gate] expected finite float32 values in {name}, got NaN or infinity"
        raise ValueError(message)
    return vector
