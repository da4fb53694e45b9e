"""cogit import and export: other tools' vectors in, ours out, each refusal one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cogit import Additive, Intervention, Positions, Unitary
from cogit.cli.main import main
from cogit.identity import ModelIdentity
from cogit.inspection import model_identity

Capture = pytest.CaptureFixture[str]


def printed(capfd: Capture) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def refused(arguments: list[str], capfd: Capture) -> str:
    capfd.readouterr()
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def vector(identity: ModelIdentity, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).standard_normal(identity.d_model)


@pytest.fixture
def made(tiny_identity: ModelIdentity) -> Intervention:
    operators = {block: Additive(vector(tiny_identity, block)) for block in (1, 3)}
    every_token = Positions(first_token=True)
    return Intervention(operators, tiny_identity, strength=0.5, positions=every_token)


@pytest.mark.parametrize("suffix", ["gguf", "safetensors"])
def test_out_and_in_again(made: Intervention, suffix: str, tmp_path: Path, capfd: Capture) -> None:
    source = made.save(tmp_path / "made.safetensors")
    file, again = tmp_path / f"out.{suffix}", tmp_path / "again.safetensors"
    assert main(["export", str(source), "--out", str(file), "--json"]) == 0
    facts = printed(capfd)
    assert facts["format"] == suffix
    assert facts["blocks"] == [1, 3]
    assert (facts["strength"], facts["scale_to_apply"]) == (0.5, 1.0)
    assert facts["content_hash"] == made.content_hash
    assert facts["bytes"] == file.stat().st_size
    convention = [] if suffix == "gguf" else ["--convention", "block"]
    arguments = ["import", str(file), "--like", str(source), "--out", str(again), *convention]
    assert main([*arguments, "--json"]) == 0
    facts = printed(capfd)
    loaded = Intervention.load(again)
    assert facts["content_hash"] == loaded.content_hash
    assert facts["blocks"] == [1, 3]
    assert loaded.identity == made.identity
    for block, fold in made.folds().items():
        assert np.array_equal(loaded.folds()[block].c, fold.c)
        # float32 against float64.
        assert facts["norms"][str(block)] == pytest.approx(float(np.linalg.norm(fold.c)), rel=1e-6)
    arguments += ["--layer", "3", "--strength", "2", "--no-first-token", "--force"]
    assert main(arguments) == 0
    out, err = capfd.readouterr()
    assert "additive on block 3, strength 2, positions all" in out
    assert "first token included" not in out
    assert err.startswith("imported")
    assert main(["inspect", str(file)]) == 0
    assert {"gguf": "control vector", "safetensors": "steering vectors"}[suffix] in (
        capfd.readouterr().out
    )


def test_kept_strength_is_said(made: Intervention, tmp_path: Path, capfd: Capture) -> None:
    source, file = made.save(tmp_path / "made"), tmp_path / "out.gguf"
    assert main(["export", str(source), "--out", str(file), "--strength", "kept"]) == 0
    assert "blocks 1, 3, to be applied at scale 0.5" in capfd.readouterr().out


def test_the_first_token_is_a_choice(
    made: Intervention, tiny_identity: ModelIdentity, tmp_path: Path, capfd: Capture
) -> None:
    left_alone = Intervention(made.operators, tiny_identity)
    source, file = left_alone.save(tmp_path / "made"), tmp_path / "out.gguf"
    assert "--every-token" in refused(["export", str(source), "--out", str(file)], capfd)
    assert not file.exists()
    assert main(["export", str(source), "--out", str(file), "--every-token"]) == 0
    assert "steers the first token too, this intervention does not" in capfd.readouterr().err


def test_what_cannot_be_exported(
    made: Intervention, tiny_identity: ModelIdentity, tmp_path: Path, capfd: Capture
) -> None:
    turned = Intervention(
        {1: Unitary.example(tiny_identity.d_model, 0)},
        tiny_identity,
        positions=Positions(first_token=True),
    )
    source = turned.save(tmp_path / "turned")
    message = refused(["export", str(source), "--out", str(tmp_path / "v.gguf")], capfd)
    assert "unitary of rank" in message
    source = made.save(tmp_path / "made")
    assert "--format" in refused(["export", str(source), "--out", str(tmp_path / "v")], capfd)
    gguf = ["export", str(source), "--out", str(tmp_path / "v.gguf")]
    assert "direction.i is block i" in refused([*gguf, "--convention", "block"], capfd)
    assert "does not exist" in refused(["export", "absent", "--out", "v.gguf"], capfd)
    assert main([*gguf[:3], str(tmp_path / "v"), "--format", "gguf"]) == 0


def test_vectors_want_their_convention(
    tiny_hf: Path, tiny_identity: ModelIdentity, tmp_path: Path, capfd: Capture
) -> None:
    file, out = tmp_path / "v.npy", tmp_path / "made.safetensors"
    np.save(file, vector(tiny_identity))
    start = ["import", str(file), "--model", str(tiny_hf), "--out", str(out)]
    assert "what its layer numbers mean" in refused([*start, "--layer", "1"], capfd)
    states = [*start, "--convention", "hidden-states"]
    assert "--layer" in refused(states, capfd)
    assert "leave --layer out" in refused([*states, "--layer", "all"], capfd)
    assert not out.exists()
    assert main([*states, "--layer", "2-4", "--positions", "prompt", "--json"]) == 0
    facts = printed(capfd)
    assert facts["blocks"] == [1, 2]
    assert facts["positions"] == "prompt, first token included"
    assert facts["lineage"]["convention"] == "hidden-states"
    assert Intervention.load(out).identity == model_identity(tiny_hf)


def test_the_model_is_given_once(tiny_hf: Path, tmp_path: Path, capfd: Capture) -> None:
    start = ["import", "v.gguf", "--out", str(tmp_path / "out")]
    assert "got neither" in refused(start, capfd)
    assert "got both" in refused([*start, "--model", str(tiny_hf), "--like", "x"], capfd)
    assert "is not there" in refused([*start, "--model", "some-hub/id"], capfd)
    assert "is no file" in refused([*start, "--model", str(tiny_hf)], capfd)


@pytest.mark.llamacpp
def test_identity_from_headers_is_the_loaded_one(tiny_hf: Path, tiny_gguf: Path) -> None:
    """So that a file made for a folder steers it without a word about another model."""
    from cogit import load_backend

    with load_backend("transformers", tiny_hf) as backend:
        assert model_identity(tiny_hf) == backend.identity
    with load_backend("llamacpp", tiny_gguf) as backend:
        assert model_identity(tiny_gguf) == backend.identity


@pytest.mark.llamacpp
def test_import_for_a_gguf_model_steers_it(
    made: Intervention, tiny_gguf: Path, tmp_path: Path, capfd: Capture
) -> None:
    from cogit import load_backend

    source, file = made.save(tmp_path / "made"), tmp_path / "v.gguf"
    assert main(["export", str(source), "--out", str(file)]) == 0
    out = tmp_path / "back.safetensors"
    assert main(["import", str(file), "--model", str(tiny_gguf), "--out", str(out)]) == 0
    assert "back.safetensors: additive on blocks 1, 3" in capfd.readouterr().out
    with load_backend("llamacpp", tiny_gguf) as backend:
        ids = backend.tokenize("bada guro meme")
        with backend.steer(Intervention.load(out)):
            found = backend.logits([ids])[0]
        with backend.steer(made):
            expected = backend.logits([ids])[0]
    assert np.array_equal(found, expected)
