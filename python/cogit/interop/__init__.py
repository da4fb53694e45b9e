"""Steering vectors of other tools: control-vector GGUF files and plain tensors, in and out."""

from __future__ import annotations

from cogit.interop.control_vector import (
    ControlVector,
    export_control_vector,
    import_control_vector,
    read_control_vector,
)
from cogit.interop.steering_vectors import (
    export_vectors,
    import_vectors,
    load_vectors,
    vectors_to_intervention,
)

__all__ = [
    "ControlVector",
    "export_control_vector",
    "export_vectors",
    "import_control_vector",
    "import_vectors",
    "load_vectors",
    "read_control_vector",
    "vectors_to_intervention",
]
