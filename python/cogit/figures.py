"""Pictures whose bytes are the same each time: no date, no drawn ids, no name of a program."""

from __future__ import annotations

import io
from typing import Any

_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def image_bytes(figure: Any, kind: str = "png", dpi: float | str = 120) -> bytes:
    """The file of a matplotlib figure; kind: png, svg or pdf, with or without a dot."""
    from matplotlib import rc_context

    name = kind.lower().removeprefix(".")
    stream = io.BytesIO()
    with rc_context({"svg.hashsalt": "cogit"}):  # of the ids in an SVG, drawn at random otherwise
        figure.savefig(stream, format=name, dpi=dpi, metadata=_METADATA[name])
    return stream.getvalue()
