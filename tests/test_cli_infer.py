"""cogit-infer on tiny models: what it says, what it prints, and every way to use it wrongly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from cogit import Ablation, Additive, Intervention
from cogit.cli import infer
from cogit.cli.loading import MODEL_VARIABLE
from cogit.identity import ModelIdentity

pytestmark = pytest.mark.llamacpp

PROMPT = "bada guro meme"
Pair = dict[str, Path]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)


@pytest.fixture
def tiny(tiny_hf: Path, tiny_gguf: Path) -> Pair:
    return {"transformers": tiny_hf, "llamacpp": tiny_gguf}


@pytest.fixture
def deep(deep_hf: Path, deep_gguf: Path) -> Pair:
    return {"transformers": deep_hf, "llamacpp": deep_gguf}


def flags(backend: str, models: Pair, *more: str) -> list[str]:
    return ["--backend", backend, "--model", str(models[backend]), "--threads", "1", *more]


def additive(identity: ModelIdentity, length: float = 1.0) -> Intervention:
    vector = np.random.default_rng(3).standard_normal(identity.d_model)
    return Intervention.everywhere(Additive(length * vector), (1, 2), identity, strength=0.5)


def rewrite(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A file of ours with other tensors under the same header, which ``save`` would refuse."""
    with safe_open(source, framework="np") as stream:
        header = stream.metadata()
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    change(tensors)
    save_file(tensors, target, metadata=header)
    return target


def test_last_eight_of_32_blocks_on_both_backends(
    deep: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    found: dict[str, dict[str, Any]] = {}
    for backend in ("transformers", "llamacpp"):
        arguments = ["--lambda", "0.01", "--layers", "24-32", "--prompt", PROMPT, "--json"]
        assert infer.main(flags(backend, deep, *arguments)) == 0
        out, err = capfd.readouterr()
        assert "steered      blocks 24..31, strength 0.01, positions all" in err
        assert err.count("commitment drawn") == 1
        found[backend] = json.loads(out)
    one, other = found["transformers"], found["llamacpp"]
    assert one["blocks"] == other["blocks"] == list(range(24, 32))
    assert one["samples"][0]["ids"] == other["samples"][0]["ids"]
    assert one["intervention"]["content_hash"] == other["intervention"]["content_hash"]
    for block, change in one["relative_change"].items():
        assert change > 0
        # The states of both are float32 of the same weights: they agree to rounding.
        assert other["relative_change"][block] == pytest.approx(change, rel=1e-3)


@pytest.mark.parametrize("backend", ["transformers", "llamacpp"])
def test_stdout_is_the_continuation_alone(
    backend: str, tiny: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = flags(backend, tiny, "--prompt", PROMPT, "--lambda", "0.3", "--max-tokens", "6")
    assert infer.main([*arguments, "--json"]) == 0
    sample = json.loads(capfd.readouterr().out)["samples"][0]
    assert infer.main(arguments) == 0
    out, err = capfd.readouterr()
    assert out == sample["text"] + "\n"
    for label in ("backend", "model", "intervention", "steered", "verified"):
        assert sum(line.startswith(f"{label} ") for line in err.splitlines()) == 1
    assert "--model" in err
    assert "of the residual norm" in err


def test_lambda_zero_is_a_control(tiny: Pair, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = flags("llamacpp", tiny, "--lambda", "0", "--prompt", PROMPT, "--compare")
    assert infer.main(arguments) == 0
    out, err = capfd.readouterr()
    plain, steered = out.split("steered: ")[1:]
    assert plain.removesuffix("un") == steered
    assert "strength 0 steers nothing" in err
    assert infer.main([*arguments, "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["control"] is True
    assert facts["unsteered"] == facts["samples"]


def test_no_verify_says_so(tiny: Pair, capfd: pytest.CaptureFixture[str]) -> None:
    assert infer.main(flags("llamacpp", tiny, "--no-verify", "--json")) == 0
    out, err = capfd.readouterr()
    assert "not verified" in err
    facts = json.loads(out)
    assert facts["verified"] is False
    assert facts["relative_change"] is None


def test_a_file_and_the_flags_over_it(
    tiny: Pair, tiny_identity: ModelIdentity, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = additive(tiny_identity).save(tmp_path / "a.safetensors")
    arguments = flags("llamacpp", tiny, "--intervention", str(file), "--json")
    assert infer.main(arguments) == 0
    facts = json.loads(capfd.readouterr().out)
    assert (facts["blocks"], facts["strength"]) == ([1, 2], 0.5)
    assert facts["intervention"]["kinds"] == ["additive"]
    more = ["--lambda", "-0.25", "--layers", "2", "--positions", "generated", "--first-token"]
    assert infer.main([*arguments, *more]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert (facts["blocks"], facts["strength"]) == ([2], -0.25)
    assert facts["positions"]["kind"] == "generated"
    assert facts["positions"]["first_token"] is True
    assert list(facts["relative_change"]) == ["2"]


def test_prompts_from_flags_files_and_pipes(
    tiny: Pair,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import io

    file = tmp_path / "prompts.txt"
    file.write_text("guro\n\nmeme bada\n", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))
    arguments = ["--prompt", PROMPT, "--prompt", "-", "--prompt-file", str(file), "--json"]
    assert infer.main(flags("llamacpp", tiny, *arguments)) == 0
    samples = json.loads(capfd.readouterr().out)["samples"]
    assert [s["prompt"] for s in samples] == [PROMPT, "from a pipe", "guro", "meme bada"]


def test_model_from_the_environment(
    tiny: Pair, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny["llamacpp"]))
    assert infer.main(["--backend", "llamacpp", "--threads", "1"]) == 0
    err = capfd.readouterr().err
    assert f"({MODEL_VARIABLE})" in err
    assert "(default)" in err


def require_error(arguments: list[str], capfd: pytest.CaptureFixture[str], *parts: str) -> None:
    """Exit code 2, one error line after the information, nothing on stdout or in the folder."""
    assert infer.main(arguments) == 2
    out, err = capfd.readouterr()
    lines = err.splitlines()
    known = ("backend ", "model ", "intervention ", "steered ", "prompt ", "verified ")
    known += ("device ", "memory ", "weights: ", "[CPU Memory ")
    information = [line for line in lines[:-1] if not line.startswith("commitment drawn")]
    assert all(line.startswith(known) for line in information), err
    assert lines[-1].startswith("error: ["), err
    for part in parts:
        assert part in lines[-1]
    assert not out
    assert not list(Path.cwd().iterdir())


BACKENDS = ["transformers", "llamacpp"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_unknown_layer(backend: str, tiny: Pair, capfd: pytest.CaptureFixture[str]) -> None:
    require_error(flags(backend, tiny, "--layers", "24-32"), capfd, "0..3", "24-32")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_demo_model_has_six_blocks(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["--backend", backend, "--lambda", "0.01", "--layers", "24-32", "--threads", "1"]
    require_error(arguments, capfd, "0..5", "24-32")


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_model(
    backend: str,
    deep: Pair,
    tiny_identity: ModelIdentity,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file = additive(tiny_identity).save(tmp_path / "a.safetensors")
    arguments = flags(backend, deep, "--intervention", str(file))
    require_error(arguments, capfd, "4 blocks of width 64", "32 blocks of width 32")


def test_block_that_the_file_lacks(
    tiny: Pair, tiny_identity: ModelIdentity, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = additive(tiny_identity).save(tmp_path / "a.safetensors")
    arguments = flags("llamacpp", tiny, "--intervention", str(file), "--layers", "2-4")
    require_error(arguments, capfd, "blocks 1..2", "block 3")


def test_truncated_intervention(
    tiny: Pair, tiny_identity: ModelIdentity, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = additive(tiny_identity).save(tmp_path / "a.safetensors")
    file.write_bytes(file.read_bytes()[:-8])
    require_error(flags("llamacpp", tiny, "--intervention", str(file)), capfd, str(file))


def test_foreign_safetensors(tiny: Pair, capfd: pytest.CaptureFixture[str]) -> None:
    file = tiny["transformers"] / "model.safetensors"
    arguments = flags("llamacpp", tiny, "--intervention", str(file))
    require_error(arguments, capfd, "of another origin")


def test_non_finite_vector(
    tiny: Pair, tiny_identity: ModelIdentity, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = additive(tiny_identity).save(tmp_path / "a.safetensors")

    def spoil(tensors: dict[str, Any]) -> None:
        tensors["operator.0.vector"][5] = np.nan

    bad = rewrite(file, tmp_path / "bad.safetensors", spoil)
    require_error(flags("llamacpp", tiny, "--intervention", str(bad)), capfd, "finite")


def test_zero_norm_direction(
    tiny: Pair, tiny_identity: ModelIdentity, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    unit = np.eye(tiny_identity.d_model)[:, :1]
    operator = Ablation(unit, np.zeros(tiny_identity.d_model))
    file = Intervention.everywhere(operator, (1,), tiny_identity).save(tmp_path / "a.safetensors")

    def spoil(tensors: dict[str, Any]) -> None:
        tensors["operator.0.directions"][:] = 0

    bad = rewrite(file, tmp_path / "bad.safetensors", spoil)
    require_error(flags("llamacpp", tiny, "--intervention", str(bad)), capfd, "orthonormal")
    zeros = additive(tiny_identity, length=0.0).save(tmp_path / "zeros.safetensors")
    arguments = flags("llamacpp", tiny, "--intervention", str(zeros))
    require_error(arguments, capfd, "change something", "--lambda 0")


def test_missing_and_wrong_models(
    tiny: Pair, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    absent = {"llamacpp": tmp_path / "absent.gguf", "transformers": tmp_path / "absent"}
    for backend in BACKENDS:
        require_error(flags(backend, absent), capfd, str(absent[backend]))
    swapped = {"llamacpp": tiny["transformers"], "transformers": tiny["llamacpp"]}
    for backend in BACKENDS:
        require_error(flags(backend, swapped), capfd, str(swapped[backend]))
    no_gguf = tmp_path / "text.gguf"
    no_gguf.write_text("no model", encoding="utf-8")
    require_error(flags("llamacpp", {"llamacpp": no_gguf}), capfd, str(no_gguf))
    half = tmp_path / "half.gguf"
    whole = tiny["llamacpp"].read_bytes()
    half.write_bytes(whole[: len(whole) // 2])
    require_error(flags("llamacpp", {"llamacpp": half}), capfd, str(half))


def test_truncated_weights(tiny: Pair, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "half"
    shutil.copytree(tiny["transformers"], folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    require_error(flags("transformers", {"transformers": folder}), capfd, str(folder))


@pytest.mark.parametrize("backend", BACKENDS)
def test_prompt_longer_than_the_context(
    backend: str, tiny: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = flags(backend, tiny, "--prompt", " ".join([PROMPT] * 60))
    require_error(arguments, capfd, "within the context of 96 tokens")


def test_change_below_rounding(tiny: Pair, capfd: pytest.CaptureFixture[str]) -> None:
    require_error(flags("llamacpp", tiny, "--lambda", "1e-15"), capfd, "expected a change")


def test_a_share_of_the_depth_chooses_among_a_files_blocks(tiny_identity: ModelIdentity) -> None:
    """Row P11."""
    from cogit.cli.infer_run import _restricted
    from cogit.layers import LayerRange

    stored = Intervention.everywhere(Additive(np.ones(64)), (1, 2, 3), tiny_identity)
    assert _restricted(stored, LayerRange.parse("50%-100%")).layers == (2, 3)
    with pytest.raises(
        ValueError, match=r"expected blocks that the intervention file has.*block 0"
    ):
        _restricted(stored, LayerRange.parse("early"))
