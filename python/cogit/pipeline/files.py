"""The JSON files of phases: written in one form, read within limits."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cogit.artefact import write_bytes
from cogit.pipeline.lineage import Lineage

LINEAGE = "lineage.json"
_MAX_FILE = 2**28


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Bit for bit the same for the same data; numbers that are not finite become null."""
    text = json.dumps(finite(data), indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, text.encode() + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """An object; FileNotFoundError, or ValueError for something else."""
    if not path.is_file():
        message = f"[pipeline] expected {path}, which does not exist"
        raise FileNotFoundError(message)
    if path.stat().st_size > _MAX_FILE:
        message = f"[pipeline] {path} is larger than {_MAX_FILE // 2**20} MiB"
        raise ValueError(message)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        message = f"[pipeline] expected JSON in {path}, got {' '.join(str(error).split())[:120]}"
        raise ValueError(message) from error
    if not isinstance(found, dict):
        message = f"[pipeline] expected a JSON object in {path}, got {type(found).__name__}"
        raise ValueError(message)
    return found


def write_lineage(folder: Path, lineage: Lineage) -> None:
    """Beside a phase's results: what they were made from."""
    write_json(folder / LINEAGE, {"fingerprint": lineage.fingerprint, "lineage": lineage.to_json()})


def finite(value: Any) -> Any:
    """Plain JSON: tuples as lists, NumPy's numbers as Python's, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else None
