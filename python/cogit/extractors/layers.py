"""One layer or many: the extractor by name, protected directions, and a fallback that says so."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.extractors.base import (
    Extraction,
    angle,
    extractor,
    mean_difference_of,
    require_options,
    turned,
)
from cogit.extractors.mean_difference import mean_difference
from cogit.extractors.protected import MIN_RESIDUE, orthogonalise

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    States = NDArray[np.floating[Any]]
    Rows = NDArray[np.float64]


def extract(
    positive: States,
    negative: States,
    method: str = "contrastive_pca",
    *,
    protected: ArrayLike | None = None,
    strict: bool = False,
    **options: Any,
) -> Extraction:
    """Directions in which two classes of matched states differ.

    positive, negative: (pair, d_model), any float dtype, rows matched; computed in float64.
    method: an extractor by name (``registered()``), with its options by keyword. protected:
    (d_model,) or (p, d_model) directions to keep clear of, see ``orthogonalise``.

    Where states hold NaN or infinity, or the method fails on these numbers, the result is the mean
    difference of the finite pairs, with a RuntimeWarning, ``fallback`` set and a ``reason``; where
    that fails too, the same without any direction. strict=True raises instead.

    Raises ValueError for an unknown method, shapes or options that do not fit, and directions
    inside the span of the protected ones; TypeError for an option that the method does not have.
    """
    return _extract(positive, negative, method, "", protected, strict, options)


def extract_layers(
    positive: Iterable[States],
    negative: Iterable[States],
    method: str = "contrastive_pca",
    *,
    layers: Iterable[int] | None = None,
    protected: ArrayLike | None = None,
    strict: bool = False,
    **options: Any,
) -> list[Extraction]:
    """``extract`` at each layer of two stacks, (layer, pair, d_model) or iterables of layers.

    layers: the block numbers, for messages; 0, 1, ... by default. A layer that falls back leaves
    the others as they are alone.

    Layers are taken one at a time: beside the input and the results (m + 1 vectors a layer), the
    peak is that of one layer, by any method here at most 100 · pair · d_model bytes where pairs are
    few against d_model: the states in float64 are 16, and contrastive PCA needs most.
    """
    numbers = iter(layers) if layers is not None else iter(range(2**31))
    found = []
    for one, other in zip(positive, negative, strict=True):
        where = f" at block {next(numbers)}"
        found.append(_extract(one, other, method, where, protected, strict, options))
    return found


def _extract(
    positive: States,
    negative: States,
    method: str,
    where: str,
    protected: ArrayLike | None,
    strict: bool,
    options: dict[str, Any],
) -> Extraction:
    run = extractor(method)
    require_options(method, options)
    _require_matched(positive, negative)
    rows, others = (np.asarray(x, dtype=np.float64) for x in (positive, negative))
    finite = np.asarray(np.isfinite(rows).all(axis=1) & np.isfinite(others).all(axis=1))
    failure: np.linalg.LinAlgError | None = None
    if finite.all():
        try:
            found = run(rows, others, **options)
        except np.linalg.LinAlgError as error:
            failure = error
    else:
        bad = int((~finite).sum())
        failure = np.linalg.LinAlgError(
            f"[extract] expected finite states, got NaN or infinity in {bad} of {len(finite)} pairs"
        )
    if failure is not None:
        if strict:
            message = f"{failure}{where}"
            raise np.linalg.LinAlgError(message) from failure
        found = _fallback(method, rows[finite], others[finite], failure)
        kind = "the mean difference of the finite pairs" if len(found.directions) else "nothing"
        message = f"{found.reason}{where}; {kind} is used instead of {method}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    if protected is not None and len(found.directions):
        found = _clear_of(found, protected, mean_difference_of(rows[finite], others[finite]))
    return found


def _fallback(
    method: str, positive: Rows, negative: Rows, failure: np.linalg.LinAlgError
) -> Extraction:
    reason = " ".join(str(failure).split())
    if len(positive):
        try:
            found = mean_difference(positive, negative)
        except np.linalg.LinAlgError:
            mean = (positive.mean(axis=0) + negative.mean(axis=0)) / 2
        else:
            return replace(found, method=method, fallback=True, reason=reason)
    else:
        mean = np.zeros(positive.shape[1])
    return Extraction(
        method=method,
        directions=np.empty((0, positive.shape[1])),
        spectrum=np.empty(0),
        mean=mean,
        angle_to_mean_difference=float("nan"),
        oriented=False,
        fallback=True,
        reason=reason,
    )


def _clear_of(found: Extraction, protected: ArrayLike, difference: Rows) -> Extraction:
    """The same with its directions outside the span of the protected ones, orthonormal again."""
    rows = orthogonalise(found.directions, protected)
    q, r = np.linalg.qr(rows.T)
    if np.abs(np.diag(r)).min() < MIN_RESIDUE:
        message = (
            f"[protect] expected {len(rows)} directions outside the span of the protected ones, "
            f"got fewer; ask for fewer components"
        )
        raise ValueError(message)
    rows, clear = turned(q.T, difference)
    return replace(
        found,
        directions=rows,
        angle_to_mean_difference=angle(rows[0], difference) if difference.any() else float("nan"),
        oriented=found.oriented and bool(clear[0]),
    )


def _require_matched(positive: States, negative: States) -> None:
    shapes = np.shape(positive), np.shape(negative)
    if shapes[0] != shapes[1] or len(shapes[0]) != 2 or 0 in shapes[0]:
        message = (
            f"[extract] expected two arrays (pair, d_model) of one shape, got {shapes[0]} and "
            f"{shapes[1]}"
        )
        raise ValueError(message)
