"""What every extractor is: matched states of two classes to directions, oriented and measured."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Rows = NDArray[np.float64]

# Class means nearer than this part of a typical state's norm differ by the rounding of float32.
MIN_SEPARATION = 1e-6


@dataclass(frozen=True)
class Extraction:
    """Directions in which two classes of matched states differ, at one layer.

    method: the extractor's name, as asked for.
    directions: (m, d_model) orthonormal rows, the leading one first, each turned towards the
    positive class; no row at all where nothing could be extracted (see ``reason``).
    spectrum: (m,) what the method ranks them by: eigenvalues, or 1 for a single direction.
    mean: (d_model,) the mean of the two class means.
    angle_to_mean_difference: degrees between the leading direction and the mean difference, 0..90;
    NaN where the class means coincide.
    oriented: the leading direction has a positive dot product with the mean difference. False
    where the two are perpendicular or the class means coincide, so that its sign means nothing.
    fallback, reason: the method failed and this is the mean difference of the finite pairs
    instead, or nothing; why. Empty where it did not.
    details: what else the method found, JSON-ready.
    """

    method: str
    directions: NDArray[np.float64]
    spectrum: NDArray[np.float64]
    mean: NDArray[np.float64]
    angle_to_mean_difference: float
    oriented: bool
    fallback: bool = False
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def direction(self) -> NDArray[np.float64]:
        """The leading direction, of unit length. (d_model,) ValueError where there is none."""
        if not len(self.directions):
            message = f"[extract] expected a direction by {self.method}, got none: {self.reason}"
            raise ValueError(message)
        return np.asarray(self.directions[0])

    def combined(self, weights: ArrayLike) -> NDArray[np.float64]:
        """The unit vector along Σ wᵢ dᵢ, for weights (m,) such as ``eigenvalue_weights`` gives."""
        weights = np.asarray(weights, dtype=np.float64)
        if weights.shape != (len(self.directions),) or not np.isfinite(weights).all():
            message = (
                f"[extract] expected {len(self.directions)} finite weights, one a direction, got "
                f"shape {weights.shape}"
            )
            raise ValueError(message)
        total = weights @ self.directions
        length = float(np.linalg.norm(total))
        if length <= 0:
            message = "[extract] expected a weight that is not zero, got zeros only"
            raise ValueError(message)
        return np.asarray(total / length)


Extractor = Callable[..., Extraction]
"""(pair, d_model) float64 states of both classes, rows matched, to an extraction.

Options come by keyword. LinAlgError where these numbers have no such direction (the caller may fall
back), any other ValueError for options that fit no states.
"""

T = TypeVar("T", bound=Extractor)
_REGISTRY: dict[str, Extractor] = {}


def register(name: str) -> Callable[[T], T]:
    """Make an extractor known by name."""

    def add(function: T) -> T:
        if name in _REGISTRY:
            message = f"[extract] expected a new name, got {name!r} twice"
            raise ValueError(message)
        _REGISTRY[name] = function
        return function

    return add


def registered() -> dict[str, Extractor]:
    """All extractors by name."""
    return dict(_REGISTRY)


def extractor(name: str) -> Extractor:
    """The extractor of that name; ValueError naming the choices otherwise."""
    if name not in _REGISTRY:
        message = f"[extract] expected a method among {', '.join(sorted(_REGISTRY))}, got {name!r}"
        raise ValueError(message)
    return _REGISTRY[name]


def require_options(name: str, options: Mapping[str, Any]) -> None:
    """TypeError for an option that the extractor does not have: none is ignored."""
    known = [
        parameter.name
        for parameter in inspect.signature(extractor(name)).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for option in options:
        if option not in known:
            message = (
                f"[extract] expected options of {name} among {', '.join(known) or 'none'}, got "
                f"{option}"
            )
            raise TypeError(message)


def mean_difference_of(positive: Rows, negative: Rows) -> Rows:
    """Mean of the positive states minus mean of the negative ones. (d_model,)"""
    return np.asarray(positive.mean(axis=0) - negative.mean(axis=0))


def require_difference(positive: Rows, negative: Rows) -> Rows:
    """The mean difference (d_model,); LinAlgError where it is the rounding of float32."""
    difference = mean_difference_of(positive, negative)
    length = float(np.linalg.norm(difference))
    if length <= MIN_SEPARATION * max(typical_norm(positive, negative), 1e-30):
        message = (
            f"[extract] expected two classes with different means, got a mean difference of zero "
            f"norm ({length:.1e}); use other pairs or another block"
        )
        raise np.linalg.LinAlgError(message)
    return difference


def typical_norm(positive: Rows, negative: Rows) -> float:
    """The mean norm of a state."""
    norms = [np.linalg.norm(states, axis=1) for states in (positive, negative)]
    return float(np.mean(norms))


def measured(
    method: str,
    directions: Rows,
    spectrum: Rows,
    positive: Rows,
    negative: Rows,
    details: Mapping[str, Any] | None = None,
) -> Extraction:
    """An extraction of unit rows (m, d_model), turned towards the positive class and measured."""
    mean = (positive.mean(axis=0) + negative.mean(axis=0)) / 2
    difference = mean_difference_of(positive, negative)
    length = float(np.linalg.norm(difference))
    apart = length > MIN_SEPARATION * max(typical_norm(positive, negative), 1e-30)
    directions, clear = turned(directions, difference)
    first = bool(len(directions)) and apart
    return Extraction(
        method=method,
        directions=directions,
        spectrum=np.asarray(spectrum, dtype=np.float64),
        mean=mean,
        angle_to_mean_difference=angle(directions[0], difference) if first else float("nan"),
        oriented=first and bool(clear[0]),
        details=dict(details or {}),
    )


def turned(directions: Rows, difference: Rows) -> tuple[Rows, NDArray[np.bool_]]:
    """Unit rows with positive dot products with the mean difference, and which rows have one.

    A dot product that is the rounding of its own sum has no sign to speak of: such rows stay.
    """
    dots = directions @ difference
    clear = np.abs(dots) > MIN_SEPARATION * np.linalg.norm(difference)
    return np.where((clear & (dots < 0))[:, None], -directions, directions), clear


def angle(first: Rows, second: Rows) -> float:
    """Degrees between the lines of two vectors, 0..90; exact for small angles too."""
    a, b = first / np.linalg.norm(first), second / np.linalg.norm(second)
    # Kahan's form: arccos loses half the digits near 0.
    half = np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))
    degrees = float(np.degrees(2 * half))
    return min(degrees, 180.0 - degrees)
