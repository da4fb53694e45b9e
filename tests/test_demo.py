"""``cogit demo`` end to end on the shipped model: what it writes, and what must hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cogit.demo.run import run_demo
from cogit.intervention import Intervention

pytestmark = pytest.mark.llamacpp
BACKENDS = ("transformers", "llamacpp")
SINGLE = ("unsteered", "unitary", "additive", "identity", "strength_zero", "source")
RANDOM = ("random_subspace", "random_same_subspace")
FIGURES = {
    "success",
    "lift_pp",
    "ci",
    "override_pp",
    "override_ci",
    "perplexity_ratio",
    "neutral_kl",
}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and the JSON of a quick demo on both backends."""
    root = tmp_path_factory.mktemp("demo")
    run_demo(root / "run", json_path=root / "demo.json", quick=True, show_progress=False)
    return root / "run", json.loads((root / "demo.json").read_text())


def test_the_json_holds_every_arm_on_both_backends(quick: tuple[Path, dict[str, Any]]) -> None:
    _, found = quick
    assert set(found["backends"]) == set(BACKENDS)
    assert found["verdict"] in {"effect", "no effect"}
    assert "seconds" not in found
    for name in BACKENDS:
        arms = found["backends"][name]["arms"]
        assert set(arms) == {*SINGLE, *RANDOM}
        for arm in SINGLE:
            assert set(arms[arm]) >= FIGURES
        for arm in RANDOM:
            assert len(arms[arm]) >= 8
            assert all(set(draw) >= FIGURES for draw in arms[arm])


def test_identity_and_strength_zero_are_exactly_the_plain_model(
    quick: tuple[Path, dict[str, Any]],
) -> None:
    _, found = quick
    for name in BACKENDS:
        arms = found["backends"][name]["arms"]
        for arm in ("unsteered", "identity", "strength_zero"):
            assert arms[arm]["lift_pp"] == arms[arm]["override_pp"] == 0.0
            assert arms[arm]["neutral_kl"] == 0.0
            assert arms[arm]["perplexity_ratio"] == 1.0


def test_both_backends_tell_the_same_story(quick: tuple[Path, dict[str, Any]]) -> None:
    """The same weights, interventions and random numbers: tokens differ by rounding at most."""
    _, found = quick
    one, other = (found["backends"][name]["arms"] for name in BACKENDS)
    for arm in SINGLE:
        assert one[arm]["success"] == pytest.approx(other[arm]["success"], abs=0.05)
        assert one[arm]["neutral_kl"] == pytest.approx(other[arm]["neutral_kl"], abs=1e-3)


def test_the_run_folder_is_whole(quick: tuple[Path, dict[str, Any]]) -> None:
    folder, found = quick
    manifest = json.loads((folder / "manifest.json").read_text())
    names = {path.name for path in folder.iterdir()}
    assert names == {*manifest["outputs"], "manifest.json"}
    assert {"report.json", "report.md", "dose_response.png", "effect_versus_kl.png"} <= names
    for name, digest in manifest["outputs"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert json.loads((folder / "report.json").read_text()) == found
    assert manifest["settings"]["seed"] == manifest["seeds"]["seed"] == 0
    assert manifest["arguments"] == ["demo", "--seed=0", "--backend=both", "--quick"]
    assert manifest["models"]["llamacpp"]["n_layers"] == 6


def test_the_saved_intervention_is_the_calibrated_one(
    quick: tuple[Path, dict[str, Any]],
) -> None:
    folder, found = quick
    saved = Intervention.load(folder / "unitary.safetensors")
    assert list(saved.layers) == [found["chosen"]["unitary"]["layer"]]
    assert not saved.changes_nothing()


def test_a_folder_in_use_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="expected an empty or new folder"):
        run_demo(tmp_path / "run", quick=True, show_progress=False)
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "mine.txt"]


@pytest.mark.slow
def test_the_full_demo_shows_the_effect(tmp_path: Path) -> None:
    """The claims that the README makes, held by the shipped model."""
    path = tmp_path / "demo.json"
    run_demo(tmp_path / "run", json_path=path, show_progress=False)
    found = json.loads(path.read_text())
    assert found["verdict"] == "effect"
    for name in BACKENDS:
        report = found["backends"][name]
        arms = report["arms"]
        unitary = arms["unitary"]
        assert unitary["lift_pp"] >= 30
        assert unitary["ci"][0] > 0
        assert unitary["perplexity_ratio"] <= 1.15
        against_additive = report["unitary_minus_additive"]
        assert against_additive["open"]["ci"][1] >= 0
        assert against_additive["override"]["ci"][0] > 0
        assert abs(np.mean([arm["lift_pp"] for arm in arms["random_subspace"]])) <= 5
        strongest = max(arm["lift_pp"] for arm in arms["random_same_subspace"])
        assert unitary["lift_pp"] > strongest
        low, high = arms["source"]["ci"]
        assert low <= 0 <= high
