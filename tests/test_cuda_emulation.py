"""The CUDA kernels, compiled as plain C++ and run on an emulated device; see csrc/tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"
EMULATION = CSRC / "tests" / "cuda_emulation"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))


@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
def test_kernels_on_an_emulated_device(tmp_path: Path) -> None:
    assert COMPILER is not None
    program = tmp_path / "cuda_emulation"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    # The device fuses only where it is told to. Fortified longjmp refuses to change stacks.
    flags += ["-ffp-contract=off", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE"]
    # The emulation comes first: it stands in for the headers of CUDA.
    includes = [f"-I{EMULATION}", f"-I{CSRC}"]
    sources = [str(path) for path in sorted(EMULATION.glob("*.cpp"))]
    build = [COMPILER, *flags, *includes, *sources, "-o", str(program)]
    subprocess.run(build, check=True, timeout=300)
    run = subprocess.run([program], capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " 0 of " in run.stdout
