"""cogit record, and the memory that recording needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cogit.activation_moments import ActivationMoments
from cogit.activations import Activations, record
from cogit.backends import load_backend
from cogit.cli.main import main
from cogit.pairs import load_pairs
from cogit.store import ActivationStore
from conftest import syllables

LINES = syllables(24, seed=3)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"prompt": LINES[3 * i][:20], "positive": LINES[3 * i + 1], "negative": LINES[3 * i + 2]}
        for i in range(8)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(capfd: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> Any:
    """The JSON of a good run, or the one line of a bad one."""
    given = ["record", *map(str, arguments), *(["--json"] if code == 0 else [])]
    assert main(given) == code
    streams = capfd.readouterr()
    if code == 0:
        return json.loads(streams.out)
    assert streams.out == ""
    errors = [line for line in streams.err.splitlines() if line.startswith("error: ")]
    assert [streams.err.splitlines()[-1]] == errors
    return errors[0]


def test_a_folder_a_file_and_python_agree(
    tiny_hf: Path, pairs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["--model", tiny_hf, "--pairs", pairs, "--layers", "1-3", "--select", "answer"]
    common += ["--hook-point", "attn_out", "--device", "cpu"]
    facts = run(capfd, *common, "--out", tmp_path / "store")
    assert (facts["layers"], facts["hook_point"], facts["select"]) == ([1, 2], "attn_out", "answer")
    assert (facts["pairs"], facts["rows"]) == (8, 16)
    assert facts["bytes"] == sum(p.stat().st_size for p in (tmp_path / "store").iterdir())
    single = run(capfd, *common, "--out", tmp_path / "a.safetensors")
    assert single["kind"] == "activations"
    backend = load_backend("transformers", tiny_hf, device="cpu")
    from cogit.layers import LayerRange

    direct = record(
        backend, load_pairs(pairs), LayerRange.parse("1-3"), hook_point="attn_out", select="answer"
    )
    for path in ("store", "a.safetensors"):
        found = Activations.load(tmp_path / path)
        np.testing.assert_array_equal(found.positive, direct.positive)
        np.testing.assert_array_equal(found.negative, direct.negative)
        assert found.identity == direct.identity


def test_resuming_and_the_cache(
    tiny_hf: Path, pairs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["--model", tiny_hf, "--pairs", pairs, "--device", "cpu", "--select", "all"]
    run(capfd, *common, "--out", tmp_path / "a", "--cache", tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    before = {p.name: p.stat().st_mtime_ns for p in entry.glob("*safetensors")}
    run(capfd, *common, "--out", tmp_path / "b", "--cache", tmp_path / "cache")
    assert {p.name: p.stat().st_mtime_ns for p in entry.glob("*safetensors")} == before
    first, second = ((tmp_path / x / "shard-00000.safetensors").read_bytes() for x in "ab")
    assert first == second
    (tmp_path / "b" / "shard-00000.safetensors").unlink()
    line = run(capfd, *common, "--out", tmp_path / "b", code=2)
    assert "resume it (--resume)" in line
    run(capfd, *common, "--out", tmp_path / "b", "--resume")
    assert (tmp_path / "b" / "shard-00000.safetensors").read_bytes() == first


def test_moments(
    tiny_hf: Path, pairs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["--model", tiny_hf, "--pairs", pairs, "--device", "cpu", "--select", "all"]
    out = tmp_path / "m.safetensors"
    facts = run(capfd, *common, "--out", out, "--stats", "covariance")
    found = ActivationMoments.load(out)
    total = sum(moments.count for moments in (found.positive[0], found.negative[0]))
    assert total == facts["rows"] == facts["tokens"]
    assert found.at(3)[0].covariance().shape == (64, 64)
    run(capfd, *common, "--out", out, "--stats", "variance", "--force")
    assert ActivationMoments.load(out).at(3)[0].diagonal


@pytest.mark.llamacpp
def test_llamacpp(
    tiny_hf: Path, tiny_gguf: Path, pairs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["--pairs", pairs, "--threads", "1"]
    run(capfd, "--model", tiny_hf, "--device", "cpu", *common, "--out", tmp_path / "a")
    here = ["--backend", "llamacpp", "--model", tiny_gguf, *common]
    facts = run(capfd, *here, "--out", tmp_path / "b", "--row-dtype", "f16")
    assert facts["layers"] == [0, 1, 2, 3]
    one, other = (Activations.load(tmp_path / x).positive for x in "ab")
    # Keys and values, and the rows, in float16.
    assert np.abs(one - other).max() <= 5e-3 * np.abs(one).max()
    assert ActivationStore.open(tmp_path / "b").read(0).positive.states.dtype == np.float16


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out", "a.safetensors", "--select", "all"], "expected a folder as --out for all"),
        (["--out", "a.safetensors", "--resume"], "expected a folder as --out with --resume"),
        (["--out", "a.safetensors", "--row-dtype", "f16"], "expected a folder as --out for rows"),
        (["--out", "a", "--stats", "variance"], "expected a file .safetensors with --stats"),
        (["--out", "a.safetensors", "--stats", "variance", "--cache", "c"], "expected no --cache"),
        (["--out", "no/a.safetensors"], "expected an existing folder, got no"),
        (["--out", "a", "--hook-point", "nowhere"], "[hook point] expected one of"),
        (["--out", "a", "--select", "some"], "[select] expected last"),
        (["--out", "a", "--layers", "3-1"], "[layers] expected"),
        (["--out", "a", "--row-dtype", "f8"], "f8"),
    ],
)
def test_mistakes_are_one_line_before_a_model_is_loaded(
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in run(capfd, "--model", "none", "--pairs", pairs, *flags, code=2)
    assert list(tmp_path.iterdir()) == []


def test_bad_pairs_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.csv"
    path.write_text("positive,negative\na,b\nc\n", encoding="utf-8")
    line = run(capfd, "--pairs", path, "--out", tmp_path / "s", code=2)
    assert "p.csv:3, got 1" in line


# ---- memory ----

_JOB = """
import gc, sys, tempfile
from pathlib import Path
from bench.memory import resident
from cogit.backends.transformers import TransformersBackend
from cogit.pairs import ContrastPair
from cogit.recording import record_to
from test_cli_record import tokenizer_and_model

model, tokenizer = tokenizer_and_model()
backend = TransformersBackend(model, tokenizer, name="random")
words = [f"w{i}" for i in range(3, 95)]
texts = [" ".join(words[(7 * i + j) % 92] for j in range(40 + i % 60)) for i in range(100)]
pairs = [ContrastPair(texts[2 * i], texts[2 * i + 1]) for i in range(50)]
# What the libraries load for the first call of all (kernels, buffers) is theirs.
backend.states([[1, 2]], [0], [(0, 2)], mean=True)
gc.collect()
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
with tempfile.TemporaryDirectory() as folder:
    store = record_to(backend, pairs, folder + "/s", select=sys.argv[1], show_progress=False)
    print(resident("VmHWM") - before, len(store.recipe.shards), store.size())
"""


def tokenizer_and_model() -> Any:
    """Qwen2.5-0.5B's shape, whole vocabulary and all, with random weights."""
    import torch
    import transformers

    from _models import word_tokenizer

    config = transformers.Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return transformers.Qwen2ForCausalLM(config).float().eval(), word_tokenizer()


@pytest.mark.slow
@pytest.mark.parametrize("select", ["tail-4", "all"])
def test_peak_memory_at_half_a_billion_parameters(select: str) -> None:
    """50 + 50 texts of 41..100 tokens, all 24 layers, within 200 MB above the model.

    Logits of these texts alone would be 4.3 GB.
    """
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    result = subprocess.run(
        [sys.executable, "-c", _JOB, select],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    rise, shards, size = map(int, result.stdout.split())
    states = sum(41 + i % 60 for i in range(100)) if select == "all" else 100
    assert size > states * 24 * 896 * 4
    assert shards == (1 if select == "tail-4" else shards) > 0
    assert rise <= 200e6, f"{rise / 1e6:.0f} MB"
