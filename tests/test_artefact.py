"""Files: what is written comes back, and whatever else is read gives one clear line."""

from __future__ import annotations

import contextlib
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cogit import artefact
from cogit.errors import ArtefactError

TENSORS: dict[str, Any] = {
    "a": np.arange(6, dtype=np.float64).reshape(2, 3),
    "b": np.array([1.5], np.float32),
}
METADATA = {"numbers": [1, 2.5, None], "text": "λ", "nested": {"yes": True}}


def write(folder: Path) -> Path:
    return artefact.write(folder / "file.safetensors", "thing", TENSORS, METADATA)


def raw(path: Path, **header: str) -> Path:
    """A safetensors file with a header of its own."""
    save_file(TENSORS, path, metadata=header)
    return path


def framed(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


# ---- round trip ----


def test_round_trip(tmp_path: Path) -> None:
    tensors, metadata = artefact.read(write(tmp_path), "thing")
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert tensors[name].dtype == value.dtype
        np.testing.assert_array_equal(tensors[name], value)


@pytest.mark.parametrize("shape", [(0, 4), (0,), (4, 0)])
def test_empty_tensors(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = artefact.write(tmp_path / "f", "thing", {"a": np.zeros(shape)}, {})
    assert artefact.read(path, "thing")[0]["a"].shape == shape


def test_tensors_may_lie_anyhow_in_memory(tmp_path: Path) -> None:
    array = np.arange(24.0).reshape(4, 6)
    views = {"t": array.T, "s": array[::2, ::-1], "c": (array + 1j * array).imag}
    tensors, _ = artefact.read(artefact.write(tmp_path / "f", "thing", views, {}), "thing")
    for name, view in views.items():
        np.testing.assert_array_equal(tensors[name], view)


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    """Anybody's reader can open it: header length, JSON header, bytes."""
    data = write(tmp_path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header["__metadata__"]["format"] == "cogit"
    assert header["__metadata__"]["format_version"] == "1"
    assert header["__metadata__"]["kind"] == "thing"
    assert json.loads(header["__metadata__"]["json"]) == METADATA


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write(tmp_path).read_bytes()
    assert write(tmp_path).read_bytes() == first


def test_content_hash_sees_everything() -> None:
    base = artefact.content_hash(TENSORS, METADATA)
    assert base == artefact.content_hash(dict(reversed(TENSORS.items())), METADATA)
    changed: list[dict[str, Any]] = [
        {"a": TENSORS["a"] + [[0, 0, 0], [0, 0, 1e-12]], "b": TENSORS["b"]},
        {"a": TENSORS["a"].reshape(3, 2), "b": TENSORS["b"]},
        {"a": TENSORS["a"].astype(np.float32), "b": TENSORS["b"]},
        {"a": TENSORS["a"], "c": TENSORS["b"]},
        {"a": TENSORS["a"]},
    ]
    hashes = {artefact.content_hash(tensors, METADATA) for tensors in changed}
    hashes |= {artefact.content_hash(TENSORS, METADATA | {"numbers": [1, 2.5, 0]}), base}
    assert len(hashes) == 7


def test_content_hash_is_the_same_on_every_machine() -> None:
    big = {name: value.astype(value.dtype.newbyteorder(">")) for name, value in TENSORS.items()}
    assert artefact.content_hash(big, METADATA) == artefact.content_hash(TENSORS, METADATA)
    strided = {name: np.asfortranarray(value) for name, value in TENSORS.items()}
    assert artefact.content_hash(strided, METADATA) == artefact.content_hash(TENSORS, METADATA)


# ---- hostile files ----


def hostile(folder: Path) -> dict[str, Path]:
    """Files by what is wrong with them."""
    good = write(folder).read_bytes()
    (length,) = struct.unpack("<Q", good[:8])
    header = {"format": "cogit", "format_version": "1", "kind": "thing", "json": "{}"}
    two = {"a": {"dtype": "F64", "shape": [2], "data_offsets": [0, 16]}}
    contents = {
        "empty": b"",
        "one byte": good[:1],
        "header cut": good[: 8 + length // 2],
        "data cut": good[:-3],
        "data too long": good + b"more",
        "random": np.random.default_rng(0).bytes(4096),
        "zeros": bytes(4096),
        "text": b"Once upon a time there was a file.\n" * 20,
        "pickle": pickle.dumps({"a": 1}),
        "huge header": framed(b"{}", length=2**62),
        "longer header than file": framed(b"{}" + bytes(100), length=5000),
        "header not JSON": framed(b"{nonsense}"),
        "header not an object": framed(b"[1, 2, 3]"),
        "header deeply nested": framed(b"[" * 100_000),
        "offsets beyond the data": framed(json.dumps(two).encode(), bytes(8)),
        "shape against offsets": framed(
            json.dumps({"a": {**two["a"], "shape": [2**40, 2**40]}}).encode(), bytes(16)
        ),
        "unknown dtype": framed(
            json.dumps({"a": {**two["a"], "dtype": "F13"}}).encode(), bytes(16)
        ),
    }
    files: dict[str, Path] = {}
    for name, content in contents.items():
        files[name] = folder / f"{name}.safetensors"
        files[name].write_bytes(content)
    metadata = {
        "no metadata": {},
        "foreign": {"format": "pt"},
        "no version": {"format": "cogit"},
        "older version": header | {"format_version": "0"},
        "newer version": header | {"format_version": "2"},
        "another kind": header | {"kind": "other"},
        "no kind": {k: v for k, v in header.items() if k != "kind"},
        "no json": {k: v for k, v in header.items() if k != "json"},
        "bad json": header | {"json": "{"},
        "json list": header | {"json": "[1]"},
        "json number": header | {"json": "12"},
        "json nested": header | {"json": "[" * 100_000},
        "json endless number": header | {"json": '{"a": ' + "9" * 5000 + "}"},
    }
    for name, entries in metadata.items():
        files[name] = raw(folder / f"{name}.safetensors", **entries)
    for name, value in (("NaN", np.nan), ("infinity", -np.inf)):
        files[name] = folder / f"{name}.safetensors"
        save_file({"a": np.array([1.0, value])}, files[name], metadata=header)
    bf16 = {"__metadata__": header, "a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    files["bfloat16"] = folder / "bfloat16.safetensors"
    files["bfloat16"].write_bytes(framed(json.dumps(bf16).encode(), bytes(4)))
    return files


@pytest.fixture(scope="module")
def hostile_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return hostile(tmp_path_factory.mktemp("hostile"))


def test_hostile_files_are_refused_in_one_line(hostile_files: dict[str, Path]) -> None:
    folder = hostile_files["empty"].parent
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    for name, path in hostile_files.items():
        with pytest.raises(ArtefactError) as caught:
            artefact.read(path, "thing")
        message = str(caught.value)
        assert message.startswith("["), name
        assert "\n" not in message, name
        assert len(message) < 400, name
        assert path.name in message, name
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("kind", ["absent", "folder"])
def test_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path if kind == "folder" else tmp_path / "none"
    with pytest.raises(FileNotFoundError, match=r"^\[load\] expected a file, got [^\n]+$"):
        artefact.read(path, "thing")


def test_the_message_says_what_is_wrong(hostile_files: dict[str, Path]) -> None:
    expected = {
        "foreign": "another origin",
        "newer version": "expected format version 1, got 2",
        "another kind": "expected a file of kind thing, got other",
        "data cut": "expected a whole safetensors file",
        "pickle": "expected a whole safetensors file",
        "NaN": "expected finite values in a",
        "json list": "expected a JSON object",
    }
    for name, words in expected.items():
        with pytest.raises(ArtefactError) as caught:
            artefact.read(hostile_files[name], "thing")
        assert words in str(caught.value)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path).read_bytes()
    path = tmp_path / "cut"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ArtefactError):
            artefact.read(path, "thing")


def test_flipped_bytes_never_crash(tmp_path: Path) -> None:
    """Either the file is refused, or what comes back is finite tensors and a JSON object."""
    data = write(tmp_path).read_bytes()
    path, rng = tmp_path / "flipped", np.random.default_rng(0)
    for _ in range(300):
        spoilt = bytearray(data)
        spoilt[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(spoilt)
        with contextlib.suppress(ArtefactError):
            tensors, metadata = artefact.read(path, "thing")
            assert isinstance(metadata, dict)
            assert all(np.isfinite(value).all() for value in tensors.values())


# ---- writing ----


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ArtefactError, match=r"^\[artefact\] expected finite values in a of "):
        artefact.write(tmp_path / "f", "thing", {"a": np.array([value])}, {})
    with pytest.raises(ValueError, match="JSON"):
        artefact.write(tmp_path / "f", "thing", TENSORS, {"a": value})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    old = path.read_bytes()

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        artefact.write(path, "thing", {"a": np.zeros(3)}, {})
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == old


def test_interrupted_writes_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Path, mode: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "chmod", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^\[save\] expected an existing folder, got "):
        artefact.write(tmp_path / "no" / "f", "thing", TENSORS, {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(OSError, match="taken"):
        artefact.write(target, "thing", TENSORS, {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]
