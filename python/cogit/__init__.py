"""cogit: steer language models by their representations, and prove that it worked.

Names below load on first use, so that ``import cogit`` pulls in no framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Ablation": "operators",
    "ActivationMoments": "activation_moments",
    "ActivationStore": "store",
    "Activations": "activations",
    "Additive": "operators",
    "AffineEdit": "operators",
    "ArtefactError": "errors",
    "BackendMissingError": "errors",
    "Commitment": "operators",
    "Composed": "operators",
    "ContrastPair": "pairs",
    "Dense": "operators",
    "Diagonal": "operators",
    "Gate": "gates",
    "Householder": "operators",
    "Intervention": "intervention",
    "InterventionError": "errors",
    "LayerRange": "layers",
    "LowRank": "operators",
    "Positions": "positions",
    "Projection": "projection",
    "Random": "operators",
    "Rotation": "operators",
    "Sample": "sampling",
    "SamplingOptions": "sampling",
    "Subspace": "subspace",
    "Unitary": "operators",
    "fit_gates": "gating",
    "fit_learned_gate": "gates",
    "fit_operator": "operators",
    "fit_similarity_gate": "gates",
    "fit_subspace": "subspace",
    "load_backend": "backends",
    "load_pairs": "pairs",
    "record": "activations",
    "record_moments": "activation_moments",
    "record_to": "recording",
}

__all__ = [
    "Ablation",
    "ActivationMoments",
    "ActivationStore",
    "Activations",
    "Additive",
    "AffineEdit",
    "ArtefactError",
    "BackendMissingError",
    "Commitment",
    "Composed",
    "ContrastPair",
    "Dense",
    "Diagonal",
    "Gate",
    "Householder",
    "Intervention",
    "InterventionError",
    "LayerRange",
    "LowRank",
    "Positions",
    "Projection",
    "Random",
    "Rotation",
    "Sample",
    "SamplingOptions",
    "Subspace",
    "Unitary",
    "__version__",
    "fit_gates",
    "fit_learned_gate",
    "fit_operator",
    "fit_similarity_gate",
    "fit_subspace",
    "load_backend",
    "load_pairs",
    "record",
    "record_moments",
    "record_to",
]

if TYPE_CHECKING:
    from cogit.activation_moments import ActivationMoments, record_moments
    from cogit.activations import Activations, record
    from cogit.backends import load_backend
    from cogit.errors import ArtefactError, BackendMissingError, InterventionError
    from cogit.gates import Gate, fit_learned_gate, fit_similarity_gate
    from cogit.gating import fit_gates
    from cogit.intervention import Intervention
    from cogit.layers import LayerRange
    from cogit.operators import (
        Ablation,
        Additive,
        AffineEdit,
        Commitment,
        Composed,
        Dense,
        Diagonal,
        Householder,
        LowRank,
        Random,
        Rotation,
        Unitary,
        fit_operator,
    )
    from cogit.pairs import ContrastPair, load_pairs
    from cogit.positions import Positions
    from cogit.projection import Projection
    from cogit.recording import record_to
    from cogit.sampling import Sample, SamplingOptions
    from cogit.store import ActivationStore
    from cogit.subspace import Subspace, fit_subspace


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        message = f"module 'cogit' has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f"cogit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
