"""Gates: which tokens an operator acts on, decided by the tokens' own residual stream."""

from __future__ import annotations

from cogit.gates.fits import GateFit, fit_learned_gate, fit_similarity_gate
from cogit.gates.gate import Gate
from cogit.gates.rates import GateRates, Rate, assess, wilson

__all__ = [
    "Gate",
    "GateFit",
    "GateRates",
    "Rate",
    "assess",
    "fit_learned_gate",
    "fit_similarity_gate",
    "wilson",
]
