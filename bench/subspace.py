"""Contrastive PCA of many layers against the dense route: python -m bench.subspace [--quick].

Ours: ``cogit.subspace.contrastive_pca`` in float64 on all layers at once, every non-zero eigenpair.
Dense, the usual way: the d x d difference of two covariances and a full ``eigh`` in float32, the
faster precision. One layer of it is timed, and multiplied by the number of layers. Beside it the
best that we know of without our code: SciPy's Lanczos iteration on the same operator, never formed,
for the eight leading eigenpairs only. Peak memory is that of ours against the d x d matrices of
all layers at once, as one batched ``eigh`` would need them.

States have a power-law spectrum, a common mean and a few outlier axes, as residual streams do.
Eigenvalues are compared before any clock runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from bench.memory import peak_rise
from bench.rows import Row, arguments, finish
from bench.timing import WALL, compare, once
from cogit.subspace import contrastive_pca

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    States = NDArray[np.float64]

LAYERS, D_MODEL, SAMPLES = 64, 5120, 50
QUICK_D = 1024
TOP = 8
_OUTLIERS = 3
# Relative to the largest eigenvalue; float32 at full width gets the rounding of its own sums.
_SAME, _SAME_F32 = 1e-6, 1e-5


def class_states(layers: int, d_model: int, samples: int, seed: int = 0) -> tuple[States, States]:
    """Centred states (layer, sample, d_model) of two classes; the first varies more on 3 axes."""
    rng = np.random.default_rng(seed)
    scale = 10.0 * np.arange(1, d_model + 1) ** -0.5
    shape = (layers, samples, d_model)
    positive, negative = (scale * rng.standard_normal(shape) + 2.0 for _ in range(2))
    positive[..., :_OUTLIERS] += 20.0 * rng.standard_normal((*shape[:2], _OUTLIERS))
    positive -= positive.mean(axis=1, keepdims=True)
    negative -= negative.mean(axis=1, keepdims=True)
    return positive, negative


def dense(positive: torch.Tensor, negative: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All eigenpairs of one layer's covariance difference, rising."""
    difference = positive.T @ positive / len(positive) - negative.T @ negative / len(negative)
    values, vectors = torch.linalg.eigh(difference)
    return values, vectors


def lanczos(positive: States, negative: States, top: int = TOP) -> tuple[States, States]:
    """The leading eigenpairs of one layer's covariance difference, which is never formed."""

    def apply(x: States) -> States:
        up = positive.T @ (positive @ x) / len(positive)
        return np.asarray(up - negative.T @ (negative @ x) / len(negative))

    size = positive.shape[1]
    operator = LinearOperator((size, size), matvec=apply, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(size)
    values, vectors = eigsh(operator, k=top, which="LA", v0=start)
    return values, vectors


def require_same(found: States, expected: States, tolerance: float, what: str) -> None:
    """Eigenvalues alike, the largest first; RuntimeError otherwise."""
    found, expected = np.sort(found)[::-1], np.sort(expected)[::-1]
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error <= tolerance:
        message = (
            f"[bench] expected eigenvalues of {what} within {tolerance:g} of ours, got {error:g}"
        )
        raise RuntimeError(message)
    print(f"{what}: eigenvalues within {error:.1e} of the largest", flush=True)


def nonzero(values: States, count: int) -> States:
    """The eigenvalues of largest size; all others of a matrix of that rank are zero."""
    return values[np.argsort(-np.abs(values))[:count]]


def check_exact() -> None:
    """Ours against dense float64, where that takes a second."""
    positive, negative = class_states(2, QUICK_D, SAMPLES, seed=1)
    values, _ = contrastive_pca(positive, negative)
    for layer in range(2):
        exact, _ = dense(torch.from_numpy(positive[layer]), torch.from_numpy(negative[layer]))
        top = nonzero(exact.numpy(), values.shape[1])
        require_same(values[layer], top, _SAME, f"dense float64, d = {QUICK_D}, layer {layer}")


def memory_job(d_model: str) -> Callable[[], object]:
    """What ``bench.memory`` runs."""
    positive, negative = class_states(LAYERS, int(d_model), SAMPLES)
    return lambda: contrastive_pca(positive, negative)


def memory_row(name: str, d_model: int) -> Row:
    ours = peak_rise("bench.subspace:memory_job", str(d_model)) / 1e6
    batched = LAYERS * d_model**2 * 4 / 1e6
    note = "computed: float32 matrices of all layers, without eigh's own work space"
    return Row(f"{name}.memory", ours, "MB", batched, batched / ours, note=note)


def measure(d_model: int, quick: bool) -> list[Row]:
    positive, negative = class_states(LAYERS, d_model, SAMPLES)
    values, _ = contrastive_pca(positive, negative)
    first = positive[0], negative[0]
    single = tuple(torch.from_numpy(x).float() for x in first)

    print(f"dense route, one layer of {LAYERS}, d = {d_model} ...", flush=True)
    (found, _), dense_seconds = once(lambda: dense(*single))
    top = nonzero(found.double().numpy(), values.shape[1])
    require_same(values[0], top, _SAME_F32, f"dense float32, d = {d_model}, layer 0")

    def check() -> None:
        leading, _ = lanczos(*first)
        require_same(leading, values[0, :TOP], _SAME, f"Lanczos, d = {d_model}, layer 0")

    timing = compare(
        {
            "ours": lambda: contrastive_pca(positive, negative),
            "lanczos": lambda: [lanczos(a, b) for a, b in zip(positive, negative, strict=True)],
        },
        check=check,
        rounds=2 if quick else 5,
        seconds=0.0,
        clock=WALL,
    )
    ours, whole = timing.median("ours"), dense_seconds * LAYERS
    name = f"subspace.cpca.l{LAYERS}.d{d_model}.n{SAMPLES}"
    note = f"float32 covariances and eigh: one layer timed, times {LAYERS}"
    return [
        Row(name, ours, "s", whole, whole / ours, note=note),
        Row(
            f"{name}.lanczos{TOP}",
            ours,
            "s",
            timing.median("lanczos"),
            timing.ratio("lanczos", "ours"),
            note=f"eigsh of an operator, {TOP} leading eigenpairs only",
        ),
        memory_row(name, d_model),
    ]


def main() -> None:
    options = arguments(__doc__)
    check_exact()
    rows = measure(QUICK_D if options.quick else D_MODEL, options.quick)
    finish("subspace", rows, options, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
