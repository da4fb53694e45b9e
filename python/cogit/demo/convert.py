"""Writes GGUF files by the converter of the pinned llama.cpp tree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

from cogit.errors import BackendMissingError

GgufType = Literal["f32", "f16", "q8_0"]
_SOURCE_VARIABLE = "COGIT_LLAMA_SOURCE"
_TAIL = 500


def converter_path() -> Path:
    """convert_hf_to_gguf.py of the package, or of the tree that COGIT_LLAMA_SOURCE names.

    Raises BackendMissingError where there is none.
    """
    named = os.environ.get(_SOURCE_VARIABLE)
    package = Path(__file__).resolve().parent.parent
    folder = Path(named) if named else package / "_llama" / "converter"
    path = folder / "convert_hf_to_gguf.py"
    if not path.is_file():
        message = (
            f"[convert] expected llama.cpp's converter at {path}, got no file; install cogit with "
            f"its llama.cpp part, or set {_SOURCE_VARIABLE} to a llama.cpp source tree"
        )
        raise BackendMissingError(message)
    return path


def convert_to_gguf(directory: str | Path, out: str | Path, kind: GgufType = "f32") -> Path:
    """Convert a transformers model directory to the GGUF file ``out``; returns its path.

    Raises BackendMissingError without a converter, FileNotFoundError without a model, ValueError
    with the converter's last words where it fails.
    """
    source, target = Path(directory), Path(out)
    if not (source / "config.json").is_file():
        message = f"[convert] expected a model directory with config.json, got {source}"
        raise FileNotFoundError(message)
    script = converter_path()
    # The tree's own gguf-py must win over an installed gguf, which may be of another version.
    environment = os.environ | {"PYTHONPATH": str(script.parent / "gguf-py")}
    command = [sys.executable, str(script), str(source), "--outfile", str(target)]
    result = subprocess.run(
        [*command, "--outtype", kind], env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode != 0 or not target.is_file():
        message = f"[convert] {script.name} failed on {source}: {result.stderr.strip()[-_TAIL:]}"
        raise ValueError(message)
    return target
