"""cogit inspect, parity and doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cogit import Activations, Additive, Commitment, Intervention, Positions, doctor
from cogit.cli.main import main
from cogit.identity import ModelIdentity
from cogit.inspection import inspect_path
from cogit.parity import Bound, bound_for


def printed(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_inspect_intervention(
    tiny_identity: ModelIdentity, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    drawn = Commitment.draw(tiny_identity.d_model, seed=5)
    made = Intervention.everywhere(
        drawn,
        range(1, 3),
        tiny_identity,
        strength=2.0,
        positions=Positions("prompt"),
        lineage={"pairs": "abc"},
    )
    file = made.save(tmp_path / "a.safetensors")
    assert main(["inspect", str(file), "--json"]) == 0
    facts = printed(capfd)
    assert facts["kind"] == "intervention"
    assert facts["steers"] == "blocks 1..2"
    assert facts["content_hash"] == made.content_hash
    assert facts["model"] == tiny_identity.to_json()
    assert facts["lineage"] == {"pairs": "abc"}
    assert facts["bytes"] == file.stat().st_size
    assert [o["block"] for o in facts["operators"]] == [1, 2]
    for operator in facts["operators"]:
        assert (operator["kind"], operator["rank"]) == ("commitment", 0)
        # float32 against float64 of 64 numbers.
        assert operator["constant_norm"] == pytest.approx(
            2 * np.linalg.norm(drawn.vector), rel=1e-6
        )
    assert main(["inspect", str(file)]) == 0
    assert drawn.formula in capfd.readouterr().out


def test_inspect_activations(tiny_identity: ModelIdentity, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    negative = rng.standard_normal((2, 5, tiny_identity.d_model)).astype(np.float32)
    positive = negative.copy()
    positive[:, :, 0] += 3
    file = Activations(positive, negative, (0, 3), 4, tiny_identity).save(tmp_path / "a")
    facts = inspect_path(file)
    assert (facts["kind"], facts["pairs"], facts["recorded"]) == ("activations", 5, "blocks 0, 3")
    assert facts["class_distance"] == pytest.approx({"0": 3.0, "3": 3.0}, rel=1e-5)


def test_inspect_models(tiny_hf: Path, tiny_gguf: Path) -> None:
    folder, file = inspect_path(tiny_hf), inspect_path(tiny_gguf)
    for facts in (folder, file):
        measures = [facts[n] for n in ("architecture", "blocks", "width", "vocabulary", "context")]
        assert measures == ["llama", 4, 64, 384, 96]
    assert folder["weight_files"] == ["model.safetensors"]
    assert file["file_type"] == "F32"
    assert list(file["tensor_types"]) == ["F32"]


def test_inspect_refuses_other_files(
    tiny_hf: Path, tiny_gguf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    half = tmp_path / "half.gguf"
    half.write_bytes(tiny_gguf.read_bytes()[:2000])
    text = tmp_path / "text"
    text.write_text("hello", encoding="utf-8")
    for path in (tiny_hf / "model.safetensors", half, text, tmp_path, tmp_path / "absent"):
        assert main(["inspect", str(path)]) == 2
        out, err = capfd.readouterr()
        assert not out
        assert err.startswith("error: [inspect] ")
        assert err.count("\n") == 1


@pytest.mark.llamacpp
def test_parity_of_f32_holds(
    tiny_hf: Path, tiny_gguf: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pair = ["--model", str(tiny_hf), "--gguf", str(tiny_gguf), "--threads", "1"]
    assert main(["parity", *pair, "--json", "--max-tokens", "8"]) == 0
    facts = printed(capfd)
    assert facts["holds"] is True
    assert facts["gguf_type"] == "F32"
    assert facts["prompt"]["n_positions"] > facts["generated"]["n_positions"] == 4 * 8
    for part in ("overall", "prompt", "generated"):
        assert facts[part]["effect_rms"] > 1e-2
        assert facts[part]["argmax_on"] == 1.0
    # The probe aims at 5 % of the median norm; norms differ between blocks and grow under it.
    assert all(0.01 < change < 0.25 for change in facts["relative_change"].values())


@pytest.mark.llamacpp
def test_parity_of_quantised_weights_holds(
    tiny_hf: Path, tiny_gguf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from cogit.backends.llama_engine import LlamaEngine

    for kind in ("f16", "q8_0"):
        file = tmp_path / f"{kind}.gguf"
        LlamaEngine.quantize(tiny_gguf, file, kind)
        pair = ["--model", str(tiny_hf), "--gguf", str(file), "--threads", "1"]
        assert main(["parity", *pair]) == 0
        out, err = capfd.readouterr()
        assert f"{kind.upper()}: effect cosine at least 0.999: holds" in out
        assert "a probe made for this" in err


@pytest.mark.llamacpp
def test_parity_fails_on_other_weights(
    tiny_hf: Path, tiny_gguf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from gguf import GGUFReader

    other = tmp_path / "other.gguf"
    other.write_bytes(tiny_gguf.read_bytes())
    reader = GGUFReader(other, "r+")
    weight = next(t for t in reader.tensors if t.name == "blk.2.ffn_down.weight")
    weight.data[:] *= 1.5
    reader.data.flush()
    del reader, weight
    pair = ["--model", str(tiny_hf), "--gguf", str(other), "--threads", "1"]
    assert main(["parity", *pair, "--prompt", "bada guro meme", "--max-tokens", "4"]) == 1
    assert "DOES NOT HOLD" in capfd.readouterr().out


@pytest.mark.llamacpp
def test_parity_under_a_file(
    tiny_hf: Path,
    tiny_gguf: Path,
    tiny_identity: ModelIdentity,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    vector = np.random.default_rng(1).standard_normal(tiny_identity.d_model)
    generated = Positions("generated")
    made = Intervention.everywhere(Additive(vector), (2,), tiny_identity, positions=generated)
    file = made.save(tmp_path / "a.safetensors")
    pair = ["--model", str(tiny_hf), "--gguf", str(tiny_gguf), "--threads", "1"]
    more = ["--intervention", str(file), "--prompt", "bada guro meme", "--json"]
    assert main(["parity", *pair, *more]) == 0
    facts = printed(capfd)
    assert facts["prompt"]["effect_rms"] == 0.0  # only generated tokens are steered
    assert facts["generated"]["effect_rms"] > 0.0


def test_parity_bounds_are_known_types_only() -> None:
    assert bound_for("F32") == Bound("max_difference", 1e-3)
    assert bound_for("Q4_K_M") == Bound("effect_cosine", 0.99, probe_change=0.2)
    with pytest.raises(ValueError, match="Q2_K"):
        bound_for("Q2_K")


def test_doctor_reports_every_part(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [doctor.Check("a", "ok", "fine"), doctor.Check("b", "warn", "less", "do this")]
    monkeypatch.setattr(doctor, "examine", lambda: made)
    assert main(["doctor"]) == 0
    assert "do this" in capfd.readouterr().out
    made.append(doctor.Check("c", "fail", "broken", "do that"))
    assert main(["doctor", "--json"]) == 1
    facts = printed(capfd)
    assert facts["ok"] is False
    assert [check["status"] for check in facts["checks"]] == ["ok", "warn", "fail"]


@pytest.mark.llamacpp
def test_doctor_on_this_installation() -> None:
    checks = {check.name: check for check in doctor.examine()}
    for name in ("cogit", "kernels", "torch", "transformers", "llama.cpp", "temporary folder"):
        assert checks[name].status != "fail", checks[name]
    assert "struct sizes agree" in checks["llama.cpp"].detail
    assert all(check.remedy for check in checks.values() if check.status != "ok")


def test_doctor_survives_a_broken_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> doctor.Check:
        message = "[x] expected a, got b; do c"
        raise FileNotFoundError(message)

    monkeypatch.setattr(doctor, "_demo_model", broken)
    check = next(c for c in doctor.examine() if c.name == "demo model")
    assert check == doctor.Check("demo model", "fail", "[x] expected a, got b", "do c")
