"""Subspace files: what is written comes back, and whatever else is read gives one clear line."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _models import planted
from cogit import Activations, artefact
from cogit.errors import ArtefactError
from cogit.subspace import Subspace, fit_subspace

ARRAYS = ("mean", "basis", "spectrum", "positive", "negative", "weights")


def fitted(**options: Any) -> Subspace:
    return fit_subspace(planted(20, 16), 0, k=2, weights="softmax", **options)


def parts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return artefact.read(path, "subspace")


@pytest.mark.parametrize("method", ["contrastive_pca", "probe", "ensemble"])
def test_round_trip(tmp_path: Path, method: str) -> None:
    made = fitted(method=method, protected=np.eye(16)[4])
    found = Subspace.load(made.save(tmp_path / "s.safetensors"))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
        assert getattr(found, name).dtype == np.float64
    for name in ("layer", "half_separation", "residual_norm", "identity", "lineage"):
        assert getattr(found, name) == getattr(made, name)
    assert found.content_hash == made.content_hash


def test_no_weights_stay_none(tmp_path: Path) -> None:
    made = replace(fitted(), weights=None)
    assert Subspace.load(made.save(tmp_path / "s")).weights is None


def test_the_file_names_its_origin(tmp_path: Path) -> None:
    """Method, alpha, angle, fallback, states, model and hook point can be read from the header."""
    _, data = parts(fitted(alpha=0.5).save(tmp_path / "s"))
    lineage = data["lineage"]
    assert (lineage["method"], lineage["alpha"]) == ("contrastive_pca", 0.5)
    assert lineage["angle_to_mean_difference"] == pytest.approx(0.0, abs=1e-5)
    assert (lineage["fallback"], lineage["hook_point"]) == (False, "resid_post")
    assert len(lineage["activations"]) == 64
    assert data["model"]["name"] == "planted"
    assert data["cogit_version"]


def test_the_hash_sees_everything_but_the_version() -> None:
    made = fitted()
    others = [
        replace(made, mean=made.mean + 1e-12),
        replace(made, half_separation=made.half_separation * 2),
        replace(made, weights=None),
        replace(made, lineage={**made.lineage, "alpha": 2.0}),
    ]
    assert len({one.content_hash for one in [made, *others]}) == 5
    assert made.content_hash == fitted().content_hash


def change(name: str, value: Any) -> Callable[[Any, Any], None]:
    """A change to a tensor, where there is one of that name, or else to the metadata."""

    def apply(tensors: dict[str, Any], data: dict[str, Any]) -> None:
        if name in ARRAYS and value is None:
            del tensors[name]
        elif name in ARRAYS:
            tensors[name] = value(tensors[name])
        elif value is None:
            del data[name]
        else:
            data[name] = value

    return apply


@pytest.mark.parametrize(
    "spoil",
    [
        *(change(name, None) for name in ARRAYS if name != "weights"),
        *(change(name, lambda x: x[:-1]) for name in ARRAYS if name not in ("positive",)),
        *(change(name, lambda x: x[None]) for name in ARRAYS),
        *(change(name, lambda x: np.zeros_like(x, dtype=np.int64)) for name in ARRAYS),
        change("basis", lambda x: 1.01 * x),
        change("basis", lambda x: x[:, ::-1] * 0 + x[:, :1]),
        change("basis", lambda x: x[:, :3]),
        change("basis", lambda x: x[:, :0]),
        change("basis", lambda x: np.zeros((0, x.shape[1]))),
        change("positive", lambda x: x[:0]),
        change("negative", lambda x: x[:, :2]),
        *(change(name, None) for name in ("layer", "half_separation", "residual_norm")),
        change("layer", "0"),
        change("layer", 1),
        change("layer", -1),
        change("layer", 0.5),
        change("half_separation", 0.0),
        change("half_separation", -1.0),
        change("half_separation", "much"),
        change("residual_norm", 0.0),
        change("model", None),
        change("model", {"name": "x"}),
        change("model", [1]),
        change("lineage", None),
        change("lineage", "none"),
    ],
)
def test_hostile_parts_are_refused_in_one_line(tmp_path: Path, spoil: Any) -> None:
    tensors, data = parts(fitted().save(tmp_path / "good"))
    spoil(tensors, data)
    path = artefact.write(tmp_path / "bad", "subspace", tensors, data)
    with pytest.raises(ArtefactError, match=r"^\[load\] expected a subspace in .*bad, got ") as bad:
        Subspace.load(path)
    assert "\n" not in str(bad.value)
    assert len(str(bad.value)) < 400


def test_other_files_are_refused(tmp_path: Path) -> None:
    states = planted(5, 8).save(tmp_path / "states")
    with pytest.raises(ArtefactError, match="expected a file of kind subspace, got activations"):
        Subspace.load(states)
    with pytest.raises(ArtefactError, match="expected a file of kind activations, got subspace"):
        Activations.load(fitted().save(tmp_path / "s"))
    with pytest.raises(FileNotFoundError, match=r"^\[load\] expected a file"):
        Subspace.load(tmp_path / "absent")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = fitted().save(tmp_path / "s").read_bytes()
    path = tmp_path / "cut"
    for length in range(0, len(data), 211):
        path.write_bytes(data[:length])
        with pytest.raises(ArtefactError):
            Subspace.load(path)


def test_flipped_bytes_never_crash(tmp_path: Path) -> None:
    """Either the file is refused, or what comes back is a subspace."""
    data = fitted().save(tmp_path / "s").read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    path, rng = tmp_path / "flipped", np.random.default_rng(0)
    for _ in range(300):
        spoilt = bytearray(data)
        spoilt[int(rng.integers(header))] ^= 1 << int(rng.integers(8))
        path.write_bytes(spoilt)
        with contextlib.suppress(ArtefactError):
            found = Subspace.load(path)
            np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(4), atol=1e-5)


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    made = fitted()
    with pytest.raises(ArtefactError, match="expected finite values in mean"):
        replace(made, mean=made.mean * np.nan).save(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []
