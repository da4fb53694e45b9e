"""cogit inspect, kind by kind: every file and folder that cogit writes, and damaged ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cogit
from _models import N_LAYERS, planted, prompt, steering, tiny_backend
from cogit import artefact
from cogit.activation_moments import record_moments
from cogit.artefact_facts import _HEADERS, _LOADED
from cogit.cli.main import main
from cogit.errors import ArtefactError
from cogit.inspection import inspect_path
from cogit.latest import point_latest
from cogit.pairs import ContrastPair
from cogit.projection import Projection
from cogit.recording import record_to
from cogit.states import StateSet
from cogit.subspace import fit_subspace
from cogit.sweep import sweep_layers
from cogit.sweep_report import write_sweep

PACKAGE = Path(cogit.__file__).parent
PAIRS = [ContrastPair(prompt(5, i), prompt(6, 40 + i)) for i in range(4)]
UNITARY: dict[str, Any] = {
    "config": {"model_name": "m", "quantum_dim": 3, "layer": 5, "family": "dense"},
    "training_history": {"loss_history": [0.9, 0.5], "fidelity_history": [0.1, 0.4]},
    "timestamp": "2026-01-01T00:00:00+00:00",
}
CHECKPOINT: dict[str, Any] = {
    "settings": {"epochs": 9},
    "data": "abc",
    "epoch": 2,
    "loss_history": [0.9, 0.5],
    "fidelity_history": [0.1, 0.4],
    "learning_rates": [1e-3],
    "scheduler": {},
}
REFINEMENT: dict[str, Any] = {
    "run": "abc",
    "step": 30,
    "stale": 1,
    "stopped": False,
    "has_best": True,
    "best_effect": 0.25,
    "best_factor": 1.5,
    "best_step": 20,
}


def shown(path: Path, capfd: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """What the command prints as JSON, the same as the function gives, and for people."""
    assert main(["inspect", str(path), "--json"]) == 0
    facts: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert facts == inspect_path(path)
    assert main(["inspect", str(path)]) == 0
    out, err = capfd.readouterr()
    assert not err
    assert f"kind            {facts['kind']}" in out
    return facts, out


def test_every_kind_that_is_written_is_known() -> None:
    """A new kind of file must be described here."""
    named = re.compile(r'^_?(?:SHARD_)?KIND = "(.+)"|artefact\.write\([^,]+, "([a-z_ ]+)"', re.M)
    found = {"activations shard"}  # its constant is one of three on a line
    for path in PACKAGE.rglob("*.py"):
        if "_llama" not in path.parts:
            found |= {a or b for a, b in named.findall(path.read_text(encoding="utf-8"))}
    assert len(found) >= 10
    assert found == set(_HEADERS) | set(_LOADED)


def test_subspace(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = fit_subspace(replace(planted(), hook_point="mlp_out"), 0, k=2, method="pca")
    facts, out = shown(made.save(tmp_path / "s"), capfd)
    assert (facts["kind"], facts["block"], facts["hook_point"]) == ("subspace", 0, "mlp_out")
    assert (facts["columns"], facts["pairs"], facts["method"]) == (4, 40, "pca")
    assert facts["angle_to_mean_difference"] == made.lineage["angle_to_mean_difference"] > 0
    assert (facts["fallback"], facts["reason"]) == (False, made.lineage["reason"])
    assert facts["content_hash"] == made.content_hash
    assert facts["model"]["name"] == "planted"
    assert "fallback        False" in out


def test_a_fallback_is_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Row P5."""
    made = fit_subspace(planted(), 0)
    lineage = {**made.lineage, "fallback": True, "reason": "SVD did not converge"}
    facts, out = shown(replace(made, lineage=lineage).save(tmp_path / "s"), capfd)
    assert (facts["fallback"], facts["reason"]) == (True, "SVD did not converge")
    assert "SVD did not converge" in out


def test_activations_of_another_hook_point(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = replace(planted(), hook_point="attn_out", select="answer", tail=0)
    facts, _ = shown(made.save(tmp_path / "a"), capfd)
    assert (facts["hook_point"], facts["select"], facts["pairs"]) == ("attn_out", "answer", 40)
    exact = np.linalg.norm((made.positive[0].astype(np.float64) - made.negative[0]).mean(axis=0))
    assert facts["class_distance"]["0"] == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("diagonal", [False, True])
def test_moments(diagonal: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = record_moments(tiny_backend(), PAIRS, diagonal=diagonal, show_progress=False)
    facts, _ = shown(made.save(tmp_path / "m"), capfd)
    assert (facts["kind"], facts["recorded"]) == ("moments", f"blocks 0..{N_LAYERS - 1}")
    assert facts["second_moments"] == ("variances" if diagonal else "covariances")
    assert facts["rows"]["positive"] == [m.count for m in made.positive]
    assert (facts["hook_point"], facts["select"], facts["width"]) == ("resid_post", "all", 64)


def test_projection(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = Projection.draw(8, quantum_dim=10, seed=3)
    facts, _ = shown(made.save(tmp_path / "p"), capfd)
    names = ("kind", "input_dim", "quantum_dim", "seed", "ratio")
    assert [facts[name] for name in names] == ["projection", 8, 10, 3, made.ratio]


def test_states_by_folder_and_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2, 5, 6)) + 1j * rng.standard_normal((2, 5, 6))
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    projection = rng.standard_normal((4, 6))
    made = StateSet.of(*rows, config={"layer": 7}, projection=projection)
    folder = made.save(tmp_path / "all", "first")
    facts, _ = shown(folder, capfd)
    assert (facts["kind"], facts["width"], facts["matched"]) == ("states", 6, True)
    assert facts["states"] == {"positive": 5, "negative": 5}
    assert (facts["config"], facts["projection"]) == ({"layer": 7}, "present")
    assert facts["separation"] == made.separation.to_json()
    assert set(facts["files"]) == {"states.safetensors", "projection.safetensors"}
    beside, _ = shown(folder / "projection.safetensors", capfd)
    assert (beside["kind"], beside["input_dim"], beside["quantum_dim"]) == ("projection", 4, 6)
    runs, _ = shown(tmp_path / "all", capfd)
    assert (runs["kind"], runs["latest"]) == ("folder of runs", {"states": str(folder)})
    (folder / "projection.safetensors").unlink()
    assert shown(folder / "states.safetensors", capfd)[0]["projection"] == "missing"


def test_trained_unitary_and_checkpoints_show_where_their_curves_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without torch, which the classes of these files need."""
    tensors = {"free": np.eye(3)}
    for kind, data in (("trained_unitary", UNITARY), ("training_checkpoint", CHECKPOINT)):
        file = artefact.write(tmp_path / kind, kind, tensors, data)
        facts, _ = shown(file, capfd)
        assert facts["kind"] == kind
        assert [facts[n] for n in ("epochs", "last_loss", "last_fidelity")] == [2, 0.5, 0.4]
        assert facts["tensors"] == {"free": "F64 [3, 3]"}
        code = "import sys; from cogit.inspection import inspect_path; "
        code += f"inspect_path({str(file)!r}); assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True)
    assert inspect_path(tmp_path / "trained_unitary")["layer"] == 5
    assert inspect_path(tmp_path / "training_checkpoint")["epoch"] == 2
    nothing = {**UNITARY, "training_history": {"loss_history": [], "fidelity_history": []}}
    file = artefact.write(tmp_path / "imported", "trained_unitary", tensors, nothing)
    assert shown(file, capfd)[0]["last_loss"] is None


def test_a_refinement_by_file_and_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "checkpoint.safetensors"
    artefact.write(file, "refinement", {"leaf.x": np.ones(2)}, REFINEMENT)
    (tmp_path / "history.jsonl").write_text("{}\n", encoding="utf-8")
    for path in (file, tmp_path):
        facts, _ = shown(path, capfd)
        names = ("kind", "step", "best_step", "best_contrast", "stopped_early")
        assert [facts[name] for name in names] == ["refinement", 30, 20, 0.25, False]
    assert set(facts["files"]) == {"checkpoint.safetensors", "history.jsonl"}


def test_stores_and_caches(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    backend = tiny_backend()
    backend.identity = replace(backend.identity, fingerprint="abc")
    made = record_to(
        backend,
        PAIRS,
        tmp_path / "store",
        hook_point="mlp_out",
        select="all",
        dtype="f16",
        rows_per_shard=20,
        cache=tmp_path / "cache",
        show_progress=False,
    )
    facts, _ = shown(tmp_path / "store", capfd)
    names = ("kind", "finished", "hook_point", "select", "row_type", "pairs", "width", "key")
    expected = ["activation store", True, "mlp_out", "all", "f16", 4, 64, made.recipe.key]
    assert [facts[name] for name in names] == expected
    n_shards = len(made.recipe.shards)
    assert n_shards > 1
    assert shown(tmp_path / "store" / "manifest.json", capfd)[0] == facts

    shard, _ = shown(made.path(1), capfd)
    assert (shard["kind"], shard["shard"], shard["row_type"]) == ("activations shard", 1, "f16")
    read = made.read(1)
    assert shard["pairs"] == f"{read.first}..{read.stop - 1}"
    assert shard["rows"]["positive"] == read.positive.states.shape[1]

    cache, out = shown(tmp_path / "cache", capfd)
    assert (cache["kind"], cache["recordings"]) == ("activation cache", 1)
    assert (cache["entries"][0]["key"], cache["entries"][0]["pairs"]) == (made.recipe.key, 4)
    assert made.recipe.key in out
    made.path(0).unlink()
    facts, _ = shown(tmp_path / "store", capfd)
    assert (facts["finished"], facts["shards"]) == (False, f"{n_shards - 1} of {n_shards}")


def test_sweeps_and_pointers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sweep = sweep_layers(planted(), permutations=20)
    run = tmp_path / "one"
    run.mkdir()
    write_sweep(sweep, run)
    pointer = point_latest(tmp_path, "sweep", run)
    for path in (run, run / "sweep.json"):
        facts, _ = shown(path, capfd)
        assert (facts["kind"], facts["verdict"]) == ("layer sweep", sweep.verdict)
        assert (facts["best_block"], facts["hook_point"]) == (0, "resid_post")
        assert facts["scores"] == {"0": sweep.best.score}
        assert (facts["p_value"], facts["pairs"]) == (sweep.p_value, 40)
    facts, _ = shown(pointer, capfd)
    assert (facts["kind"], facts["of"], facts["latest"]) == ("pointer", "sweep", str(run))
    assert shown(tmp_path, capfd)[0]["latest"] == {"sweep": str(run)}


def test_an_intervention_names_its_hook_point(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    facts, _ = shown(steering(tiny_backend(), [1]).save(tmp_path / "i"), capfd)
    assert (facts["hook_point"], facts["steers"]) == ("resid_post", "block 1")


HOSTILE: list[tuple[str, dict[str, Any], Any]] = [
    ("activations", {"positive": np.ones((1, 2, 3)), "negative": np.ones((1, 2, 3))}, {}),
    ("activations shard", {"positive": np.ones((1, 2, 3))}, {"first": 0, "stop": 1}),
    ("moments", {"positive_count": np.ones(2)}, {"layers": [0]}),
    ("projection", {"projection_real": np.ones(3)}, {}),
    ("projection", {}, {}),
    ("states", {"positive.real": np.ones((2, 2))}, {"projection_hash": None}),
    ("trained_unitary", {}, {**UNITARY, "training_history": {"loss_history": ["x"]}}),
    ("trained_unitary", {}, {**UNITARY, "config": []}),
    ("training_checkpoint", {}, {**CHECKPOINT, "loss_history": 3}),
    ("refinement", {}, {**REFINEMENT, "step": "many"}),
    ("subspace", {"basis": np.ones((2, 2))}, {}),
    ("intervention", {}, []),
    *[(kind, {}, 7) for kind in sorted({*_HEADERS, *_LOADED})],
]


@pytest.mark.parametrize(("kind", "tensors", "data"), HOSTILE)
def test_hostile_files_give_one_line(
    kind: str, tensors: Any, data: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = artefact.write(tmp_path / "x", kind, tensors or {"a": np.ones(1)}, data)
    with pytest.raises(ArtefactError) as error:
        inspect_path(file)
    assert "\n" not in str(error.value)
    assert main(["inspect", str(file)]) == 2
    out, err = capfd.readouterr()
    assert not out
    assert err.startswith("error: [")
    assert err.count("\n") == 1


@pytest.mark.parametrize("kind", sorted({*_HEADERS, *_LOADED}))
def test_later_versions_are_refused(kind: str, tmp_path: Path) -> None:
    file = artefact.write(tmp_path / "x", kind, {"a": np.ones(1)}, {}, version=9)
    with pytest.raises(ArtefactError, match=r"expected format version 1.*, got 9"):
        inspect_path(file)


def test_states_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    file = planted().save(tmp_path / "a")
    raw = bytearray(file.read_bytes())
    raw[-4:] = np.float32(np.nan).tobytes()
    file.write_bytes(raw)
    with pytest.raises(ArtefactError, match="expected finite states"):
        inspect_path(file)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("other.json", '{"a": 1}'),
        ("other.json", "{"),
        ("sweep.json", "[]"),
        ("sweep.json", '{"format": "cogit sweep"}'),
        ("latest-sweep.json", '{"path": "../.."}'),
        ("config.json", '{"text_config": 3}'),
        ("manifest.json", '{"kind": "activation store"}'),
        ("manifest.json", "\ud800"),
    ],
)
def test_hostile_json_gives_one_line(
    name: str, content: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    for path in (folder, folder / name):
        assert main(["inspect", str(path)]) == 2
        out, err = capfd.readouterr()
        assert not out
        assert err.startswith("error: [")
        assert err.count("\n") == 1
