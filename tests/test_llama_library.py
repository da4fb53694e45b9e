"""Choosing and checking the library, in processes of their own: it is loaded once per process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cogit.backends.llama_library import library_path
from tiny_llama import TinyLlama

pytestmark = pytest.mark.llamacpp

LOAD = (
    "from cogit.backends.llama_library import load_library\n"
    "try:\n    load_library()\nexcept Exception as error:\n"
    "    print(type(error).__name__, error)"
)


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def refusal(**environment: str) -> str:
    done = _python(LOAD, **environment)
    assert done.stdout.startswith("BackendMissingError [llama.cpp] ")
    assert done.stdout.count("\n") == 1
    return done.stdout


def test_absent_library(tmp_path: Path) -> None:
    expected = f"expected libllama at {tmp_path}/libllama.so, got no file"
    assert expected in refusal(LLAMA_CPP_LIB_PATH=str(tmp_path))


def test_unreadable_library(tmp_path: Path) -> None:
    (tmp_path / "libllama.so").write_text("not a library")
    assert "could not load" in refusal(LLAMA_CPP_LIB_PATH=str(tmp_path))


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="the CPU check reads /proc/cpuinfo")
def test_library_for_another_cpu(tmp_path: Path) -> None:
    source = library_path().parent
    shutil.copy(source / "libllama.so", tmp_path)
    record = json.loads((source / "build.json").read_text())
    record["cpu_flags"].append("avx9000")
    (tmp_path / "build.json").write_text(json.dumps(record))
    assert "lacks avx9000; build cogit on this machine" in refusal(LLAMA_CPP_LIB_PATH=str(tmp_path))


def test_bindings_that_loaded_a_library_without_the_hook(tmp_path: Path) -> None:
    """Stands in for a stock libllama: the bindings are there, with a library that lacks cogit_*."""
    code = (
        "import ctypes, sys, types\n"
        "module = types.ModuleType('llama_cpp.llama_cpp')\n"
        "module._lib = ctypes.CDLL(None)\n"
        "sys.modules['llama_cpp.llama_cpp'] = module\n"
    )
    done = _python(code + LOAD)
    assert "which lacks cogit's hook; import cogit's backend before llama_cpp" in done.stdout


def test_loading_prints_nothing(tmp_path: Path) -> None:
    model = TinyLlama().write(tmp_path / "tiny.gguf")
    code = (
        "import sys; from cogit.backends.llama_engine import LlamaEngine\n"
        f"LlamaEngine({str(model)!r}, threads=1).close()"
    )
    quiet, loud = _python(code), _python(code, COGIT_LLAMA_LOG="1")
    assert quiet.returncode == 0
    assert (quiet.stdout, quiet.stderr) == ("", "")
    assert "llama_model_loader" in loud.stderr
