"""The kernels' own threads: the same bits with any number of them, from anywhere, after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from _kernels import make_affine, make_rows
from cogit import _core, kernels

# Enough work that the pool is used: see kAlone in csrc/kernels/pool.h.
D, RANK, ROWS = 512, 24, 301


def compiled() -> _core.Affine:
    affine = make_affine(np.random.default_rng(0), D, RANK)
    return _core.Affine(affine.A, affine.a0, affine.B, affine.c, affine.restore)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    rng = np.random.default_rng(1)
    h = make_rows(rng, ROWS, D)
    strengths = rng.choice(np.array([0, 1, 0.5], np.float32), size=ROWS)
    results = []
    for threads in (1, 2, 3, 8, 64):
        out = np.full_like(h, np.nan)
        compiled().apply(h, strengths, out, threads)
        results.append(out)
    assert np.isfinite(results[0]).all()
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_calls_from_many_threads_at_once() -> None:
    """The pool serves one at a time; the others work alone and lose nothing."""
    kernel = compiled()
    inputs = [make_rows(np.random.default_rng(seed), ROWS, D) for seed in range(8)]
    expected = [np.empty_like(h) for h in inputs]
    for h, out in zip(inputs, expected, strict=True):
        kernel.apply(h, None, out, 1)

    def run(index: int) -> bool:
        out = np.empty_like(inputs[index % 8])
        kernel.apply(inputs[index % 8], None, out, 3)
        return bool((out == expected[index % 8]).all())

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(run, range(120)))


FORK = """
import os, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_kernels_threads import compiled, make_rows, D, ROWS
kernel, h = compiled(), make_rows(np.random.default_rng(1), ROWS, D)
want = np.empty_like(h)
kernel.apply(h, None, want, 3)
for depth in range(3):
    child = os.fork()
    if child == 0:
        out = np.empty_like(h)
        kernel.apply(h, None, out, 3)
        if depth == 2:
            os._exit(0 if (out == want).all() else 1)
        assert (out == want).all()
        continue
    _, status = os.waitpid(child, 0)
    out = np.empty_like(h)
    kernel.apply(h, None, out, 3)
    os._exit(0 if status == 0 and (out == want).all() else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_works_in_a_child_and_its_child() -> None:
    """The parent's threads do not exist there; a pool that waited for them would hang."""
    here = os.path.dirname(__file__)  # noqa: PTH120
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, here], timeout=120, check=False
    )
    assert run.returncode == 0


def test_thread_count() -> None:
    before = kernels.info()["threads"]
    kernels.set_threads(3)
    assert kernels.info()["threads"] == 3
    with pytest.raises(ValueError, match=r"^\[set_threads\] expected at least 1 thread, got 0"):
        kernels.set_threads(0)
    assert kernels.info()["threads"] == 3
    kernels.set_threads(before)


@pytest.mark.parametrize(
    ("value", "found"), [("5", "5"), ("", str(len(os.sched_getaffinity(0)))), ("two", None)]
)
def test_thread_count_from_the_environment(value: str, found: str | None) -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from cogit import _core; print(_core.info()['threads'])"],
        env=os.environ | {"COGIT_NUM_THREADS": value},
        capture_output=True,
        text=True,
        check=False,
    )
    if found is None:
        assert "[COGIT_NUM_THREADS] expected a number from 1 to 1024, got 'two'" in run.stderr
    else:
        assert run.stdout.strip() == found
