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
    "ArtefactError": "errors",
    "BackendMissingError": "errors",
    "Commitment": "operators",
    "ContrastPair": "pairs",
    "Intervention": "intervention",
    "InterventionError": "errors",
    "LayerRange": "layers",
    "LowRank": "operators",
    "Positions": "positions",
    "Random": "operators",
    "Sample": "sampling",
    "SamplingOptions": "sampling",
    "Subspace": "subspace",
    "Unitary": "operators",
    "fit_operator": "operators",
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
    "ArtefactError",
    "BackendMissingError",
    "Commitment",
    "ContrastPair",
    "Intervention",
    "InterventionError",
    "LayerRange",
    "LowRank",
    "Positions",
    "Random",
    "Sample",
    "SamplingOptions",
    "Subspace",
    "Unitary",
    "__version__",
    "fit_operator",
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
    from cogit.intervention import Intervention
    from cogit.layers import LayerRange
    from cogit.operators import (
        Ablation,
        Additive,
        Commitment,
        LowRank,
        Random,
        Unitary,
        fit_operator,
    )
    from cogit.pairs import ContrastPair, load_pairs
    from cogit.positions import Positions
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
