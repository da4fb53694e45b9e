"""Several extractors as one: their weighted consensus, and how far they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cogit.extractors.base import (
    Extraction,
    angle,
    extractor,
    measured,
    register,
    require_options,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.float64]

_COMBINE = ("mean", "svd")
MEMBERS = ("mean_difference", "contrastive_pca", "probe")


@register("ensemble")
def ensemble(
    positive: Rows,
    negative: Rows,
    /,
    *,
    members: Sequence[str] = MEMBERS,
    weights: Sequence[float] | None = None,
    combine: Literal["mean", "svd"] = "mean",
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Extraction:
    """The consensus of the members' leading directions d₁..dₘ.

    positive, negative: (pair, d_model) float64. members: two or more other extractors by name.
    weights: one a member, none negative; equal by default; used as shares. options: keyword options
    by member.

    combine "mean": the unit vector along Σ wᵢ dᵢ, each turned towards the positive class; its
    ``spectrum`` is |Σ wᵢ dᵢ|, 1 where all agree (the mean resultant length of directional
    statistics, Mardia and Jupp 2000). "svd": the leading eigenvector of Σ wᵢ dᵢdᵢᵀ, for which signs
    do not matter; its ``spectrum`` is the eigenvalue, 1 where all agree and 1/m where none do.

    ``details`` holds the shares, the pairwise angles in degrees under "first, second", and the
    members' own details. LinAlgError where a member fails or the members cancel.
    """
    shares = _shares(members, weights)
    if combine not in _COMBINE:
        message = f"[ensemble] expected combine {' or '.join(_COMBINE)}, got {combine!r}"
        raise ValueError(message)
    settings = dict(options or {})
    if unknown := sorted(set(settings) - set(members)):
        message = f"[ensemble] expected options of {', '.join(members)}, got some of {unknown[0]}"
        raise ValueError(message)
    found: dict[str, Extraction] = {}
    for name in members:
        require_options(name, settings.get(name, {}))
        found[name] = extractor(name)(positive, negative, **settings.get(name, {}))
    rows = np.stack([one.direction for one in found.values()])
    # A direction perpendicular to the mean difference has no sign of its own.
    loose = ~np.array([one.oriented for one in found.values()])
    rows[loose & (rows @ rows[0] < 0)] *= -1
    if combine == "mean":
        total = shares @ rows
        agreement = float(np.linalg.norm(total))
        if agreement < 1e-6:
            message = "[ensemble] expected members that agree, got directions that cancel"
            raise np.linalg.LinAlgError(message)
        direction = total / agreement
    else:
        _, singular, vectors = np.linalg.svd(np.sqrt(shares)[:, None] * rows, full_matrices=False)
        direction, agreement = vectors[0], float(singular[0] ** 2)
    details = {
        "combine": combine,
        "shares": dict(zip(members, shares.tolist(), strict=True)),
        "angles": {
            f"{a}, {b}": angle(found[a].direction, found[b].direction)
            for a, b in combinations(members, 2)
        },
        "members": {name: dict(one.details) for name, one in found.items()},
    }
    return measured("ensemble", direction[None], np.array([agreement]), positive, negative, details)


def _shares(members: Sequence[str], weights: Sequence[float] | None) -> Rows:
    """Weights of sum 1; ValueError for members or weights that make no ensemble."""
    if len(set(members)) != len(members) or len(members) < 2 or "ensemble" in members:
        message = (
            f"[ensemble] expected two or more different members, none of them ensemble, got "
            f"{', '.join(members) or 'none'}"
        )
        raise ValueError(message)
    raw = np.ones(len(members)) if weights is None else np.asarray(weights, dtype=np.float64)
    if raw.shape != (len(members),) or not np.isfinite(raw).all() or raw.min() < 0 or not raw.any():
        message = (
            f"[ensemble] expected {len(members)} weights, none negative and not all zero, got "
            f"{list(weights or ())}"
        )
        raise ValueError(message)
    return np.asarray(raw / raw.sum())
