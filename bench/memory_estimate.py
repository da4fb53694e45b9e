"""The memory estimate against the measured peak: python -m bench.memory_estimate [--quick].

``value`` is what was estimated before a load, ``limit`` the highest resident size of the process
that then loads the model, records contrast pairs and generates under an operator on every block,
and ``of_limit`` the one over the other: 1 is exact. Rows ``*.rise`` are the same above what the
process held when the estimate was made, after its imports. The random model has the shape of one of
half a billion parameters, its vocabulary included; the quick run takes the shipped model alone.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.models import LAYERS, demo_model, random_model
from bench.rows import FOLDER, Row, arguments, finish

VOCABULARY = 151_936
PAIRS, PROMPTS, TOKENS = 40, 8, 16
_TIMEOUT = 900


@dataclass(frozen=True)
class Measured:
    """Bytes: estimated and highest resident size, and what was resident at the estimate."""

    estimated: int
    peak: int
    before: int

    @property
    def error(self) -> float:
        """Of the estimate, relative to the measured peak; above 0 where it is too high."""
        return self.estimated / self.peak - 1

    def rows(self, name: str) -> tuple[Row, Row]:
        note = "limit: the measured peak"
        rise, guess = self.peak - self.before, self.estimated - self.before
        return (
            Row(name, self.estimated, "B", limit=self.peak, of_limit=1 + self.error, note=note),
            Row(f"{name}.rise", guess, "B", limit=rise, of_limit=guess / rise, note=note),
        )


def measure(backend: str, model: Path, dtype: str, work: str = "steer") -> Measured:
    """Estimate and run in a process of its own. work: "steer", or "held" for what is resident
    once a model is loaded and has run, in place of the peak.

    RuntimeError with its last words where it fails.
    """
    command = [sys.executable, "-m", "bench.memory_estimate", "--measure"]
    run = subprocess.run(
        [*command, backend, str(model), dtype, work],
        cwd=FOLDER.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT,
    )
    if run.returncode != 0:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        message = f"[bench] expected {backend} to run {model} in a process of its own, got {last!r}"
        raise RuntimeError(message)
    return Measured(**json.loads(run.stdout.splitlines()[-1]))


def run_here(backend: str, model: str, dtype: str, work: str) -> Measured:
    """What ``measure`` runs in a process of its own."""
    from cogit.backends import load_backend
    from cogit.memory_estimate import Workload, estimate_memory
    from cogit.memory_free import resident

    options: dict[str, Any] = {"threads": 1, "n_parallel": PROMPTS, "n_ctx": 256}
    if backend == "transformers":
        import torch

        import cogit.backends.transformers  # noqa: F401, so that it is resident

        torch.set_num_threads(1)
        options = {"device": "cpu", "dtype": dtype}
    workload = Workload(
        sequences=PROMPTS,
        positions=24,
        generated=TOKENS,
        recorded=2 * PAIRS,
        n_parallel=PROMPTS,
        n_ctx=256,
    )
    before = resident("VmRSS")
    estimate = estimate_memory(backend, model, dtype=dtype, workload=workload)
    with load_backend(backend, model, **options) as opened:
        _steer(opened)
        gc.collect()
        found = resident("VmRSS" if work == "held" else "VmHWM")
    return Measured(estimate.total, found, before)


def _steer(backend: Any) -> None:
    from cogit.activations import record
    from cogit.demo.grammar import contrast_pairs
    from cogit.intervention import Intervention
    from cogit.operators import Unitary
    from cogit.sampling import SamplingOptions

    record(backend, contrast_pairs(PAIRS, seed=0), show_progress=False)
    operator = Unitary.example(backend.identity.d_model, 0)
    blocks = range(backend.identity.n_layers)
    intervention = Intervention.everywhere(operator, blocks, backend.identity)
    prompts = [f"the room was {'very ' * i}nice" for i in range(PROMPTS)]
    with backend.steer(intervention):
        backend.generate(prompts, SamplingOptions(max_tokens=TOKENS))


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        found = run_here(*sys.argv[2:6])
        print(json.dumps(vars(found)))
        return
    options = arguments(__doc__)
    demo = demo_model()
    rows = [
        *measure("transformers", demo.folder, "f32").rows("memory.demo.transformers.f32"),
        *measure("llamacpp", demo.ggufs["q8_0"], "f32").rows("memory.demo.llamacpp.q8_0"),
    ]
    if not options.quick:
        with tempfile.TemporaryDirectory() as folder:
            model = random_model(Path(folder), LAYERS, vocabulary=VOCABULARY)
            for dtype in ("f32", "bf16"):
                found = measure("transformers", model.folder, dtype)
                rows += found.rows(f"memory.half_billion.transformers.{dtype}")
            for kind, file in model.ggufs.items():
                found = measure("llamacpp", file, "f32")
                rows += found.rows(f"memory.half_billion.llamacpp.{kind}")
    finish("memory_estimate", rows, options, threads=1)


if __name__ == "__main__":
    main()
