"""Control-vector GGUF files: out to stock llama.cpp, in from others, and every bad file."""

from __future__ import annotations

import contextlib
import ctypes
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest

from cogit import (
    Ablation,
    Additive,
    ArtefactError,
    Commitment,
    Intervention,
    InterventionError,
    LowRank,
    Positions,
    Random,
    Unitary,
)
from cogit.backends.llamacpp import LlamaCppBackend
from cogit.identity import ModelIdentity
from cogit.inspection import inspect_path
from cogit.interop import export_control_vector, import_control_vector, read_control_vector
from tiny_llama import D_MODEL, N_LAYER, N_VOCAB, TinyLlama

if TYPE_CHECKING:
    from numpy.typing import NDArray

IDENTITY = ModelIdentity("tiny", "llama", N_LAYER, D_MODEL, N_VOCAB)
EVERY_TOKEN = Positions(first_token=True)
IDS = np.random.default_rng(1).integers(0, N_VOCAB, 33).tolist()


def vector(seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(D_MODEL)


def additive(*blocks: int, **options: Any) -> Intervention:
    operators = {block: Additive(vector(block)) for block in blocks}
    return Intervention(operators, IDENTITY, **{"positions": EVERY_TOKEN, **options})


# ---- out ----


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TinyLlama().write(tmp_path_factory.mktemp("cvec") / "tiny.gguf")


@pytest.fixture
def backend(model: Path) -> Iterator[LlamaCppBackend]:
    with LlamaCppBackend(model, n_ctx=64, threads=1, kv_type="f32") as opened:
        yield opened


def stock_logits(backend: LlamaCppBackend, file: Path, scale: float = 1.0) -> NDArray[np.float32]:
    """As llama.cpp's own command line does it, with nothing of cogit's in the graph.

    Its loader puts direction.i at offset (i − 1)·d_model, scaled, and steers blocks 1..n_layer.
    """
    data = np.zeros((N_LAYER - 1, D_MODEL), np.float32)
    for tensor in gguf.GGUFReader(file).tensors:
        data[int(tensor.name.removeprefix("direction.")) - 1] = np.float32(scale) * tensor.data
    engine = backend.engine
    pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    api, context = engine._api, engine._context
    assert api.llama_set_adapter_cvec(context, pointer, data.size, D_MODEL, 1, N_LAYER) == 0
    logits = backend.logits([IDS])[0]
    assert api.llama_set_adapter_cvec(context, None, 0, 0, 0, 0) == 0
    assert engine.stats().placed_layers == ()
    return logits


@pytest.mark.llamacpp
@pytest.mark.parametrize("blocks", [(1,), (2,), (3,), (1, 3), (1, 2, 3)], ids=str)
@pytest.mark.parametrize("strength", [1.0, 0.37, -2.0])
def test_export_runs_in_stock_llama_cpp(
    backend: LlamaCppBackend, blocks: tuple[int, ...], strength: float, tmp_path: Path
) -> None:
    """Acceptance 6, first half: identical to the last bit, as both add the same float32s."""
    made = additive(*blocks, strength=strength)
    file = export_control_vector(made, tmp_path / "v.gguf")
    plain = backend.logits([IDS])[0]
    with backend.steer(made):
        ours = backend.logits([IDS])[0]
    assert np.array_equal(stock_logits(backend, file), ours)
    assert np.abs(ours - plain).max() > 0.5
    assert np.array_equal(backend.logits([IDS])[0], plain)  # both are gone again


@pytest.mark.llamacpp
def test_kept_strength_is_a_scale_for_stock_llama_cpp(
    backend: LlamaCppBackend, tmp_path: Path
) -> None:
    made = additive(1, 3, strength=-1.5)
    file = export_control_vector(made, tmp_path / "v.gguf", strength="kept")
    with backend.steer(made):
        ours = backend.logits([IDS])[0]
    # λ times a float32 vector is rounded again: a few units in the last place of the states.
    difference = np.abs(stock_logits(backend, file, scale=-1.5) - ours).max()
    assert difference <= 64 * np.finfo(np.float32).eps * np.abs(ours).max()


@pytest.mark.llamacpp
def test_each_direction_acts_after_its_own_block(backend: LlamaCppBackend, tmp_path: Path) -> None:
    """Against the float64 reference, so that both sides cannot be off by the same block."""
    for block in (1, 2, 3):
        file = export_control_vector(additive(block), tmp_path / "v.gguf")
        expected = TinyLlama().forward(IDS, {block: lambda h, b=block: h + vector(b)}).logits
        for found in (stock_logits(backend, file), _imported_logits(backend, file)):
            error = np.abs(found - expected).max() / np.abs(expected).max()
            assert error < 64 * np.finfo(np.float32).eps  # as in test_llama_engine


def _imported_logits(backend: LlamaCppBackend, file: Path) -> NDArray[np.float32]:
    with backend.steer(import_control_vector(file, backend.identity)):
        return np.asarray(backend.logits([IDS])[0])


@pytest.mark.parametrize(
    "operator",
    [
        Additive(vector(0)),
        Commitment.draw(D_MODEL, seed=1),
        Random.example(D_MODEL, 2),
    ],
    ids=lambda operator: operator.kind,
)
def test_round_trip(operator: Any, tmp_path: Path) -> None:
    made = Intervention({2: operator}, IDENTITY, strength=0.7, positions=EVERY_TOKEN)
    file = export_control_vector(made, tmp_path / "v.gguf")
    again = import_control_vector(file, IDENTITY)
    assert np.array_equal(again.folds()[2].c, made.folds()[2].c)
    assert again.positions == EVERY_TOKEN
    assert again.lineage["sha256"] == read_control_vector(file).sha256
    assert again.lineage["layer_count"] == 1
    assert again.lineage["model_hint"] == "llama"
    again.save(tmp_path / "again")
    assert Intervention.load(tmp_path / "again").lineage == again.lineage
    assert export_control_vector(made, tmp_path / "w.gguf").read_bytes() == file.read_bytes()


def refused_exports() -> dict[str, tuple[Intervention, str]]:
    def one(operator: Any, **options: Any) -> Intervention:
        return Intervention({1: operator}, IDENTITY, **{"positions": EVERY_TOKEN, **options})

    return {
        "block 0": (additive(0, 1), "block 0"),
        "unitary": (one(Unitary.example(D_MODEL, 0)), "unitary of rank"),
        "ablation": (one(Ablation.example(D_MODEL, 0)), "ablation of rank"),
        "lowrank": (one(LowRank.example(D_MODEL, 0)), "lowrank of rank"),
        "prompt": (additive(1, positions=Positions("prompt", first_token=True)), "got prompt"),
        "range": (additive(1, positions=Positions("range", 2, 9)), "got 2-9"),
        "first token": (additive(1, positions=Positions()), "every_token"),
        "strength 0": (additive(1, strength=0.0), "changes something"),
        "zero": (one(Additive(np.zeros(D_MODEL))), "changes something"),
    }


@pytest.mark.parametrize("case", refused_exports())
def test_what_a_control_vector_cannot_say_is_refused_by_name(case: str, tmp_path: Path) -> None:
    made, message = refused_exports()[case]
    with pytest.raises(InterventionError, match=message) as error:
        export_control_vector(made, tmp_path / "v.gguf")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_gates_are_refused_by_name(tmp_path: Path) -> None:
    gated = additive(1)
    object.__setattr__(gated, "gate", SimpleNamespace(kind="similarity"))
    with pytest.raises(InterventionError, match=r"no gate.*on the intervention"):
        export_control_vector(gated, tmp_path / "v.gguf")
    on_a_block = additive(1)
    object.__setattr__(on_a_block.operators[1], "gate", SimpleNamespace(kind="similarity"))
    with pytest.raises(InterventionError, match=r"no gate.*on block 1"):
        export_control_vector(on_a_block, tmp_path / "v.gguf")


def test_a_norm_restore_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fold = Additive.fold
    monkeypatch.setattr(
        Additive, "fold", lambda self, s: type(f := fold(self, s))(f.A, f.a0, f.B, f.c, True)
    )
    with pytest.raises(InterventionError, match=r"norm restore.*additive.*block 1"):
        export_control_vector(additive(1), tmp_path / "v.gguf")


def test_the_first_token_is_accepted_where_the_caller_says_so(tmp_path: Path) -> None:
    for positions in (Positions(), Positions("range", 0, None)):
        made = additive(1, positions=positions)
        file = export_control_vector(made, tmp_path / "v.gguf", every_token=True)
        assert import_control_vector(file, IDENTITY).positions.first_token


def test_kept_wants_a_vector_that_grows_with_the_strength(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = Additive.fold
    monkeypatch.setattr(Additive, "fold", lambda self, s: fold(self, s * abs(s)))
    made = additive(1, strength=2.0)
    with pytest.raises(InterventionError, match="grows with the strength"):
        export_control_vector(made, tmp_path / "v.gguf", strength="kept")
    export_control_vector(made, tmp_path / "v.gguf")
    with pytest.raises(ValueError, match="folded or kept"):
        export_control_vector(made, tmp_path / "v.gguf", strength="half")  # type: ignore[arg-type]


# ---- in ----


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


def test_other_files_are_refused(model: Path, tmp_path: Path) -> None:
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
    made = additive(1, 3, strength=2.0)
    facts = inspect_path(export_control_vector(made, tmp_path / "v.gguf"))
    assert (facts["kind"], facts["steers"], facts["width"]) == ("control vector", "blocks 1, 3", 64)
    assert (facts["model_hint"], facts["layer_count"]) == ("llama", 2)
    for block in (1, 3):
        assert facts["norms"][str(block)] == pytest.approx(2 * np.linalg.norm(vector(block)))
    assert facts["made_by"]["cogit.content_hash"] == made.content_hash
    assert facts["made_by"]["cogit.strength"] == 2.0
    theirs = inspect_path(write(tmp_path / "w.gguf", {"direction.2": single(1)}))
    assert theirs["made_by"] is None
