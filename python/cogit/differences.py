"""Where two files differ, in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cogit.errors import ArtefactError

_MAX_JSON = 64 * 2**20
_MAX_TENSORS = 4 * 2**30
_SHOWN = 3
_TEXT = (".md", ".txt", ".csv", ".jsonl", ".html", ".svg")


def describe_difference(one: Path, other: Path) -> str:
    """What is different in ``other``: keys, numbers, tensors or lines by the file's suffix.

    For JSON the differing keys and the largest difference of numbers, for safetensors the tensors
    with their largest absolute difference, for text the first line, else sizes and the first byte.
    """
    try:
        if one.suffix == ".json" and max(p.stat().st_size for p in (one, other)) <= _MAX_JSON:
            return _of_json(one, other)
        if one.suffix == ".safetensors":
            return _of_tensors(one, other)
        if one.suffix in _TEXT:
            return _of_lines(one, other)
    except (ValueError, RecursionError, UnicodeError) as error:
        return f"cannot be compared: {' '.join(str(error).split())[:120]}"
    return _of_bytes(one, other)


def _of_json(one: Path, other: Path) -> str:
    before, after = (dict(_leaves(json.loads(p.read_text(encoding="utf-8")))) for p in (one, other))
    keys = [
        key for key in {**before, **after} if before.get(key, _of_json) != after.get(key, _of_json)
    ]
    if not keys:
        return "the same values, written otherwise"
    gaps = {
        key: abs(before[key] - after[key])
        for key in keys
        if _is_number(before.get(key)) and _is_number(after.get(key))
    }
    line = f"{len(keys)} of {len({**before, **after})} values: {_some(keys)}"
    if gaps:
        largest = max(gaps, key=lambda key: gaps[key])
        line += (
            f"; largest difference {gaps[largest]:.3g} at {largest}: {before[largest]:.17g}, "
            f"now {after[largest]:.17g}"
        )
    return line


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _leaves(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for index, part in enumerate(value):
            yield from _leaves(part, f"{key}[{index}]")
    else:
        yield key, value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _of_tensors(one: Path, other: Path) -> str:
    from safetensors import SafetensorError, safe_open

    if max(p.stat().st_size for p in (one, other)) > _MAX_TENSORS:
        return _of_bytes(one, other)
    found: list[str] = []
    try:
        with safe_open(one, framework="np") as a, safe_open(other, framework="np") as b:
            before, after = set(a.keys()), set(b.keys())
            if before != after:
                return f"other tensors: {_some(sorted(before ^ after))} in one of them alone"
            for name in sorted(before):
                if gap := _gap(a.get_tensor(name), b.get_tensor(name)):
                    found.append(f"{name} {gap}")
            if not found and a.metadata() != b.metadata():
                return _of_metadata(a.metadata() or {}, b.metadata() or {})
    except SafetensorError as error:
        message = f"no whole safetensors file: {error}"
        raise ArtefactError(message) from error
    return f"tensors: {_some(found)}" if found else "the same tensors, written otherwise"


def _gap(one: Any, other: Any) -> str | None:
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return f"{one.dtype} {one.shape}, now {other.dtype} {other.shape}"
    if one.tobytes() == other.tobytes():
        return None
    gap = np.abs(one.astype(np.float64) - other.astype(np.float64)).max()
    bits = [np.ascontiguousarray(x).reshape(-1).view(f"u{x.itemsize}") for x in (one, other)]
    return f"by up to {gap:.3g} in {int((bits[0] != bits[1]).sum())} of {one.size}"


def _of_metadata(one: dict[str, str], other: dict[str, str]) -> str:
    before, after = ({**m, **dict(_leaves(json.loads(m.get("json", "{}"))))} for m in (one, other))
    written = {"", "json"}  # no key of its own, and the text that the others were read from
    keys = [k for k in {**before, **after} if k not in written and before.get(k) != after.get(k)]
    return f"metadata: {_some(keys)}"


def _of_lines(one: Path, other: Path) -> str:
    pairs = [path.read_text(encoding="utf-8").splitlines() for path in (one, other)]
    for number, (before, after) in enumerate(zip(*pairs, strict=False), 1):
        if before != after:
            return f"line {number}: {before[:60]!r}, now {after[:60]!r}"
    return f"{len(pairs[0])} lines, now {len(pairs[1])}"


def _of_bytes(one: Path, other: Path) -> str:
    sizes = [path.stat().st_size for path in (one, other)]
    if sizes[0] != sizes[1]:
        return f"{sizes[0]} bytes, now {sizes[1]}"
    with one.open("rb") as a, other.open("rb") as b:
        start = 0
        while (before := a.read(2**20)) and (after := b.read(2**20)):
            if before != after:
                where = next(i for i, (x, y) in enumerate(zip(before, after, strict=True)) if x - y)
                return f"byte {start + where} of {sizes[0]}"
            start += len(before)
    return "nothing"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:160] for name in names[:_SHOWN]) + more
