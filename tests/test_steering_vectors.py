"""Steering vectors as plain tensors: what their numbers mean, and every bad file."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from _models import D_MODEL, IDENTITY, N_LAYERS, push, tiny_backend, tokens
from cogit import Additive, ArtefactError, Intervention, InterventionError, Positions, Unitary
from cogit.inspection import inspect_path
from cogit.interop import export_vectors, import_vectors, load_vectors, vectors_to_intervention

if TYPE_CHECKING:
    from numpy.typing import NDArray

EVERY_TOKEN = Positions(first_token=True)


def vector(seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(D_MODEL)


# ---- dictionaries ----


@pytest.mark.parametrize("kind", ["float64", "float32", "bfloat16", "row", "parameter"])
def test_arrays_and_tensors(kind: str) -> None:
    value: Any = {
        "float64": vector(1),
        "float32": vector(1).astype(np.float32),
        "bfloat16": torch.from_numpy(vector(1)).bfloat16(),
        "row": torch.from_numpy(vector(1))[None, None],
        "parameter": torch.nn.Parameter(torch.from_numpy(vector(1))),
    }[kind]
    made = vectors_to_intervention({np.int64(2): value}, IDENTITY, convention="block", strength=2.0)
    tolerance = {"bfloat16": 2.0**-8, "float32": 2.0**-23}.get(kind, 0.0)
    found = made.operators[2]
    assert isinstance(found, Additive)
    np.testing.assert_allclose(found.vector, vector(1), rtol=tolerance)
    assert (made.strength, made.positions) == (2.0, EVERY_TOKEN)
    assert made.lineage["numbers"] == [2]


def test_conventions_are_one_block_apart() -> None:
    """hidden_states[i] is the output of block i − 1: seen in a model, on unsteered states."""
    made = {
        convention: vectors_to_intervention({1: vector(1)}, IDENTITY, convention=convention)
        for convention in ("block", "hidden-states")
    }
    assert made["block"].layers == (1,)
    assert made["hidden-states"].layers == (0,)
    with tiny_backend() as backend:
        ids = tokens(9)
        with torch.no_grad():
            states = backend.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        with backend.steer(made["hidden-states"]):
            probe = backend.probe([ids], made["hidden-states"].layers)[0]
    np.testing.assert_array_equal(probe.before[0], states[1][0].numpy())
    added = np.broadcast_to(vector(1), probe.before[0].shape)
    # float32 sums of numbers below 8.
    np.testing.assert_allclose(probe.after[0] - probe.before[0], added, atol=2.0**-20)


@pytest.mark.parametrize(
    ("vectors", "convention", "error", "message"),
    [
        ({0: vector(0)}, "hidden-states", ValueError, r"1\.\.3 .*got 0"),
        ({N_LAYERS: vector(0)}, "block", ValueError, r"0\.\.2 .*got 3"),
        ({N_LAYERS + 1: vector(0)}, "hidden-states", ValueError, "got 4"),
        ({-1: vector(0)}, "block", ValueError, "got -1"),
        ({1.5: vector(0)}, "block", TypeError, "whole numbers"),
        ({True: vector(0)}, "block", TypeError, "whole numbers"),
        ({"1": vector(0)}, "block", TypeError, "whole numbers"),
        ({1: vector(0)[:-1]}, "block", ValueError, r"width 64.*\(63,\)"),
        ({1: vector(0).reshape(8, 8)}, "block", ValueError, r"\(8, 8\)"),
        ({1: vector(0)[:, None]}, "block", ValueError, r"\(64, 1\)"),
        ({1: np.float64(1)}, "block", ValueError, "width"),
        ({1: np.ones(D_MODEL, int)}, "block", TypeError, "int64"),
        ({1: torch.ones(D_MODEL, dtype=torch.bool)}, "block", TypeError, "bool"),
        ({1: np.ones(D_MODEL, complex)}, "block", TypeError, "complex"),
        ({1: np.full(D_MODEL, np.nan)}, "block", ValueError, "finite"),
        ({1: np.zeros(D_MODEL)}, "block", ValueError, "other than zero"),
        ({}, "block", ValueError, "at least one block"),
        ({1: vector(0)}, "layer", ValueError, "block or hidden-states"),
    ],
    ids=range(18),
)
def test_bad_dictionaries(
    vectors: dict[Any, Any], convention: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        vectors_to_intervention(vectors, IDENTITY, convention=convention)
    assert "\n" not in str(caught.value)


# ---- files ----


def save(path: Path, vectors: dict[str, NDArray[Any]]) -> Path:
    """The same dictionary in whichever format the suffix names."""
    if path.suffix == ".safetensors":
        safetensors.numpy.save_file(vectors, path)
    elif path.suffix == ".npz":
        np.savez_compressed(path, **vectors)  # type: ignore[arg-type]
    else:
        torch.save({name: torch.from_numpy(v) for name, v in vectors.items()}, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt", ".pth"])
def test_files_of_named_vectors(suffix: str, tmp_path: Path) -> None:
    file = save(tmp_path / f"v{suffix}", {"layer.2": vector(2), "layer.1": vector(1)})
    found = load_vectors(file)
    assert list(found) == [1, 2]
    for number in (1, 2):
        assert np.array_equal(found[number], vector(number))
    assert list(load_vectors(file, layers=[2])) == [2]
    made = import_vectors(file, IDENTITY, convention="hidden-states", strength=0.5)
    assert made.layers == (0, 1)
    assert made.lineage["numbers"] == [1, 2]
    assert made.lineage["file"] == file.name
    assert len(made.lineage["sha256"]) == 64
    with pytest.raises(ArtefactError, match=r"among 1, 2 .*got 2, 3"):
        import_vectors(file, IDENTITY, convention="block", layers=[3, 2])


def test_names_that_hold_one_number(tmp_path: Path) -> None:
    for name in ("1", "layer_1", "direction.1", "model.layers.1.resid_post", "L01"):
        file = save(tmp_path / "v.safetensors", {name: vector(1)})
        assert list(load_vectors(file)) == [1]
    file = tmp_path / "v.pt"
    torch.save({1: torch.from_numpy(vector(1)).bfloat16()}, file)
    assert list(load_vectors(file)) == [1]
    file = tmp_path / "b.safetensors"
    safetensors.torch.save_file({"1": torch.from_numpy(vector(1)).bfloat16()}, file)
    assert list(load_vectors(file)) == [1]


def test_one_vector_goes_where_it_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", vector(1))
    torch.save(torch.from_numpy(vector(1))[None], tmp_path / "v.pt")
    save(tmp_path / "v.safetensors", {"vector": vector(1)})
    for name in ("v.npy", "v.pt", "v.safetensors"):
        made = import_vectors(tmp_path / name, IDENTITY, convention="block", layers=[0, 2])
        assert made.layers == (0, 2)
        assert np.array_equal(made.folds()[2].c, vector(1).astype(np.float32))
        with pytest.raises(ArtefactError, match="number of the layer"):
            import_vectors(tmp_path / name, IDENTITY, convention="block")


def test_stacks_have_a_row_for_each_number(tmp_path: Path) -> None:
    rows = np.stack([vector(i) for i in range(N_LAYERS + 1)])
    blocks, states = tmp_path / "blocks.npy", tmp_path / "states.npy"
    np.save(blocks, rows[:-1])
    np.save(states, rows)
    assert import_vectors(blocks, IDENTITY, convention="block").layers == (0, 1, 2)
    made = import_vectors(states, IDENTITY, convention="hidden-states", layers=[1, 3])
    assert made.layers == (0, 2)
    assert np.array_equal(made.folds()[2].c, vector(3).astype(np.float32))
    with pytest.raises(ArtefactError, match=r"row 0 .*embeddings"):
        import_vectors(states, IDENTITY, convention="hidden-states")
    with pytest.raises(ArtefactError, match=r"expected 3 rows.*got 4"):
        import_vectors(states, IDENTITY, convention="block")
    with pytest.raises(ArtefactError, match=r"expected 4 rows.*got 3"):
        import_vectors(blocks, IDENTITY, convention="hidden-states", layers=[1])


# ---- bad files ----


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('unpickled')",))


def npy(shape: tuple[int, ...], descr: str = "<f8", data: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + data


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def safe(tensors: dict[str, NDArray[Any]], **metadata: str) -> bytes:
    return safetensors.numpy.save(tensors, metadata=metadata)


def safe_header(header: dict[str, Any], data: bytes = b"") -> bytes:
    content = json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + data


EYE = torch.eye(D_MODEL)
V = vector(1)
BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "suffix": (".txt", b"1 2 3", "a suffix among"),
    "pickle as npy": (".npy", pickle.dumps(Evil()), "a NumPy array"),
    "objects in npy": (".npy", npy((1,), "|O", pickle.dumps([Evil()])), "floats"),
    "objects in npz": (".npz", zipped(a1=npy((1,), "|O", pickle.dumps([Evil()]))), "floats"),
    "huge npy": (".npy", npy((2**40,)), "bytes of data"),
    "overflowing npy": (".npy", npy((2**40, 2**40)), "bytes of data"),
    "negative npy": (".npy", npy((-1,), data=bytes(8)), "bytes of data"),
    "huge npz": (".npz", zipped(layer1=npy((2**40,))), "bytes of data"),
    "truncated npy": (".npy", npy((D_MODEL,), data=V.tobytes())[:-1], "bytes of data"),
    "integers": (".npy", npy((2,), "<i8", bytes(16)), "floats"),
    "NaN": (".npy", npy((2,), data=np.full(2, np.nan).tobytes()), "finite"),
    "not a zip": (".npz", b"hello", "zip file"),
    "an empty zip": (".npz", b"PK\5\6" + bytes(18), "at least one vector"),
    "code in pt": (".pt", saved({"1": Evil()}), "tensors alone"),
    "bare pickle": (".pt", pickle.dumps({1: 2}), "zip file"),
    "old pt": (".pt", saved({1: EYE[0]}, _use_new_zipfile_serialization=False), "zip file"),
    "truncated pt": (".pt", saved({1: EYE[0]})[:-40], "zip file"),
    "claims of a view": (".pt", saved({1: torch.zeros(1).expand(2**40)}), "at most"),
    "sparse": (".pt", saved({1: EYE[0].to_sparse()}), "dense"),
    "meta": (".pt", saved({1: torch.zeros(2**40, device="meta")}), "dense"),
    "whole numbers": (".pt", saved({1: torch.arange(4)}), "floats"),
    "a list": (".pt", saved([EYE[0]]), "tensors by number or name"),
    "a nested dictionary": (".pt", saved({1: {"vector": EYE[0]}}), "a tensor at '1', got dict"),
    "a keyed tuple": (".pt", saved({(1, 2): EYE[0]}), "tensors by number or name"),
    "negative number": (".pt", saved({-1: EYE[0]}), "from 0 on"),
    "two numbers": (".safetensors", safe({"blocks.1.head.2": V}), "one layer number"),
    "no number among several": (".safetensors", safe({"a": V, "b1": V}), "one layer number"),
    "a number twice": (".safetensors", safe({"a1": V, "b1": V}), "1 twice"),
    "a column": (".safetensors", safe({"1": V[:, None]}), "vector"),
    "a matrix": (".safetensors", safe({"1": np.eye(D_MODEL)}), "vector"),
    "an empty tensor": (".safetensors", safe({"1": np.zeros(0)}), "vector"),
    "nothing": (".safetensors", safe_header({"__metadata__": {}}), "at least one vector"),
    "truncated safetensors": (".safetensors", safe({"1": V})[:-1], "whole safetensors"),
    "huge safetensors": (
        ".safetensors",
        safe_header({"1": {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}}),
        "whole safetensors",
    ),
    "huge header": (".safetensors", struct.pack("<Q", 2**60), "whole safetensors"),
    "metadata": (".safetensors", safe({"1": V}, cogit_vectors="[" * 99999), "JSON"),
    "metadata of another type": (".safetensors", safe({"1": V}, cogit_vectors="3"), "JSON"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused(case: str, tmp_path: Path) -> None:
    suffix, content, message = BAD_FILES[case]
    file = tmp_path / f"v{suffix}"
    file.write_bytes(content)
    with pytest.raises(ArtefactError, match=message) as caught:
        load_vectors(file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_absent_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_vectors(tmp_path / "absent.npy")
    with pytest.raises(FileNotFoundError):
        load_vectors(tmp_path)
    own = Intervention({1: push()}, IDENTITY).save(tmp_path / "own.safetensors")
    with pytest.raises(ArtefactError, match="cogit's own intervention"):
        load_vectors(own)


def test_sizes_are_checked_unread_and_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large.npy"
    with large.open("wb") as stream:
        stream.truncate(2**28 + 1)  # sparse
    with pytest.raises(ArtefactError, match="at most 256 MiB"):
        load_vectors(large)
    monkeypatch.setattr("cogit.interop.tensor_files._MAX_FILE", 2**20)
    bomb = tmp_path / "bomb.npz"
    bomb.write_bytes(zipped(layer1=npy((2**17 + 1,), data=bytes(2**20 + 8))))
    assert bomb.stat().st_size < 2**13
    with pytest.raises(ArtefactError, match="at most 1 MiB"):
        load_vectors(bomb)


# ---- out ----


@pytest.mark.parametrize("convention", ["block", "hidden-states"])
@pytest.mark.parametrize("mode", ["folded", "kept"])
def test_round_trip(convention: Any, mode: Any, tmp_path: Path) -> None:
    operators = {0: Additive(vector(0)), 2: Additive(vector(2))}
    made = Intervention(operators, IDENTITY, strength=-0.5, positions=EVERY_TOKEN)
    file = export_vectors(made, tmp_path / "v.safetensors", convention=convention, strength=mode)
    shift = 0 if convention == "block" else 1
    assert sorted(safetensors.numpy.load_file(file)) == [f"layer.{i + shift}" for i in (0, 2)]
    again = import_vectors(
        file, IDENTITY, convention=convention, strength=1.0 if mode == "folded" else -0.5
    )
    assert again.layers == made.layers
    for block, fold in made.folds().items():  # a power of two: no second rounding
        assert np.array_equal(again.folds()[block].c, fold.c)
    other: Any = "block" if shift else "hidden-states"
    with pytest.raises(ArtefactError, match=f"expected the convention {convention}"):
        import_vectors(file, IDENTITY, convention=other)
    second = export_vectors(made, tmp_path / "w.safetensors", convention=convention, strength=mode)
    assert second.read_bytes() == file.read_bytes()


def test_export_refuses_what_vectors_cannot_say(tmp_path: Path) -> None:
    turned = Intervention({1: Unitary.example(D_MODEL, 0)}, IDENTITY, positions=EVERY_TOKEN)
    with pytest.raises(InterventionError, match="a file of steering vectors can hold, got unitary"):
        export_vectors(turned, tmp_path / "v.safetensors")
    with pytest.raises(InterventionError, match="every_token"):
        export_vectors(Intervention({0: push()}, IDENTITY), tmp_path / "v.safetensors")
    assert not list(tmp_path.iterdir())


def test_inspect_shows_vectors_and_kinds_it_does_not_know(tmp_path: Path) -> None:
    made = Intervention({0: push()}, IDENTITY, positions=EVERY_TOKEN)
    facts = inspect_path(export_vectors(made, tmp_path / "v.safetensors"))
    assert facts["kind"] == "steering vectors"
    assert facts["tensors"] == {"layer.0": "F32 [64]"}
    assert facts["metadata"]["convention"] == "block"
    assert facts["metadata"]["content_hash"] == made.content_hash

    from cogit import artefact

    file = artefact.write(tmp_path / "s", "something new", {"basis": V[None]}, {"layer": 3})
    facts = inspect_path(file)
    assert (facts["kind"], facts["metadata"]) == ("something new", {"layer": 3})
    assert facts["tensors"] == {"basis": "F64 [1, 64]"}
    (tmp_path / "bad").write_bytes(safe({"1": V}, format="cogit", kind="x", json="{"))
    with pytest.raises(ArtefactError, match="JSON metadata"):
        inspect_path(tmp_path / "bad")


def test_inspect_shows_folders_with_a_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"kind": "something kept", "layers": [1]}), encoding="utf-8")
    (tmp_path / "shard").write_bytes(bytes(10))
    facts = inspect_path(tmp_path)
    assert (facts["kind"], facts["metadata"]["layers"]) == ("something kept", [1])
    assert facts["files"]["shard"] == 10
    for content in ("[", "[1]", "\ud800"):
        manifest.write_bytes(content.encode("utf-8", "surrogatepass"))
        with pytest.raises(ArtefactError, match="JSON"):
            inspect_path(tmp_path)
