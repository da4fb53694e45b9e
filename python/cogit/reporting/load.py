"""Reading a report: strict, bounded, and with one line that says what is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cogit.errors import ArtefactError
from cogit.reporting.schema import FORMAT, VERSION, EvaluationReport

MAX_FILE = 64 * 2**20
_MAX_INTEGER = 2**63
_REMEDY = "docs/report.md describes every field"


def load_report(path: str | Path) -> EvaluationReport:
    """A report.json of at most 64 MiB.

    Raises FileNotFoundError, or ArtefactError for anything but such a report: no JSON, a repeated
    or unknown key, another format or version, a number that is not finite.
    """
    source = Path(path)
    if not source.is_file():
        state = "a folder" if source.is_dir() else "which does not exist"
        message = f"[report] expected a report.json, got {source}, {state}"
        raise FileNotFoundError(message)
    with source.open("rb") as stream:
        data = stream.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        message = f"[report] {source} is larger than {MAX_FILE // 2**20} MiB, the limit of a report"
        raise ArtefactError(message)
    try:
        return parse_report(data)
    except ValueError as error:
        message = f"[report] {source}: {str(error).removeprefix('[report] ')}"
        raise ArtefactError(message) from error


def parse_report(data: bytes | str) -> EvaluationReport:
    """A report from JSON text; ValueError in one line for anything else."""
    try:
        found = json.loads(
            data,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except RecursionError:
        message = f"[report] expected a report as JSON, got too many levels; {_REMEDY}"
        raise ValueError(message) from None
    except ValueError as error:
        message = f"[report] expected a report as JSON, got {_short(error)}; {_REMEDY}"
        raise ValueError(message) from error
    return _validated(found)


def check_report(data: Mapping[str, Any] | EvaluationReport) -> EvaluationReport:
    """A report from Python values; ValueError in one line for what JSON or the format refuses."""
    if isinstance(data, EvaluationReport):
        return data
    return parse_report(encode(data))


def encode(data: Mapping[str, Any]) -> bytes:
    """The bytes of report.json: keys in the given order, two spaces, UTF-8, no NaN."""
    try:
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        message = f"[report] expected values that JSON can hold, got {_short(error)}"
        raise ValueError(message) from error


def _validated(found: object) -> EvaluationReport:
    given = found.get("format") if isinstance(found, dict) else type(found).__name__
    if not isinstance(found, dict) or given != FORMAT:
        message = f"[report] expected the format {FORMAT!r}, got {str(given)[:60]!r}; {_REMEDY}"
        raise ValueError(message)
    version = found.get("format_version")
    if type(version) is not int or version != VERSION:
        message = (
            f"[report] expected format version {VERSION}, got {str(version)[:20]}; use the cogit "
            f"release that wrote it"
        )
        raise ValueError(message)
    try:
        return EvaluationReport.model_validate(found)
    except (ValidationError, RecursionError) as error:
        message = f"[report] expected a report of version {VERSION}, got {_first(error)}; {_REMEDY}"
        raise ValueError(message) from error


def _first(error: Exception) -> str:
    """The first fault with its place."""
    if not isinstance(error, ValidationError):
        return "too many levels"
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    place = ".".join(str(part) for part in faults[0]["loc"])[:200]
    more = f" and {len(faults) - 1} more faults" if len(faults) > 1 else ""
    return f"{place}: {_short(faults[0]['msg'])}{more}"


def _short(error: object) -> str:
    return " ".join(str(error).split())[:200]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        message = "a key that is given twice"
        raise ValueError(message)
    return found


def _refuse_constant(name: str) -> float:
    message = f"{name}, which is no number"
    raise ValueError(message)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        message = f"{digits[:20]}, which is too large"
        raise ValueError(message)
    return value


def _bounded(digits: str) -> int:
    value = int(digits) if len(digits) < 25 else _MAX_INTEGER
    if abs(value) >= _MAX_INTEGER:
        message = f"{digits[:20]}, which is too large"
        raise ValueError(message)
    return value
