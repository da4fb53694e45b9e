"""Contrastive PCA of torch tensors: the same results, computed where the tensors lie."""

from __future__ import annotations

import io
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cogit import extractors
from cogit.extractors import contrastive_pca

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
        ],
    ),
]


def rows(n_layers: int, n: int, d_model: int, seed: int) -> torch.Tensor:
    """A falling spectrum, so that the leading eigenvalues stand apart."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((n_layers, n, d_model)) * np.linspace(2.0, 0.1, d_model)
    return torch.from_numpy(drawn)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("n_fore", "n_back", "d_model"), [(9, 6, 64), (30, 20, 12), (1, 1, 5)])
def test_equals_numpy(
    device: str, dtype: torch.dtype, n_fore: int, n_back: int, d_model: int
) -> None:
    """Row P3: every float dtype is upcast, results stay on the device of the input."""
    fore = rows(3, n_fore, d_model, 0).to(device, dtype)
    back = rows(3, n_back, d_model, 1).to(device, dtype)
    values, vectors = contrastive_pca(fore, back, 0.7, n_components=2)
    assert values.dtype == vectors.dtype == torch.float64
    assert values.device == vectors.device == fore.device
    exact = [x.to("cpu", torch.float64).numpy() for x in (fore, back)]
    expected, directions = contrastive_pca(*exact, 0.7, n_components=2)
    # The same steps in the same precision; only the order of sums differs.
    np.testing.assert_allclose(values.cpu().numpy(), expected, rtol=1e-10)
    cosines = np.abs((vectors.cpu().numpy() * directions).sum(axis=1))
    np.testing.assert_allclose(cosines, 1.0, atol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
def test_equals_dense_eigenpairs_of_tensors(device: str) -> None:
    """Rows P1 and P3, without NumPy's route in between."""
    fore, back = (rows(1, n, 48, n)[0].to(device) for n in (10, 7))
    values, vectors = contrastive_pca(fore, back, 0.5)
    dense = fore.T @ fore / 10 - 0.5 * back.T @ back / 7
    np.testing.assert_allclose(
        (dense @ vectors).cpu(), (vectors * values).cpu(), atol=1e-10 * float(values.abs().max())
    )
    np.testing.assert_allclose((vectors.T @ vectors).cpu(), np.eye(17), atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_rows_that_depend_on_each_other(device: str, rank: int) -> None:
    """Centred and repeated rows take the branch that fills the basis up."""
    rng = np.random.default_rng(rank)
    drawn = rng.standard_normal((8, rank)) @ rng.standard_normal((rank, 64))
    both = torch.from_numpy(drawn).to(device)
    values, vectors = contrastive_pca(both[:4], both[4:])
    assert int((values.abs() > 1e-12).sum()) == rank
    np.testing.assert_allclose((vectors.T @ vectors).cpu(), np.eye(8), atol=1e-12)


def test_the_source_moves_nothing_to_the_host() -> None:
    """Row P3: no ``.cpu()``, ``.numpy()``, ``.tolist()`` or ``.item()`` where tensors are taken."""
    source = Path(extractors.__file__).with_name("contrast.py").read_text(encoding="utf-8")
    words = [token.string for token in tokenize.generate_tokens(io.StringIO(source).readline)]
    methods = {words[i + 1] for i, word in enumerate(words[:-1]) if word == "."}
    assert not methods & {"cpu", "numpy", "tolist", "item"}
    assert {"linalg", "empty"} <= methods  # the test reads what it means to


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((torch.ones(3, 8), np.ones((2, 8))), "got Tensor and ndarray"),
        ((np.ones((3, 8)), [[1.0] * 8]), "got ndarray and list"),
        ((torch.ones(3, 8, dtype=torch.int64), torch.ones(2, 8)), r"got torch\.int64 and torch\."),
        ((np.ones((3, 8), int), np.ones((2, 8))), "got int64 and float64"),
        ((torch.ones(3, 8), torch.ones(2, 8, device="meta")), "tensors on cpu and meta"),
        ((torch.ones(3, 8, dtype=torch.complex64),) * 2, "got torch.complex64"),
    ],
)
def test_other_inputs_are_refused(inputs: Any, message: str) -> None:
    with pytest.raises(TypeError, match=rf"^\[contrastive_pca\] expected two float .*{message}"):
        contrastive_pca(*inputs)


def test_tensors_that_are_not_finite_are_refused() -> None:
    spoilt = torch.ones(3, 8)
    spoilt[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"^\[contrastive_pca\] expected finite states"):
        contrastive_pca(torch.ones(2, 8), spoilt)


def test_a_failure_of_torch_is_numpys_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row P5: one error to fall back on, whichever library failed."""

    def fail(matrix: torch.Tensor) -> Any:
        message = "linalg.eigh: failed to converge"
        raise torch.linalg.LinAlgError(message)

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    with pytest.raises(np.linalg.LinAlgError, match=r"^\[contrastive_pca\] .*failed to converge"):
        contrastive_pca(torch.ones(2, 8), torch.ones(3, 8))


def test_gradients_are_not_kept() -> None:
    """Leaves that require gradients are data here."""
    fore = torch.randn(3, 8, requires_grad=True)
    values, vectors = contrastive_pca(fore, torch.randn(2, 8))
    assert not values.requires_grad
    assert not vectors.requires_grad
