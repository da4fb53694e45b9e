"""Control-vector GGUF files of others: read as they mean it, and every bad file refused."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest

from cogit import Additive, ArtefactError, Intervention, Positions
from cogit.identity import ModelIdentity
from cogit.inspection import inspect_path
from cogit.interop import export_control_vector, import_control_vector
from tiny_llama import D_MODEL, N_LAYER, N_VOCAB, TinyLlama

if TYPE_CHECKING:
    from numpy.typing import NDArray

IDENTITY = ModelIdentity("tiny", "llama", N_LAYER, D_MODEL, N_VOCAB)


def write(
    path: Path,
    directions: dict[str, NDArray[Any]],
    *,
    architecture: str = "controlvector",
    hint: str | None = "llama",
    layer_count: int | None = None,
) -> Path:
    """As repeng writes it: hint, count of directions, float32 vectors."""
    writer = gguf.GGUFWriter(path, architecture)
    if hint is not None:
        writer.add_string("controlvector.model_hint", hint)
    writer.add_uint32("controlvector.layer_count", layer_count or len(directions))
    for name, values in directions.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def single(seed: int, size: int = D_MODEL) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def test_import(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Any order; block 0, which repeng can and llama.cpp cannot; a count that counts the blocks."""
    given = {f"direction.{i}": single(i) for i in (3, 0, 1)}
    file = write(tmp_path / "v.gguf", given, layer_count=N_LAYER)
    made = import_control_vector(file, IDENTITY, strength=0.5)
    assert made.layers == (0, 1, 3)
    assert made.strength == 0.5
    for block in made.layers:
        assert np.array_equal(made.folds()[block].c, np.float32(0.5) * given[f"direction.{block}"])
    assert made.lineage["layer_count"] == N_LAYER
    assert not caplog.records
    assert import_control_vector(file, IDENTITY, layers=[3]).layers == (3,)
    with pytest.raises(ArtefactError, match=r"blocks 0\.\.1, 3.*got block 2"):
        import_control_vector(file, IDENTITY, layers=[2, 3])
    prompt = Positions("prompt")
    assert import_control_vector(file, IDENTITY, positions=prompt).positions == prompt


def test_another_hint_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "v.gguf", {"direction.1": single(1)}, hint="mistral")
    assert import_control_vector(file, IDENTITY).lineage["model_hint"] == "mistral"
    assert "architecture mistral" in caplog.text
    caplog.clear()
    file = write(tmp_path / "w.gguf", {"direction.1": single(1)}, hint=None)
    assert import_control_vector(file, IDENTITY).lineage["model_hint"] is None
    assert not caplog.records


BAD: dict[str, tuple[dict[str, NDArray[Any]], str]] = {
    "no directions": ({}, "directions other than zero"),
    "all zero": ({"direction.1": np.zeros(D_MODEL, np.float32)}, "directions other than zero"),
    "width of another model": ({"direction.1": single(1, 65)}, "width 64 for tiny, got 65"),
    "two widths": ({"direction.1": single(1), "direction.2": single(2, 32)}, "one width"),
    "too deep": ({"direction.1": single(1), "direction.4": single(4)}, r"got direction\.4"),
    "float16": ({"direction.1": single(1).astype(np.float16)}, "got F16"),
    "matrix": ({"direction.1": np.ones((2, D_MODEL), np.float32)}, "shape"),
    "not finite": ({"direction.1": np.full(D_MODEL, np.nan, np.float32)}, "finite"),
    "infinite": ({"direction.1": np.full(D_MODEL, np.inf, np.float32)}, "finite"),
    "another name": ({"direction.1": single(1), "bias": single(2)}, "'bias'"),
    "no number": ({"direction.": single(1)}, "direction.i"),
    "negative": ({"direction.-1": single(1)}, "direction.i"),
    "same number twice": ({"direction.1": single(1), "direction.01": single(2)}, "direction.01"),
    "huge number": ({"direction.99999999999": single(1)}, "direction.i"),
    "digits of another script": ({"direction.١": single(1)}, "direction.i"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_directions_are_refused(case: str, tmp_path: Path) -> None:
    directions, message = BAD[case]
    refused(write(tmp_path / "v.gguf", directions), message)


def refused(file: Path, message: str) -> None:
    with pytest.raises(ArtefactError, match=message) as error:
        import_control_vector(file, IDENTITY)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_other_files_are_refused(tmp_path: Path) -> None:
    model = TinyLlama().write(tmp_path / "model.gguf")
    refused(model, "architecture controlvector, got llama")
    wrong = write(tmp_path / "v.gguf", {"direction.1": single(1)}, architecture="controlVector")
    refused(wrong, "got controlVector")
    for name, content in {"text": b"hello", "empty": b"", "zeros": bytes(64)}.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "whole GGUF file")
    with pytest.raises(FileNotFoundError):
        import_control_vector(tmp_path / "absent", IDENTITY)
    with pytest.raises(FileNotFoundError):
        import_control_vector(tmp_path, IDENTITY)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "v.gguf", {"direction.1": single(1), "direction.2": single(2)})
    content = whole.read_bytes()
    half = tmp_path / "half.gguf"
    for length in [*range(0, 400, 7), len(content) - 1, len(content) - 4 * D_MODEL]:
        half.write_bytes(content[:length])
        refused(half, "whole GGUF file")


def raw(n_tensors: int = 0, n_values: int = 0, rest: bytes = b"", *, version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, n_tensors, n_values) + rest


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def tensor(dims: list[int], kind: int = 0, offset: int = 0, n_dims: int | None = None) -> bytes:
    n = len(dims) if n_dims is None else n_dims
    body = struct.pack("<I", n) + b"".join(struct.pack("<Q", d) for d in dims)
    return text(b"direction.1") + body + struct.pack("<IQ", kind, offset)


HUGE = 2**60
HOSTILE = {
    "tensors": raw(HUGE),
    "values": raw(0, HUGE),
    "name": raw(0, 1, text(b"general", HUGE)),
    "text": raw(0, 1, text(b"a") + struct.pack("<I", 8) + text(b"b", HUGE)),
    "array": raw(0, 1, text(b"a") + struct.pack("<IIQ", 9, 0, HUGE)),
    "long array within the file": raw(
        0, 1, text(b"a") + struct.pack("<IIQ", 9, 0, 2**17) + bytes(2**17)
    ),
    "array of text": raw(0, 1, text(b"a") + struct.pack("<IIQ", 9, 8, 3)),
    "array of arrays": raw(0, 1, text(b"a") + struct.pack("<IIQ", 9, 9, 1) + bytes(64)),
    "type": raw(0, 1, text(b"a") + struct.pack("<I", 77) + bytes(64)),
    "shape": raw(1, 0, tensor([HUGE])),
    "shape that overflows": raw(1, 0, tensor([2**33, 2**33])),
    "dimensions": raw(1, 0, tensor([1], n_dims=2**31)),
    "offset": raw(1, 0, tensor([D_MODEL], offset=HUGE)),
    "tensor type": raw(1, 0, tensor([D_MODEL], kind=999) + bytes(512)),
    "version": raw(version=99),
    "alignment": raw(0, 1, text(b"general.alignment") + struct.pack("<II", 4, 3)),
    "other byte order, huge": struct.pack(">4sIQQ", b"GGUF", 3, HUGE, HUGE),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("case", HOSTILE)
def test_claims_beyond_the_file_are_refused_at_once(case: str, tmp_path: Path) -> None:
    """A reader that believed them would loop or allocate for hours."""
    file = tmp_path / "v.gguf"
    file.write_bytes(HOSTILE[case])
    refused(file, "whole GGUF file")
    if case != "long array within the file":  # a vocabulary of a model may be longer
        with pytest.raises(ArtefactError, match=r"^\[inspect\] expected a whole GGUF file"):
            inspect_path(file)


def test_duplicates_are_refused(tmp_path: Path) -> None:
    head = text(b"general.architecture") + struct.pack("<I", 8) + text(b"controlvector")
    file = tmp_path / "v.gguf"
    file.write_bytes(raw(2, 1, head + 2 * tensor([4])) + bytes(128))
    refused(file, "duplicated tensor")
    file.write_bytes(raw(1, 2, 2 * head + tensor([4])) + bytes(128))
    refused(file, "Duplicate")


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "v.gguf"
    with file.open("wb") as stream:
        stream.truncate(2**28 + 1)  # sparse
    refused(file, "at most 256 MiB")


def test_random_damage_never_escapes(tmp_path: Path) -> None:
    """Any byte may lie: the answer is an intervention or one line."""
    whole = write(tmp_path / "v.gguf", {"direction.1": single(1), "direction.2": single(2)})
    content = whole.read_bytes()
    file = tmp_path / "damaged.gguf"
    rng = np.random.default_rng(0)
    n_read = 0
    for _ in range(400):
        damaged = bytearray(content)
        for at in rng.integers(0, 320, rng.integers(1, 4)):
            damaged[at] = rng.integers(0, 256)
        file.write_bytes(damaged)
        with contextlib.suppress(ArtefactError):
            import_control_vector(file, IDENTITY)
            n_read += 1
    assert 0 < n_read < 400


def test_inspect_shows_a_control_vector(tmp_path: Path) -> None:
    made = Intervention(
        {block: Additive(single(block).astype(float)) for block in (1, 3)},
        IDENTITY,
        strength=2.0,
        positions=Positions(first_token=True),
    )
    facts = inspect_path(export_control_vector(made, tmp_path / "v.gguf"))
    assert (facts["kind"], facts["steers"], facts["width"]) == ("control vector", "blocks 1, 3", 64)
    assert (facts["model_hint"], facts["layer_count"]) == ("llama", 2)
    for block in (1, 3):
        assert facts["norms"][str(block)] == pytest.approx(2 * np.linalg.norm(single(block)))
    assert facts["made_by"]["cogit.content_hash"] == made.content_hash
    assert facts["made_by"]["cogit.strength"] == 2.0
    theirs = inspect_path(write(tmp_path / "w.gguf", {"direction.2": single(1)}))
    assert theirs["made_by"] is None
