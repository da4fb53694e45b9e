"""Our control vectors in a libllama that somebody else built, without cogit's hook.

``make test-interop COGIT_STOCK_LLAMA=FOLDER``: the folder of a libllama of the pinned llama.cpp
(vendor/llama.cpp/PIN), built with BUILD_SHARED_LIBS=ON and for the same CPU features. The default
tests do the same by the stock API of our library with nothing of ours attached. Compiled with -O3,
as ours is, it gave the same bits; with -O2, logits within 2e-5.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cogit import Additive, Intervention, Positions
from cogit.backends.llamacpp import LlamaCppBackend
from cogit.interop import export_control_vector
from tiny_llama import D_MODEL, N_VOCAB, TinyLlama

VARIABLE = "COGIT_STOCK_LLAMA"
# By path: to import it is to load a libllama.
WORKER = Path(__file__).with_name("_stock_llama.py")
pytestmark = [
    pytest.mark.interop,
    pytest.mark.llamacpp,
    pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} names no stock libllama"),
]


@pytest.mark.parametrize("blocks", [(1,), (3,), (1, 2, 3)], ids=str)
def test_export_runs_in_another_libllama(blocks: tuple[int, ...], tmp_path: Path) -> None:
    """With llama.cpp as others build it."""
    model = TinyLlama().write(tmp_path / "tiny.gguf")
    rng = np.random.default_rng(5)
    ids = rng.integers(0, N_VOCAB, 33).tolist()
    operators = {block: Additive(rng.standard_normal(D_MODEL)) for block in blocks}
    with LlamaCppBackend(model, n_ctx=64, threads=1, kv_type="f32") as backend:
        made = Intervention(
            operators, backend.identity, strength=0.37, positions=Positions(first_token=True)
        )
        plain = backend.logits([ids])[0]
        with backend.steer(made):
            ours = backend.logits([ids])[0]
    file = export_control_vector(made, tmp_path / "v.gguf")
    out = tmp_path / "logits.npy"
    tokens = ",".join(map(str, ids))
    subprocess.run(
        [sys.executable, WORKER, str(model), str(file), tokens, str(out)],
        check=True,
        env={**os.environ, "LLAMA_CPP_LIB_PATH": os.environ[VARIABLE]},
        capture_output=True,
        timeout=120,
    )
    difference = float(np.abs(np.load(out) - ours).max())
    sys.stdout.write(f"largest difference {difference:.3g}\n")  # shown by pytest -rP
    assert np.abs(ours - plain).max() > 0.5
    # Another compiler may contract products and sums elsewhere; the bound of test_llama_engine.
    assert difference <= 64 * np.finfo(np.float32).eps * np.abs(ours).max()
