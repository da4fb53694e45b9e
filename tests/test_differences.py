"""Where two files differ, in one line that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cogit import artefact
from cogit.differences import describe_difference


def two(folder: Path, name: str, one: bytes, other: bytes) -> tuple[Path, Path]:
    paths = folder / f"one-{name}", folder / f"other-{name}"
    for path, data in zip(paths, (one, other), strict=True):
        path.write_bytes(data)
    return paths


def of_json(folder: Path, one: Any, other: Any) -> str:
    return describe_difference(
        *two(folder, "a.json", json.dumps(one).encode(), json.dumps(other).encode())
    )


def test_json_names_keys_and_the_largest_difference(tmp_path: Path) -> None:
    one = {"a": 1.0, "b": [1, 2, {"c": "x"}], "d": True, "gone": None}
    other = {"a": 1.5, "b": [1, 2.25, {"c": "y"}], "d": False}
    line = of_json(tmp_path, one, other)
    assert line == (
        "5 of 6 values: a, b[1], b[2].c and 2 more; largest difference 0.5 at a: 1, now 1.5"
    )
    assert of_json(tmp_path, {"a": {}}, {"a": []}) == "1 of 1 values: a"


def test_the_smallest_difference_of_a_number_is_seen(tmp_path: Path) -> None:
    line = of_json(tmp_path, {"x": 1.0}, {"x": float(np.nextafter(1.0, 2.0))})
    assert line.endswith("at x: 1, now 1.0000000000000002")


def test_json_of_another_form(tmp_path: Path) -> None:
    paths = two(tmp_path, "a.json", b'{"a": 1}', b'{"a":1}')
    assert describe_difference(*paths) == "the same values, written otherwise"
    deep = b"[" * 100_000
    assert "cannot be compared" in describe_difference(*two(tmp_path, "b.json", deep, deep + b" "))
    assert "cannot be compared" in describe_difference(*two(tmp_path, "c.json", b"{", b"\xff"))


def save(path: Path, metadata: dict[str, Any], **tensors: Any) -> Path:
    return artefact.write(path, "test", tensors, metadata)


def test_tensors_are_named_with_their_largest_difference(tmp_path: Path) -> None:
    base = np.arange(6, dtype=np.float32).reshape(2, 3)
    moved = base.copy()
    moved[1, 2] += 0.25
    one = save(tmp_path / "a.safetensors", {}, w=base, same=base)
    other = save(tmp_path / "b.safetensors", {}, w=moved, same=base)
    assert describe_difference(one, other) == "tensors: w by up to 0.25 in 1 of 6"
    other = save(tmp_path / "c.safetensors", {}, w=base[:1], same=base)
    assert describe_difference(one, other) == "tensors: w float32 (2, 3), now float32 (1, 3)"
    other = save(tmp_path / "d.safetensors", {}, v=base, same=base)
    assert describe_difference(one, other).startswith("other tensors: v, w in one")
    other = save(tmp_path / "e.safetensors", {"seed": 4}, w=base, same=base)
    assert describe_difference(one, other) == "metadata: seed"
    other.write_bytes(other.read_bytes()[:50])
    assert "cannot be compared: no whole safetensors" in describe_difference(one, other)


def test_minus_zero_is_a_difference_of_bits(tmp_path: Path) -> None:
    one = save(tmp_path / "a.safetensors", {}, w=np.array([0.0]))
    other = save(tmp_path / "b.safetensors", {}, w=np.array([-0.0]))
    assert describe_difference(one, other) == "tensors: w by up to 0 in 1 of 1"


@pytest.mark.parametrize(
    ("name", "one", "other", "line"),
    [
        ("a.md", b"x\ny\n", b"x\nz\n", "line 2: 'y', now 'z'"),
        ("a.md", b"x\n", b"x\nz\n", "1 lines, now 2"),
        ("a.png", b"abc", b"abcd", "3 bytes, now 4"),
        ("a.png", b"x" * 2**20 + b"a", b"x" * 2**20 + b"b", "byte 1048576 of 1048577"),
    ],
)
def test_other_files(tmp_path: Path, name: str, one: bytes, other: bytes, line: str) -> None:
    assert describe_difference(*two(tmp_path, name, one, other)) == line
