"""The build: what the distribution holds, how the patch behaves, and that it changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tiny_llama import TinyLlama

ROOT = Path(__file__).resolve().parent.parent
PATCH = ROOT / "cmake" / "PatchLlama.cmake"
CMAKE = shutil.which("cmake")

needs_cmake = pytest.mark.skipif(CMAKE is None, reason="cmake is not installed")


# ---- the distribution ----


@pytest.fixture
def installed() -> set[str]:
    """The files of the installed distribution."""
    try:
        files = metadata.files("cogit")
    except metadata.PackageNotFoundError:
        pytest.skip("cogit runs from a checkout here; install it to check the distribution")
    if any(file.suffix == ".pth" for file in files or []):
        pytest.skip("an editable install has no files of its own")
    return {file.as_posix() for file in files or []}


def test_distribution_holds_what_it_should(installed: set[str]) -> None:
    names = installed
    for expected in (
        "cogit/__init__.py",
        "cogit/py.typed",
        "cogit/_llama/libllama.so",
        "cogit/_llama/build.json",
        "cogit/_llama/LICENSE",
        "cogit/_llama/converter/convert_hf_to_gguf.py",
        "cogit/_llama/converter/conversion/llama.py",
        "cogit/_llama/converter/gguf-py/gguf/__init__.py",
        "cogit/_llama/converter/gguf-py/LICENSE",
        "cogit/data/neutral.txt",
        "cogit/data/neutral_prompts.txt",
        "cogit/data/open_prompts.txt",
        "cogit/data/pairs_sentiment.jsonl",
        "cogit/demo/assets/demo-f32.gguf",
        "cogit/demo/assets/demo-f16.gguf",
        "cogit/demo/assets/demo-q8_0.gguf",
        "cogit/demo/assets/model/model.safetensors",
        "cogit/demo/assets/model/tokenizer.json",
    ):
        assert expected in names
    assert any(name.startswith("cogit/_core.") for name in names)
    # The two commands are the only files outside the package, and pip writes them.
    places = {name.split("/")[0] for name in names if not name.startswith("../")}
    scripts = {Path(name).name for name in names if name.startswith("../")}
    assert {place for place in places if not place.endswith(".dist-info")} == {"cogit"}
    assert scripts == {"cogit", "cogit-infer"}


@pytest.mark.llamacpp
@pytest.mark.parametrize("backend", ["transformers", "llamacpp"])
def test_installed_package_steers_outside_the_checkout(
    installed: set[str], tmp_path: Path, backend: str
) -> None:
    script = Path(sys.executable).with_name("cogit-infer")
    flags = ["--backend", backend, "--lambda", "0.05", "--layers", "1-3", "--json"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    run = subprocess.run(
        [script, *flags], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(run.stdout)
    assert found["blocks"] == [1, 2]
    assert found["samples"][0]["text"]
    assert list(tmp_path.iterdir()) == []


# ---- the patch ----

FRAGMENTS = {
    "src/llama-adapter.h": "struct llama_adapter_cvec {\n    int x;\n};\n",
    "src/llama-context.h": "struct c {\n    ggml_backend_sched_t get_sched() const;\n};\n",
    "src/llama-graph.cpp": (
        "ggml_tensor * llm_graph_context::build_cvec(\n"
        "         ggml_tensor * cur,\n                 int   il) const {\n"
        "    return cvec->apply_to(ctx0, cur, il);\n}\n"
    ),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    for name, text in FRAGMENTS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def patch(tree: Path) -> subprocess.CompletedProcess[str]:
    assert CMAKE is not None
    command = [CMAKE, f"-DSRC={tree}", "-P", str(PATCH)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def contents(tree: Path) -> dict[str, str]:
    return {name: (tree / name).read_text() for name in FRAGMENTS}


@needs_cmake
def test_patch_applies_once(tree: Path) -> None:
    assert patch(tree).returncode == 0
    first = contents(tree)
    assert (
        "return cogit_apply(*this, cvec->apply_to(ctx0, cur, il), il);"
        in (first["src/llama-graph.cpp"])
    )
    assert all("cogit" in text for text in first.values())
    assert patch(tree).returncode == 0
    assert contents(tree) == first


@needs_cmake
@pytest.mark.parametrize("name", FRAGMENTS)
def test_patch_refuses_a_missing_anchor(tree: Path, name: str) -> None:
    (tree / name).write_text("// upstream moved\n")
    done = patch(tree)
    assert done.returncode != 0
    assert f"{name}: anchor not found: " in " ".join(done.stderr.split())


@needs_cmake
@pytest.mark.parametrize("name", FRAGMENTS)
def test_patch_refuses_an_anchor_found_twice(tree: Path, name: str) -> None:
    (tree / name).write_text(FRAGMENTS[name] * 2)
    done = patch(tree)
    assert done.returncode != 0
    assert f"{name}: anchor not unique: " in " ".join(done.stderr.split())


@needs_cmake
def test_patch_refuses_a_missing_file(tree: Path) -> None:
    (tree / "src/llama-graph.cpp").unlink()
    done = patch(tree)
    assert done.returncode != 0
    assert "src/llama-graph.cpp: file not found" in " ".join(done.stderr.split())


def test_pins_agree() -> None:
    """The release is written where CMake, pip and the loader each need it."""
    from cogit.backends.llama_library import BINDINGS_VERSION

    pin = (ROOT / "vendor/llama.cpp/PIN").read_text()
    assert f"\nrelease {BINDINGS_VERSION}\n" in pin
    for name in ("pyproject.toml", "requirements.txt"):
        assert f"llama-cpp-python=={BINDINGS_VERSION}" in (ROOT / name).read_text()


# ---- bit-exactness of the patched library with nothing attached ----

LOGITS = """
import ctypes, hashlib, sys
import llama_cpp as L
L.llama_backend_init()
quiet = L.llama_log_callback(lambda level, text, data: None)
L.llama_log_set(quiet, ctypes.c_void_p(0))
digest = hashlib.sha256()
for path in sys.argv[1:]:
    mp = L.llama_model_default_params()
    model = L.llama_model_load_from_file(path.encode(), mp)
    cp = L.llama_context_default_params()
    cp.n_ctx, cp.n_threads, cp.n_threads_batch = 256, 1, 1
    ctx = L.llama_init_from_model(model, cp)
    n_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model))
    batch = L.llama_batch_init(64, 0, 1)
    position = 0
    for n in (40, 1, 1, 7):
        batch.n_tokens = n
        for i in range(n):
            batch.token[i], batch.pos[i] = (7 * (position + i)) % n_vocab, position + i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
        assert L.llama_decode(ctx, batch) == 0
        digest.update(ctypes.string_at(L.llama_get_logits(ctx), 4 * n * n_vocab))
        position += n
    L.llama_batch_free(batch)
    L.llama_free(ctx)
    L.llama_model_free(model)
print(hasattr(L.llama_cpp._lib, "cogit_abi_version"), digest.hexdigest())
"""


def logits_digest(library: Path, models: list[Path]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOGITS, *map(str, models)],
        env={**os.environ, "LLAMA_CPP_LIB_PATH": str(library.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.llamacpp
@pytest.mark.timeout(1800)
@needs_cmake
def test_nothing_attached_is_bit_identical_to_stock(tmp_path: Path) -> None:
    """Builds llama.cpp untouched, with the same flags, and compares logits byte for byte."""
    from cogit.backends.llama_engine import LlamaEngine
    from cogit.backends.llama_library import library_path

    assert CMAKE is not None
    ours = library_path()
    native = json.loads((ours.parent / "build.json").read_text())["native"]
    build = tmp_path / "build"
    configure = [
        *(CMAKE, "-S", str(ROOT), "-B", str(build), "-DCOGIT_BUILD_CORE=OFF"),
        *("-DCOGIT_LLAMA_STOCK=ON", f"-DCOGIT_NATIVE={'ON' if native else 'OFF'}"),
        f"-DPython_EXECUTABLE={sys.executable}",
    ]
    subprocess.run(configure, check=True, capture_output=True)
    command = [CMAKE, "--build", str(build), "--parallel", "2", "--target", "llama"]
    subprocess.run(command, check=True, capture_output=True)
    stock = build / "_llama" / "libllama.so"

    models = [TinyLlama().write(tmp_path / "f32.gguf")]
    for kind in ("f16", "q8_0"):
        models.append(tmp_path / f"{kind}.gguf")
        LlamaEngine.quantize(models[0], models[-1], kind)
    assert hashlib.sha256(ours.read_bytes()).digest() != hashlib.sha256(stock.read_bytes()).digest()
    hooked, digest = logits_digest(ours, models)
    unhooked, expected = logits_digest(stock, models)
    assert (hooked, unhooked) == ("True", "False")
    assert digest == expected
