"""Our vectors in stock llama.cpp, by control-vector GGUF files."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest

from cogit import (
    Ablation,
    Additive,
    Commitment,
    Intervention,
    InterventionError,
    LowRank,
    Positions,
    Random,
    Unitary,
)
from cogit.backends.llamacpp import LlamaCppBackend
from cogit.gates import Gate
from cogit.identity import ModelIdentity
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
    """Identical to the last bit, as both add the same float32s."""
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
    """Also where they open for every token: the file could not say so."""
    always = Gate(np.ones(D_MODEL), np.zeros(D_MODEL), -1e9)
    some = Gate(np.ones(D_MODEL), np.zeros(D_MODEL), 0.0, width=0.5, scope="prompt")
    for gates, where in ((some, "block 1, block 2"), ({2: always}, "block 2")):
        gated = additive(1, 2).gated(gates)
        with pytest.raises(InterventionError, match=rf"no gate.*on {where};") as error:
            export_control_vector(gated, tmp_path / "v.gguf")
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
    export_control_vector(gated.ungated(), tmp_path / "v.gguf")


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
