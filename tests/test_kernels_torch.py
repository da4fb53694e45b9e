"""The compiled affine on torch tensors: their own memory, gradients, and what it must refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cogit import kernels
from cogit.affine import Affine
from cogit.errors import BackendMissingError


def make_affine(d: int, rank: int) -> Affine:
    values = np.random.default_rng(0).normal(size=(2 * rank + 1, d)).astype(np.float32)
    return Affine(values[:rank], values[:rank, 0], values[rank:-1], values[-1], restore=True)


def test_torch_uses_the_same_memory() -> None:
    affine = make_affine(48, 3)
    h = torch.from_numpy(np.random.default_rng(9).normal(size=(5, 48)).astype(np.float32))
    strengths = torch.tensor([1.0, 0.0, 0.5, 1.0, -1.0])
    expected = kernels.affine_apply_numpy(affine, h.numpy(), strengths.numpy())
    got = kernels.affine_apply(affine, h, strengths)
    np.testing.assert_array_equal(got.numpy(), expected)
    assert got.is_contiguous()

    out = torch.empty(5, 96)[:, 48:]
    assert kernels.affine_apply(affine, h, strengths, out=out) is out
    np.testing.assert_array_equal(out.numpy(), expected)
    with torch.inference_mode():
        same = h.clone()
        assert kernels.affine_apply(affine, same, strengths, out=same) is same
        np.testing.assert_array_equal(same.numpy(), expected)


def test_torch_gradients_are_refused_or_told() -> None:
    affine = make_affine(6, 2)
    h = torch.ones(2, 6, requires_grad=True)
    with pytest.raises(ValueError, match=r"^\[affine_apply\] expected h without gradient"):
        kernels.affine_apply(affine, h)
    with torch.no_grad():
        assert not kernels.affine_apply(affine, h).requires_grad

    weight, saved = torch.ones(6, requires_grad=True), torch.ones(2, 6)
    loss = (weight * saved).sum()
    kernels.affine_apply(affine, saved, out=saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(loss)


class OnCuda(torch.Tensor):
    """Stands for a tensor on a GPU where there is none."""

    is_cuda = True


def test_torch_refusals() -> None:
    affine = make_affine(6, 2)
    good = torch.ones(2, 6)
    refused: list[tuple[Any, type[Exception], str]] = [
        (good.double(), TypeError, "expected h of dtype float32, got float64"),
        (good.bfloat16(), TypeError, "expected h of dtype float32, got torch.bfloat16"),
        (good.to("meta"), TypeError, "expected h on the CPU, got meta"),
        (good.to_sparse(), TypeError, "expected h a dense tensor, got torch.sparse_coo"),
        (torch.ones(2, 6, dtype=torch.complex64).conj().imag, TypeError, "negative bit"),
        (good.numpy(), TypeError, "expected h a torch tensor, got ndarray"),
        (good[0], ValueError, "expected h of 2"),
        (good[None], ValueError, "expected h of 2"),
        (torch.ones(2, 5), ValueError, r"expected h of shape \(n, 6\), got \(2, 5\)"),
        (torch.ones(6, 2).T, ValueError, "expected h with adjacent elements"),
    ]
    for h, kind, message in refused:
        with pytest.raises(kind, match=message):
            kernels.affine_apply(affine, h)
    with pytest.raises(ValueError, match="expected strengths of shape"):
        kernels.affine_apply(affine, good, strengths=torch.ones(3))
    with pytest.raises(ValueError, match="rows of their own memory"):
        kernels.affine_apply(affine, good, out=torch.ones(1, 6).expand(2, 6))
    with pytest.raises(BackendMissingError, match="this build has no CUDA kernels"):
        kernels.affine_apply(affine, torch.ones(2, 6, device="meta").as_subclass(OnCuda))
