"""The operators. Each file holds one; importing it registers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cogit.operators.ablation import Ablation
from cogit.operators.additive import Additive
from cogit.operators.affine_edit import AffineEdit
from cogit.operators.base import ControlSpace, Lifted, Operator, load_operator, registered
from cogit.operators.commitment import Commitment
from cogit.operators.composed import Composed
from cogit.operators.dense import Dense
from cogit.operators.diagonal import Diagonal
from cogit.operators.householder import Householder
from cogit.operators.inverse import Inverse
from cogit.operators.lowrank import LowRank
from cogit.operators.random import Random
from cogit.operators.rotation import Rotation
from cogit.operators.unitary import Unitary
from cogit.subspace import Subspace

__all__ = [
    "Ablation",
    "Additive",
    "AffineEdit",
    "Commitment",
    "Composed",
    "ControlSpace",
    "Dense",
    "Diagonal",
    "Householder",
    "Inverse",
    "Lifted",
    "LowRank",
    "Operator",
    "Random",
    "Rotation",
    "Unitary",
    "fit_operator",
    "load_operator",
    "registered",
]

_FITTED: dict[str, Callable[..., Operator]] = {
    "ablation": Ablation.fit,
    "additive": Additive.fit,
    "affine_edit": AffineEdit.fit,
    "dense": Dense.fit,
    "diagonal": Diagonal.fit,
    "householder": Householder.fit,
    "rotation": Rotation.fit,
    "unitary": Unitary.fit,
}


def fit_operator(subspace: Subspace, kind: str = "unitary", **options: Any) -> Operator:
    """Fit an operator of a kind to a subspace; ``options`` are those of the class's ``fit``.

    ValueError for another kind, and for a subspace of another hook point than ``resid_post``.
    """
    if kind not in _FITTED:
        message = f"[fit] expected an operator among {sorted(_FITTED)}, got {kind!r}"
        raise ValueError(message)
    return _FITTED[kind](subspace, **options)
