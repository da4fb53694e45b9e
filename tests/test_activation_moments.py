"""Moments kept in place of states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _models import N_LAYERS, tiny_backend
from _recording import PAIRS, fingerprinted, store_of
from cogit import artefact
from cogit.activation_moments import ActivationMoments, record_moments
from cogit.backends.transformers import TransformersBackend
from cogit.errors import ArtefactError


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    return fingerprinted()


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("select", ["all", "after-first", "tail-4"])
def test_moments_equal_those_of_the_rows(
    backend: TransformersBackend, tmp_path: Path, select: str, diagonal: bool
) -> None:
    """Row P24, on a model's states."""
    store = store_of(backend, tmp_path / "s", select=select, rows_per_shard=16)
    moments = record_moments(backend, PAIRS, select=select, diagonal=diagonal, show_progress=False)
    again = ActivationMoments.load(moments.save(tmp_path / "m.safetensors"))
    for side in (0, 1):
        rows = np.concatenate(
            [(s.positive, s.negative)[side].states for s in store.shards()], axis=1
        ).astype(np.float64)
        for layer in range(N_LAYERS):
            expected = np.cov(rows[layer].T)
            for found in (moments.at(layer)[side], again.at(layer)[side]):
                assert found.count == rows.shape[1]
                # The same float32 states, but for the batches that they were made in.
                np.testing.assert_allclose(found.mean, rows[layer].mean(axis=0), atol=1e-5)
                if diagonal:
                    np.testing.assert_allclose(
                        found.variance(), np.diag(expected), rtol=1e-4, atol=1e-5
                    )
                else:
                    np.testing.assert_allclose(found.covariance(), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"^\[moments\] expected a recorded block"):
        moments.at(7)


def test_damaged_moments_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    good: dict[str, Any] = {
        f"{side}_{name}": value
        for side in ("positive", "negative")
        for name, value in (
            ("count", np.asarray([5])),
            ("mean", np.zeros((1, 3))),
            ("second", np.zeros((1, 3, 3))),
        )
    }
    data = {"layers": [0], "hook_point": "resid_post", "select": "all"}
    data |= {"model": tiny_backend().identity.to_json()}
    ActivationMoments.load(artefact.write(path, "moments", good, data))
    for change in (
        {"positive_mean": np.zeros((1, 4))},
        {"positive_count": np.asarray([1])},
        {"negative_second": np.zeros((1, 3, 2))},
        {"negative_mean": np.zeros((2, 3))},
    ):
        artefact.write(path, "moments", good | change, data)
        with pytest.raises(ArtefactError, match=r"^\[load\] expected moments in [^\n]+$"):
            ActivationMoments.load(path)
    artefact.write(path, "moments", good, data | {"layers": [0, 1]})
    with pytest.raises(ArtefactError, match="expected moments of 2 blocks"):
        ActivationMoments.load(path)
