"""The compiled affine against its float64 definition, its laws, and everything it must refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from _kernels import make_affine, make_rows
from cogit import _core, kernels, reference
from cogit.affine import Affine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

VARIANTS = _core.info()["variants"]
pytestmark = pytest.mark.usefixtures("restore_variant")


def plain(affine: Affine, h: Array, strengths: Array | None = None) -> Array:
    """The obvious NumPy code in float32."""
    change = (h @ affine.A.T + affine.a0) @ affine.B + affine.c
    y = h + change if strengths is None else h + strengths[:, None] * change
    if affine.restore:
        y = y * (np.linalg.norm(h, axis=1) / np.linalg.norm(y, axis=1))[:, None]
    return np.asarray(y, np.float32)


def assert_close(got: Array, affine: Affine, h: Array, strengths: Array | None = None) -> None:
    """At most twice the error of plain float32, and 2 ulp of the largest value.

    Plain code's error is its largest over these rows and 32 others like them, because in a single
    row it is now and then tiny by luck; the ulps are for the rounding of the result itself.
    """
    assert got.dtype == np.float32
    assert got.shape == h.shape
    if h.size == 0:
        return
    exact = reference.affine_apply(affine, h, strengths)
    others = make_rows(np.random.default_rng(0), 32, h.shape[1]) * np.sqrt(np.mean(h**2))
    rows = np.concatenate([h, others])
    factors = None if strengths is None else np.resize(strengths, len(rows))
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.abs(
            plain(affine, rows, factors) - reference.affine_apply(affine, rows, factors)
        )
    allowed = 2 * errors.max() + 2 * np.spacing(np.float32(np.abs(exact).max()))
    assert np.abs(got - exact).max() <= allowed


# ---- against the definition ----


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("d", [1, 5, 64, 100, 896, 3584])
def test_matches_reference(variant: str, d: int) -> None:
    _core.set_cpu_variant(variant)
    rng = np.random.default_rng(d)
    for rank in (0, 1, 3, 4, 16, 33):
        affines = [make_affine(rng, d, rank, restore) for restore in (False, True)]
        for n in (0, 1, 2, 5, 33):
            h = make_rows(rng, n, d)
            strengths = rng.choice(np.array([0, 0.5, 1, -2], np.float32), size=n)
            for affine in affines:
                assert_close(kernels.affine_apply_numpy(affine, h), affine, h)
                got = kernels.affine_apply_numpy(affine, h, strengths)
                assert_close(got, affine, h, strengths)


def test_fuzz() -> None:
    """Random shapes, strides of either sign, strengths, places of the result, variants, scales."""
    rng = np.random.default_rng(7)
    for _ in range(300):
        _core.set_cpu_variant(str(rng.choice(VARIANTS)))
        d, rank, n = int(rng.integers(1, 300)), int(rng.integers(0, 40)), int(rng.integers(0, 10))
        affine = make_affine(rng, d, rank, bool(rng.integers(2)))
        store = make_rows(rng, 3 * n, d + 9) * np.float32(10.0 ** rng.integers(-3, 4))
        h = store[:: int(rng.choice([-3, -2, 1, 2, 3])), int(rng.integers(9)) :][:n, :d]
        strengths = None
        if rng.integers(2):
            strengths = (rng.normal(size=n) * rng.integers(0, 2, size=n)).astype(np.float32)
        original = h.copy()
        place = rng.integers(3)
        if place == 0:
            out = kernels.affine_apply_numpy(affine, h, strengths)
        elif place == 1:
            out = kernels.affine_apply_numpy(affine, h, strengths, out=h)
        else:
            wide = np.full((n, d + 7), np.nan, np.float32)
            out = kernels.affine_apply_numpy(affine, h, strengths, out=wide[::-1, 3:-4])
            assert np.isnan(wide[:, :3]).all()
            assert np.isnan(wide[:, -4:]).all()
        assert_close(out, affine, original, strengths)


# ---- laws ----


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("d", [7, 100, 896])
def test_a_row_alone_equals_the_row_in_a_batch(variant: str, d: int) -> None:
    _core.set_cpu_variant(variant)
    rng = np.random.default_rng(1)
    for rank in (0, 1, 2, 7, 16, 19):
        affine, h = make_affine(rng, d, rank), make_rows(rng, 11, d)
        batch = kernels.affine_apply_numpy(affine, h)
        alone = [kernels.affine_apply_numpy(affine, h[i : i + 1]) for i in range(len(h))]
        np.testing.assert_array_equal(batch, np.concatenate(alone), strict=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_strength_zero_is_bit_exact_and_one_is_no_strength(variant: str) -> None:
    _core.set_cpu_variant(variant)
    rng = np.random.default_rng(2)
    affine, h = make_affine(rng, 100, 4), make_rows(rng, 9, 100)
    h[0, :3] = (-0.0, np.nan, np.inf)
    strengths = np.array([0, 1, -0.0, 1, 1, 1, 1, 0, 1], np.float32)
    off = strengths == 0
    got = kernels.affine_apply_numpy(affine, h, strengths)
    assert got[off].tobytes() == h[off].tobytes()
    np.testing.assert_array_equal(got[~off], kernels.affine_apply_numpy(affine, h)[~off])


@pytest.mark.parametrize("variant", VARIANTS)
def test_restore_leaves_an_unchanged_row_and_a_vanished_row_alone(variant: str) -> None:
    _core.set_cpu_variant(variant)
    h = make_rows(np.random.default_rng(3), 5, 99)
    nothing = Affine.zero(99, 3, restore=True)
    np.testing.assert_array_equal(kernels.affine_apply_numpy(nothing, h), h)
    empty = np.zeros((0, 99), np.float32)
    away = Affine(empty, empty[:, 0], empty, -h[0], restore=True)
    np.testing.assert_array_equal(kernels.affine_apply_numpy(away, h[:1]), 0 * h[:1])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(variant: str, bad: float) -> None:
    _core.set_cpu_variant(variant)
    rng = np.random.default_rng(4)
    affine, h = make_affine(rng, 70, 5), make_rows(rng, 7, 70)
    clean = kernels.affine_apply_numpy(affine, h)
    h[2, 13] = bad
    got = kernels.affine_apply_numpy(affine, h)
    assert np.isnan(got[2]).all()
    others = np.arange(7) != 2
    np.testing.assert_array_equal(got[others], clean[others])


def test_threads_do_not_share_scratch() -> None:
    rng = np.random.default_rng(5)
    cases = [(make_affine(rng, 256, rank), make_rows(rng, 6, 256)) for rank in range(24)]
    serial = [kernels.affine_apply_numpy(*case) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda case: kernels.affine_apply_numpy(*case), cases))
    np.testing.assert_array_equal(serial, parallel)


def test_rows_that_interleave_share_no_memory() -> None:
    rng = np.random.default_rng(6)
    affine, both = make_affine(rng, 20, 2), make_rows(rng, 5, 40)
    h = both[:, :20].copy()
    got = kernels.affine_apply_numpy(affine, both[:, :20], out=both[:, 20:])
    np.testing.assert_array_equal(got, kernels.affine_apply_numpy(affine, h))
    np.testing.assert_array_equal(both[:, :20], h)


def test_one_row_may_repeat_by_stride_zero() -> None:
    rng = np.random.default_rng(8)
    affine, row = make_affine(rng, 20, 2), make_rows(rng, 1, 20)
    got = kernels.affine_apply_numpy(affine, np.broadcast_to(row, (6, 20)))
    expected = np.repeat(kernels.affine_apply_numpy(affine, row), 6, axis=0)
    np.testing.assert_array_equal(got, expected)


# ---- refusals of the binding ----


def core_call(**changes: Any) -> None:
    """A good call of _core.Affine at d = 6, rank 2, n = 4, with some arguments replaced."""
    affine = make_affine(np.random.default_rng(0), 6, 2)
    weights: dict[str, Any] = {"A": affine.A, "a0": affine.a0, "B": affine.B, "c": affine.c}
    call: dict[str, Any] = {"h": np.ones((4, 6), np.float32), "strengths": None}
    call["out"] = np.zeros((4, 6), np.float32)
    for name, value in changes.items():
        (weights if name in weights else call)[name] = value
    _core.Affine(**weights, restore=True).apply(**call)


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def unaligned(*shape: int) -> Array:
    size = 4 * int(np.prod(shape))
    return np.zeros(size + 1, np.uint8)[1:].view(np.float32).reshape(shape)


def read_only(*shape: int) -> Array:
    array = ones(*shape)
    array.flags.writeable = False
    return array


REFUSED = [
    ({"h": [[1.0]]}, TypeError, "expected h as a tensor or an array, got list"),
    ({"h": np.ones((4, 6))}, TypeError, "expected h of dtype float32 or .*float16, got float64"),
    ({"h": ones(4, 6).astype(">f4")}, TypeError, "expected h of dtype float32 .* got >f4"),
    ({"h": np.ones((4, 6), np.int32)}, TypeError, "expected h of dtype float32 .* got int32"),
    ({"h": ones(6)}, ValueError, r"expected h of shape \(..., n, 6\), got \(6,\)"),
    ({"h": np.float32(1)}, TypeError, "expected h as a tensor or an array, got float32"),
    ({"h": np.ones((), np.float32)}, ValueError, "expected h of at least 1 dimension"),
    ({"h": ones(*[1] * 8, 6)}, ValueError, "expected h of at most 8 dimensions, got 9"),
    ({"h": ones(4, 7)}, ValueError, r"expected h of shape \(..., n, 6\), got \(4, 7\)"),
    ({"h": ones(6, 4).T}, ValueError, "expected h with adjacent elements .* got a last stride"),
    ({"h": ones(4, 12)[:, ::2]}, ValueError, "expected h with adjacent elements"),
    ({"h": ones(2, 3, 6).swapaxes(0, 1)}, ValueError, "expected h with rows at equal distances"),
    ({"h": ones(2, 3, 6)[:, :2]}, ValueError, "expected h with rows at equal distances"),
    ({"h": unaligned(4, 6)}, ValueError, "expected h aligned to its elements"),
    ({"out": ones(3, 6)}, ValueError, r"expected out like h, \(4, 6\) float32, got \(3, 6\)"),
    ({"out": np.ones((4, 6), np.float16)}, ValueError, "expected out like h, .* float32, got"),
    ({"out": np.ones((4, 6))}, TypeError, "expected out of dtype float32 .* got float64"),
    ({"out": read_only(4, 6)}, ValueError, "expected out that can be written"),
    ({"out": ones(4, 12)[:, ::2]}, ValueError, "expected out with adjacent elements"),
    ({"A": ones(12)}, ValueError, r"expected A of 2 dimensions, got \(12,\)"),
    ({"A": ones(2, 5)}, ValueError, r"expected B of shape \(2, 5\), got \(2, 6\)"),
    ({"A": ones(2, 9)[:, :6]}, ValueError, "expected A with adjacent rows, got a row stride of 9"),
    ({"A": np.ones((2, 6))}, TypeError, "expected A of dtype float32"),
    ({"B": ones(3, 6)}, ValueError, r"expected B of shape \(2, 6\), got \(3, 6\)"),
    ({"a0": ones(3)}, ValueError, r"expected a0 of shape \(2,\), got \(3,\)"),
    ({"c": ones(1, 6)}, ValueError, r"expected c of shape \(6,\), got \(1, 6\)"),
    ({"c": ones(5)}, ValueError, r"expected c of shape \(6,\), got \(5,\)"),
    ({"strengths": 1.0}, TypeError, "expected strengths as a tensor or an array, got float"),
    ({"strengths": ones(3)}, ValueError, r"expected strengths of shape \(4,\), got \(3,\)"),
    ({"strengths": ones(8)[::2]}, ValueError, "expected strengths with adjacent elements"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), REFUSED)
def test_refuses(changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=rf"^\[affine_apply\] {message}") as caught:
        core_call(**changes)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


def test_refuses_shared_memory() -> None:
    core_call()
    store = ones(12, 10)
    h = store[2:6, 2:8]
    overlapping = [
        store[3:7, 2:8],
        store[1:5, 2:8],
        store[2:6, 3:9],
        store[2:10:2, 2:8],
        store[5:1:-1, 2:8],
        store[5:9, 2:8],
    ]
    for out in overlapping:
        with pytest.raises(ValueError, match="an overlap with h;"):
            core_call(h=h, out=out)
    for out in (store[6:10, 2:8], store[8:12, 2:8]):
        core_call(h=h, out=out)

    flat = ones(100)
    repeated = np.lib.stride_tricks.as_strided(flat, (4, 6), (8, 4))
    with pytest.raises(ValueError, match="rows of their own memory"):
        core_call(out=repeated)
    out = flat[:24].reshape(4, 6)
    for weights in (
        {"A": flat[20:32].reshape(2, 6)},
        {"a0": flat[3:5]},
        {"B": flat[12:24].reshape(2, 6)},
        {"c": flat[23:29]},
        {"strengths": flat[20:24]},
    ):
        with pytest.raises(ValueError, match=f"an overlap with {next(iter(weights))};"):
            core_call(out=out, **weights)


# ---- variants ----


def test_info_names_a_variant_of_this_machine() -> None:
    info = kernels.info()
    assert info["cpu_variant"] in info["variants"]
    assert info["cuda"]["reason"]
    assert info["cuda"]["built"] == (info["cuda"]["runtime"] > 0)
    assert info["threads"] >= 1


def test_unknown_variant_is_refused_and_changes_nothing() -> None:
    before = kernels.info()["cpu_variant"]
    with pytest.raises(ValueError, match=rf"^\[set_cpu_variant\] expected .*\({VARIANTS[0]}"):
        _core.set_cpu_variant("x86-64-v9")
    assert kernels.info()["cpu_variant"] == before


@pytest.mark.parametrize(("name", "works"), [(VARIANTS[0], True), ("sse9", False)])
def test_variant_from_the_environment(name: str, works: bool) -> None:
    code = "from cogit import kernels; print(kernels.info()['cpu_variant'])"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"COGIT_CPU_VARIANT": name},
        capture_output=True,
        text=True,
        check=False,
    )
    if works:
        assert run.stdout.strip() == name
    else:
        assert run.returncode != 0
        assert "ValueError: [COGIT_CPU_VARIANT] expected" in run.stderr
        assert f"got '{name}'; choose" in run.stderr
