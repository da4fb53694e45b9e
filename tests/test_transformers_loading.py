"""The transformers backend at other precisions, on other devices, and from files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from _models import (
    D_MODEL,
    N_LAYERS,
    prompt,
    steering,
    tiny_backend,
    tokens,
    turn,
    word_tokenizer,
)
from cogit import load_backend, reference
from cogit.backends.hooks import kernel_name, uses_kernel
from cogit.backends.transformers import TransformersBackend
from cogit.devices import resolve_device
from cogit.kernels import plain
from cogit.positions import Positions
from cogit.sampling import SamplingOptions

if TYPE_CHECKING:
    from pathlib import Path


SAMPLING = SamplingOptions(max_tokens=12, temperature=0.8, seed=3)


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    return tiny_backend()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("positions", [Positions(), Positions("generated")], ids=str)
def test_half_precision(dtype: torch.dtype, positions: Positions) -> None:
    backend = tiny_backend(dtype=dtype)
    assert backend.precision == torch.finfo(dtype).eps
    intervention = steering(backend, [0, 2], positions=positions)
    ids = tokens(9)
    with backend.steer(intervention) as found:
        probe = backend.probe([ids], range(N_LAYERS), n_prompt=5)[0]
        sample = backend.generate([prompt(4)], SAMPLING)[0]
    assert found is not None
    assert probe.before.dtype == probe.after.dtype == probe.logits.dtype == np.float32
    begin = positions.window(5)[0]
    expected = reference.affine_apply(intervention.folds()[0], probe.before[0, begin:])
    # The change is computed in float32 and rounded once.
    np.testing.assert_allclose(
        probe.after[0, begin:], expected, rtol=torch.finfo(dtype).eps, atol=1e-6
    )
    assert len(sample.ids) > 0


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_plain_torch_equals_the_reference(restore: bool, masked: bool) -> None:
    affine = turn(restore=restore).fold(0.8)
    rows = torch.randn(6, D_MODEL, generator=torch.Generator().manual_seed(0))
    rows[4] = 0.0
    strengths = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 1.0]) if masked else None
    weights = [torch.from_numpy(x) for x in (affine.A, affine.a0, affine.B, affine.c)]
    got = plain.affine_apply(rows, *weights, affine.restore, strengths)
    expected = reference.affine_apply(
        affine, rows, None if strengths is None else strengths.numpy()
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    if masked:
        assert torch.equal(got[[1, 3]], rows[[1, 3]])


def test_which_kernel_serves_which_model() -> None:
    cpu, meta = torch.device("cpu"), torch.device("meta")
    assert all(uses_kernel(cpu, t) for t in (torch.float32, torch.bfloat16, torch.float16))
    assert kernel_name(cpu, torch.bfloat16) == "compiled"
    assert kernel_name(cpu, torch.float64) == "plain torch on cpu in float64"
    assert kernel_name(meta, torch.float32) == "plain torch on meta in float32"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_passes_a_steered_block(dtype: torch.dtype) -> None:
    """As when something is trained through the frozen, steered model."""
    backend = tiny_backend(dtype=dtype)
    ids = torch.tensor([tokens(6)])
    embedded = backend.model.get_input_embeddings()(ids).detach().requires_grad_()
    with backend.steer(steering(backend, [0]), verify=False):
        backend.model(inputs_embeds=embedded).logits.square().sum().backward()
    steered = embedded.grad
    embedded.grad = None
    backend.model(inputs_embeds=embedded).logits.square().sum().backward()
    assert steered is not None
    assert embedded.grad is not None
    assert torch.isfinite(steered).all()
    assert not torch.allclose(steered, embedded.grad)


def test_loading_a_folder(backend: TransformersBackend, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    backend.model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    loaded = load_backend("transformers", folder, device="cpu")
    assert isinstance(loaded, TransformersBackend)
    ids = tokens(6)
    np.testing.assert_array_equal(loaded.logits([ids])[0], backend.logits([ids])[0])
    assert loaded.identity.name == "tiny"
    assert len(loaded.identity.fingerprint) == 32
    half = load_backend("transformers", folder, device="cpu", dtype="bf16")
    assert half.precision == torch.finfo(torch.bfloat16).eps


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (tmp_path / "none", {}, FileNotFoundError, r"^\[model\] expected a model folder or hub id"),
        (tmp_path / "empty", {}, FileNotFoundError, r"^\[model\] expected a folder with config"),
        (tmp_path / "m.gguf", {}, ValueError, r"^\[model\] .* use llamacpp$"),
        ("no-such.gguf", {}, ValueError, r"^\[model\] .* use llamacpp$"),
        (tmp_path, {"dtype": "f8"}, ValueError, r"^\[dtype\] expected one of f32, bf16, f16"),
        (tmp_path, {"device": "abacus"}, ValueError, r"^\[device\] expected auto, cpu, cuda"),
    ]
    for model, options, kind, message in cases:
        with pytest.raises(kind, match=message):
            load_backend("transformers", model, **options)
    with pytest.raises(ValueError, match=r"^\[backend\] expected one of transformers, llamacpp"):
        load_backend("onnx", tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has the device that must be missed")
def test_an_absent_device_is_refused() -> None:
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(ValueError, match=r"^\[device\] expected a CUDA device, got none"):
        resolve_device("cuda")
