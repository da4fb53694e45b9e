"""The same vector in steering-vectors, repeng, nnsight and here gives the same logits.

Needs ``pip install '.[test,interop]'`` in an environment of its own and without requirements.txt:
repeng wants numpy below 2 and steering-vectors transformers below 5. ``make test-interop`` runs it.
Written with steering-vectors 0.12.2, repeng 0.4.0, nnsight 0.8.1, torch 2.13.0, transformers 4.57.6
and numpy 1.26.4, where every difference was 0: all add the same float32 numbers to the same rows.
"""

from __future__ import annotations

import copy
import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import _convert_models
from _models import D_MODEL, N_LAYERS, tiny_model, tokens, word_tokenizer
from cogit import Additive, Intervention, Positions
from cogit.backends.llama_library import converter_path
from cogit.backends.llamacpp import LlamaCppBackend
from cogit.backends.transformers import TransformersBackend
from cogit.interop import (
    export_control_vector,
    import_control_vector,
    import_vectors,
    vectors_to_intervention,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = [
    pytest.mark.interop,
    # Other people's packages may warn; what they compute is what is tested.
    pytest.mark.filterwarnings("ignore"),
]

IDS = tokens(21, seed=7)
STRENGTH = -0.75
EVERY_TOKEN = Positions(first_token=True)
# The acceptance bound; logits here are a few units, one float32 rounding of which is 5e-7.
BOUND = 1e-5
BLOCKS = [(0,), (1,), (N_LAYERS - 1,), tuple(range(N_LAYERS))]


@pytest.fixture(scope="module", params=["Llama", "GPT2"])
def backend(request: pytest.FixtureRequest) -> Iterator[TransformersBackend]:
    with TransformersBackend(tiny_model(request.param), word_tokenizer(), name="tiny") as made:
        yield made


def drawn(blocks: tuple[int, ...], seed: int = 3) -> dict[int, NDArray[np.float32]]:
    """A float32 vector of length 3 at each block, as long as the states' change matters."""
    rng = np.random.default_rng(seed)
    vectors = {block: rng.standard_normal(D_MODEL) for block in blocks}
    return {b: (3 * v / np.linalg.norm(v)).astype(np.float32) for b, v in vectors.items()}


def ours(backend: Any, intervention: Intervention) -> NDArray[np.float32]:
    with backend.steer(intervention):
        return np.asarray(backend.logits([IDS])[0])


def theirs(model: Any) -> NDArray[np.float32]:
    with torch.no_grad():
        return np.asarray(model(torch.tensor([IDS])).logits[0])


def assert_same(
    found: NDArray[np.float32], expected: NDArray[np.float32], plain: NDArray[np.float32]
) -> None:
    difference = float(np.abs(found - expected).max())
    sys.stdout.write(f"largest difference {difference:.3g}\n")  # shown by pytest -rP
    assert difference <= BOUND
    assert np.abs(found - plain).max() > 0.1  # the vector does something


@pytest.mark.parametrize("blocks", BLOCKS, ids=str)
@pytest.mark.parametrize("first_token", [True, False])
def test_steering_vectors(
    backend: TransformersBackend, blocks: tuple[int, ...], first_token: bool, tmp_path: Path
) -> None:
    """Also by a file of tensors, which is how its vectors travel."""
    package = pytest.importorskip("steering_vectors", reason="needs the package steering-vectors")
    tensors = {block: torch.from_numpy(vector) for block, vector in drawn(blocks).items()}
    vector = package.SteeringVector(layer_activations=tensors)
    torch.save(vector.layer_activations, tmp_path / "vector.pt")
    plain = theirs(backend.model)
    with vector.apply(backend.model, multiplier=STRENGTH, min_token_index=0 if first_token else 1):
        expected = theirs(backend.model)
    made = import_vectors(
        tmp_path / "vector.pt",
        backend.identity,
        convention="block",
        strength=STRENGTH,
        positions=Positions(first_token=first_token),
    )
    assert made.layers == blocks
    assert_same(ours(backend, made), expected, plain)


@pytest.mark.parametrize("blocks", BLOCKS, ids=str)
def test_repeng_file_here(
    backend: TransformersBackend, blocks: tuple[int, ...], tmp_path: Path
) -> None:
    repeng = pytest.importorskip("repeng", reason="needs the package repeng")
    vector = repeng.ControlVector(backend.identity.architecture, drawn(blocks))
    vector.export_gguf(tmp_path / "vector.gguf")
    made = import_control_vector(tmp_path / "vector.gguf", backend.identity, strength=STRENGTH)
    assert made.layers == blocks
    assert made.lineage["layer_count"] == len(blocks)
    assert made.lineage["model_hint"] == backend.identity.architecture
    plain = theirs(backend.model)
    controlled = repeng.ControlModel(copy.deepcopy(backend.model), list(blocks))
    controlled.set_control(vector, STRENGTH)
    assert_same(ours(backend, made), theirs(controlled), plain)


@pytest.mark.parametrize("blocks", [(1,), (1, 2)], ids=str)
@pytest.mark.parametrize("mode", ["folded", "kept"])
def test_our_file_in_repeng(
    backend: TransformersBackend, blocks: tuple[int, ...], mode: Any, tmp_path: Path
) -> None:
    repeng = pytest.importorskip("repeng", reason="needs the package repeng")
    operators = {block: Additive(v.astype(np.float64)) for block, v in drawn(blocks).items()}
    made = Intervention(operators, backend.identity, strength=STRENGTH, positions=EVERY_TOKEN)
    file = export_control_vector(made, tmp_path / "vector.gguf", strength=mode)
    vector = repeng.ControlVector.import_gguf(file)
    assert vector.model_type == backend.identity.architecture
    controlled = repeng.ControlModel(copy.deepcopy(backend.model), list(blocks))
    controlled.set_control(vector, 1.0 if mode == "folded" else STRENGTH)
    assert_same(ours(backend, made), theirs(controlled), theirs(backend.model))


def test_repeng_trained_file_in_repeng_here_and_stock_llama_cpp(tmp_path: Path) -> None:
    """A vector that repeng fits itself: in its own model, both backends and the stock API."""
    repeng = pytest.importorskip("repeng", reason="needs the package repeng")
    model = tiny_model("Llama")
    model.save_pretrained(tmp_path / "model")
    command = [sys.executable, _convert_models.__file__, str(converter_path())]
    subprocess.run(
        [*command, str(tmp_path / "model")], check=True, capture_output=True, timeout=240
    )
    tokenizer = copy.deepcopy(word_tokenizer())
    tokenizer.pad_token = "</s>"
    pairs = [repeng.DatasetEntry(f"w{i} w5 w{i + 3}", f"w{i} w9 w{i + 3}") for i in range(20, 60)]
    vector = repeng.ControlVector.train(model, tokenizer, pairs, batch_size=8)
    assert sorted(vector.directions) == [1, 2]  # never block 0 by itself
    file = tmp_path / "vector.gguf"
    vector.export_gguf(file)

    with TransformersBackend(model, word_tokenizer(), name="tiny") as backend:
        made = import_control_vector(file, backend.identity, strength=4.0)
        plain, here = theirs(model), ours(backend, made)
    controlled = repeng.ControlModel(copy.deepcopy(model), [1, 2])
    controlled.set_control(vector, 4.0)
    assert_same(here, theirs(controlled), plain)

    gguf = tmp_path / "model.gguf"
    with LlamaCppBackend(gguf, n_ctx=64, threads=1, kv_type="f32") as backend:
        there = ours(backend, import_control_vector(file, backend.identity, strength=4.0))
    with LlamaCppBackend(gguf, n_ctx=64, threads=1, kv_type="f32") as backend:
        data = np.stack([4.0 * vector.directions[i] for i in (1, 2)]).astype(np.float32)
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        engine = backend.engine
        assert not engine._api.llama_set_adapter_cvec(
            engine._context, pointer, data.size, D_MODEL, 1, N_LAYERS
        )
        stock = backend.logits([IDS])[0]
    assert np.array_equal(there, stock)
    # Another engine sums in another order: the bound of test_architectures.
    assert np.abs(stock - here).max() <= 1e-4 * plain.std()


@pytest.mark.parametrize("blocks", BLOCKS, ids=str)
def test_nnsight(backend: TransformersBackend, blocks: tuple[int, ...]) -> None:
    """Its own trace adds the vector to the blocks' outputs."""
    nnsight = pytest.importorskip("nnsight", reason="needs the package nnsight")
    vectors = drawn(blocks)
    tensors = {b: STRENGTH * torch.from_numpy(vector) for b, vector in vectors.items()}
    plain = theirs(backend.model)
    wrapped = nnsight.NNsight(copy.deepcopy(backend.model))
    stack = wrapped.model.layers if hasattr(backend.model, "model") else wrapped.transformer.h
    returns_tuple = backend.identity.architecture == "gpt2"
    with torch.no_grad(), wrapped.trace(torch.tensor([IDS])):
        for block, tensor in tensors.items():
            hidden = stack[block].output[0] if returns_tuple else stack[block].output
            hidden[:] = hidden + tensor
        saved = wrapped.output.logits.save()
    made = vectors_to_intervention(vectors, backend.identity, convention="block", strength=STRENGTH)
    assert_same(ours(backend, made), saved[0].numpy(), plain)
