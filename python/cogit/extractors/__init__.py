"""Extractors: directions in which matched states of two classes differ, one method a file.

``extract`` and ``extract_layers`` run any of them by name; ``registered`` lists them. A new one is
a file with a function under ``@register``, and its name in the first import here;
tests/test_extractors.py then runs it.
"""

from __future__ import annotations

from cogit.extractors import contrastive, ensemble, mean_difference, pca, probe  # noqa: F401
from cogit.extractors.base import Extraction, Extractor, angle, register, registered
from cogit.extractors.contrast import contrastive_pca
from cogit.extractors.layers import extract, extract_layers
from cogit.extractors.protected import orthogonalise, span_basis
from cogit.extractors.weights import WEIGHT_METHODS, WeightMethod, eigenvalue_weights

__all__ = [
    "WEIGHT_METHODS",
    "Extraction",
    "Extractor",
    "WeightMethod",
    "angle",
    "contrastive_pca",
    "eigenvalue_weights",
    "extract",
    "extract_layers",
    "orthogonalise",
    "register",
    "registered",
    "span_basis",
]
