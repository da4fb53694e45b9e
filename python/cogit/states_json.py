"""Importer of states in the older JSON text form, in which each number was a decimal string.

One object with ``config``, ``separation_stats``, ``timestamp`` and the states of both classes,
under ``positive_states`` and ``negative_states`` or under ``states``: {``positive``, ``negative``}.
A class is a list of {``real``: [...], ``imag``: [...]}, or one such object of lists of lists.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.entries import entry
from cogit.errors import ArtefactError
from cogit.states import StateSet

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# Parsed, JSON takes about ten times its size; the form's own files were of some 40 MB.
_MAX_FILE = 2**30


def import_states_json(
    path: str | Path, *, matched: bool, projection: ArrayLike | None = None
) -> StateSet:
    """Read states from the JSON form and compute their statistics anew.

    matched: whether row i of both classes came from one pair, which the form does not say.
    projection: (d_model, width) complex, where it is at hand. The file's own statistics are kept in
    ``origin`` as that system's claim: they were made with a biased estimator.

    Raises FileNotFoundError, or ArtefactError for anything but such a file.
    """
    source = Path(path)
    if not source.is_file():
        message = f"[import] expected a JSON file of states, got {source}, which does not exist"
        raise FileNotFoundError(message)
    if source.stat().st_size > _MAX_FILE:
        message = f"[import] {source} is larger than {_MAX_FILE // 2**30} GiB, too much for JSON"
        raise ArtefactError(message)
    try:
        data = json.loads(source.read_text(encoding="utf-8"), parse_constant=_refuse)
        stats = entry(data, "separation_stats", dict)
        return StateSet.of(
            _class_states(data, "positive"),
            _class_states(data, "negative"),
            config=entry(data, "config", dict),
            projection=projection,
            matched=matched,
            timestamp=entry(data, "timestamp", str),
            origin={
                "form": "json",
                "file": source.name,
                "separation_stats": {str(k): entry(stats, k, float) for k in stats},
            },
        )
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, RecursionError) as error:
        what = " ".join(str(error).split())[:200]
        message = (
            f"[import] expected states as JSON in {source}, got {what or type(error).__name__}"
        )
        raise ArtefactError(message) from error


def _class_states(data: dict[str, Any], name: str) -> NDArray[np.complex128]:
    key = f"{name}_states"
    states = data[key] if key in data else entry(data, "states", dict)[name]
    if isinstance(states, dict):
        real, imag = entry(states, "real", list), entry(states, "imag", list)
    elif isinstance(states, list):
        real, imag = ([entry(state, part, list) for state in states] for part in ("real", "imag"))
    else:
        message = f"expected {name} states as {{real, imag}}, got {str(states)[:60]!r}"
        raise TypeError(message)
    parts = _matrix(name, real), _matrix(name, imag)
    if parts[0].shape != parts[1].shape:
        message = f"expected real and imag of one shape, got {parts[0].shape} and {parts[1].shape}"
        raise ValueError(message)
    return parts[0] + 1j * parts[1]


def _matrix(name: str, rows: list[Any]) -> NDArray[np.float64]:
    """Numbers (n, width): no strings, truth values, gaps or ragged rows."""
    widths = {len(row) if isinstance(row, list) else -1 for row in rows}
    if len(widths) != 1 or min(widths) < 1:
        message = f"expected {name} states of one width, got widths {sorted(widths)[:5]}"
        raise ValueError(message)
    if not {type(value) for row in rows for value in row} <= {int, float}:
        message = f"expected numbers as components of {name} states, got others"
        raise TypeError(message)
    return np.asarray(rows, dtype=np.float64)


def _refuse(name: str) -> float:
    message = f"{name}, which is no number"
    raise ValueError(message)
