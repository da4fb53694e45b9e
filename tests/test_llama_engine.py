"""The engine against a float64 Llama: operators, strengths, captures, and every misuse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cogit.affine import Affine
from cogit.backends.llama_engine import LlamaEngine
from cogit.errors import InterventionError
from cogit.reference import affine_apply
from tiny_llama import D_MODEL, N_LAYER, N_VOCAB, Map, TinyLlama

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

pytestmark = pytest.mark.llamacpp

TOKENS = np.random.default_rng(1).integers(0, N_VOCAB, 33).tolist()
# float32 against float64 through four blocks, relative to the largest logit: measured 13 eps plain.
TOLERANCE = 64 * np.finfo(np.float32).eps


@pytest.fixture(scope="session")
def tiny() -> TinyLlama:
    return TinyLlama()


@pytest.fixture(scope="session")
def gguf_path(tiny: TinyLlama, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture
def engine(gguf_path: Path) -> Iterator[LlamaEngine]:
    with LlamaEngine(gguf_path, n_ctx=512, threads=1, kv_type="f32") as opened:
        yield opened


def make_affine(rank: int, *, restore: bool = False, seed: int = 0) -> Affine:
    rng = np.random.default_rng(seed)
    return Affine(
        A=rng.standard_normal((rank, D_MODEL)).astype(np.float32) / D_MODEL**0.5,
        a0=rng.standard_normal(rank).astype(np.float32),
        B=rng.standard_normal((rank, D_MODEL)).astype(np.float32) / max(rank, 1) ** 0.5,
        c=rng.standard_normal(D_MODEL).astype(np.float32),
        restore=restore,
    )


def as_map(affine: Affine, strengths: NDArray[np.float64] | float = 1.0) -> Map:
    def apply(h: NDArray[np.float64]) -> NDArray[np.float64]:
        return affine_apply(affine, h, np.broadcast_to(strengths, len(h)))

    return apply


def run(
    engine: LlamaEngine,
    tokens: list[int] = TOKENS,
    *,
    seq: int = 0,
    start: int = 0,
    want: list[bool] | None = None,
) -> NDArray[np.float32]:
    n = len(tokens)
    positions = list(range(start, start + n))
    return engine.decode(tokens, positions, [seq] * n, want or [True] * n)


def assert_close(got: NDArray[np.float32], expected: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_model_without_operators(engine: LlamaEngine, tiny: TinyLlama) -> None:
    assert (engine.n_layer, engine.n_embd, engine.n_vocab) == (N_LAYER, D_MODEL, N_VOCAB)
    assert engine.architecture == "llama"
    assert_close(run(engine), tiny.forward(TOKENS).logits)


@pytest.mark.parametrize("layers", [(0,), (2,), (3,), (0, 1, 2, 3)])
@pytest.mark.parametrize("rank", [0, 1, 15, 16, 40, 64])
@pytest.mark.parametrize("restore", [False, True])
def test_operator(
    engine: LlamaEngine, tiny: TinyLlama, layers: tuple[int, ...], rank: int, restore: bool
) -> None:
    affines = {layer: make_affine(rank, restore=restore, seed=layer) for layer in layers}
    for layer, affine in affines.items():
        engine.set_op(layer, affine)
    engine.set_strength(0.7)
    expected = tiny.forward(TOKENS, {i: as_map(a, 0.7) for i, a in affines.items()}).logits
    assert_close(run(engine), expected)
    assert engine.stats().placed_layers == layers
    # the last block carries output rows only
    engine.clear()
    want = [i in (3, 10, 32) for i in range(len(TOKENS))]
    assert_close(run(engine, want=want), expected[want])


def test_restore_of_a_row_moved_to_zero_stays_finite(engine: LlamaEngine, tiny: TinyLlama) -> None:
    identity = np.eye(D_MODEL, dtype=np.float32)
    nothing = np.zeros(D_MODEL, np.float32)
    engine.set_op(3, Affine(identity, nothing, -identity, nothing, restore=True))
    engine.set_strength(1.0)
    # h - h is 0 where the product is exact, and a rounding error blown up by the restore elsewhere
    assert np.isfinite(run(engine)).all()


def test_prefill_then_single_tokens(engine: LlamaEngine, tiny: TinyLlama) -> None:
    affine = make_affine(8, restore=True)
    for layer in range(N_LAYER):
        engine.set_op(layer, affine)
    engine.set_strength(0.5)
    expected = tiny.forward(TOKENS, dict.fromkeys(range(N_LAYER), as_map(affine, 0.5))).logits
    run(engine, TOKENS[:19], want=[False] * 19)
    run(engine, TOKENS[19:20], start=19)
    builds = engine.stats().builds
    steps = [run(engine, TOKENS[i : i + 1], start=i) for i in range(20, 33)]
    assert_close(np.concatenate(steps), expected[20:])
    assert engine.stats().builds == builds


def test_ubatches_and_batches_are_split(gguf_path: Path, tiny: TinyLlama) -> None:
    affine = make_affine(8)
    expected = tiny.forward(TOKENS, {3: as_map(affine), 0: as_map(affine)}).logits
    with LlamaEngine(gguf_path, n_batch=16, n_ubatch=8, threads=1, kv_type="f32") as engine:
        engine.set_op(0, affine)
        engine.set_op(3, affine)
        engine.set_strength(1.0)
        want = [i % 3 == 0 for i in range(len(TOKENS))]
        assert_close(run(engine, want=want), expected[want])


def test_position_window(engine: LlamaEngine, tiny: TinyLlama) -> None:
    affine = make_affine(4)
    engine.set_op(1, affine)
    engine.set_op(3, affine)
    engine.set_strength(1.0, begin=10, end=20)
    inside = (np.arange(33) >= 10) & (np.arange(33) < 20)
    maps = {i: as_map(affine, inside.astype(float)) for i in (1, 3)}
    assert_close(run(engine), tiny.forward(TOKENS, maps).logits)


def test_strength_zero_is_bit_exact(engine: LlamaEngine) -> None:
    plain = run(engine)
    for layer in range(N_LAYER):
        engine.set_op(layer, make_affine(layer * 8, restore=True, seed=layer))
    engine.clear()
    np.testing.assert_array_equal(run(engine), plain)  # no strength was ever set
    engine.clear()
    engine.set_strength(1.0, begin=20)
    np.testing.assert_array_equal(run(engine)[:20], plain[:20])


def test_changing_numbers_keeps_the_graph(engine: LlamaEngine, tiny: TinyLlama) -> None:
    engine.set_op(1, make_affine(8))
    run(engine)
    builds = engine.stats().builds
    other = make_affine(8, seed=5)
    for strength in (0.3, -1.0):
        engine.set_op(1, other)
        engine.set_strength(strength, begin=2)
        engine.clear()
        steered = (np.arange(33) >= 2) * strength
        assert_close(run(engine), tiny.forward(TOKENS, {1: as_map(other, steered)}).logits)
    assert engine.stats().builds == builds
    engine.set_op(1, make_affine(9))
    assert engine.stats().builds > builds


@pytest.mark.parametrize("unified", [False, True])
def test_sequences_of_different_strength(gguf_path: Path, tiny: TinyLlama, unified: bool) -> None:
    rng = np.random.default_rng(3)
    texts = [rng.integers(0, N_VOCAB, n).tolist() for n in (33, 20, 9)]
    strengths = [0.0, -0.5, 1.0]
    affine = make_affine(8, restore=True)
    tokens = [t for text in texts for t in text]
    positions = [p for text in texts for p in range(len(text))]
    owners = [s for s, text in enumerate(texts) for _ in text]
    with LlamaEngine(
        gguf_path, n_seq=3, n_ctx=768, threads=1, kv_type="f32", unified_kv=unified
    ) as engine:
        plain = engine.decode(tokens, positions, owners, [True] * len(tokens))
        engine.clear()
        engine.set_op(0, affine)
        engine.set_op(3, affine)
        for seq, strength in enumerate(strengths):
            engine.set_strength(strength, seq=seq)
        got = engine.decode(tokens, positions, owners, [True] * len(tokens))
    start = 0
    for text, strength in zip(texts, strengths, strict=True):
        maps = {i: as_map(affine, strength) for i in (0, 3)}
        assert_close(got[start : start + len(text)], tiny.forward(text, maps).logits)
        start += len(text)
    np.testing.assert_array_equal(got[:33], plain[:33])


@pytest.mark.parametrize("half", [False, True])
def test_capture_before_and_after(engine: LlamaEngine, tiny: TinyLlama, half: bool) -> None:
    affine = make_affine(4, restore=True)
    engine.set_op(1, affine)
    engine.set_op(3, affine)
    engine.set_strength(1.0, begin=5)
    steered = (np.arange(33) >= 5).astype(float)
    expected = tiny.forward(TOKENS, {i: as_map(affine, steered) for i in (1, 3)})
    engine.capture_begin([0, 1, 3], 40, before=True, after=True, half=half)
    run(engine, TOKENS[:20])
    run(engine, TOKENS[20:], start=20)
    sequences, positions = engine.capture_index()
    np.testing.assert_array_equal(positions, np.arange(33))
    assert not sequences.any()
    # float16 keeps 11 bits
    tolerance = 2.0**-11 if half else TOLERANCE
    for layer in (0, 1, 3):
        for side, states in (("before", expected.before), ("after", expected.after)):
            rows = engine.capture_read(layer, side)  # type: ignore[arg-type]
            scale = np.abs(states[layer]).max()
            np.testing.assert_allclose(rows, states[layer], rtol=0, atol=tolerance * scale)
    # unsteered rows and unsteered layers come out as they came in
    np.testing.assert_array_equal(engine.capture_read(0), engine.capture_read(0, "after"))
    np.testing.assert_array_equal(engine.capture_read(1)[:5], engine.capture_read(1, "after")[:5])


def test_capture_rewind_overflow_and_dropped_rows(engine: LlamaEngine) -> None:
    engine.capture_begin([1, 3], 20, before=True, after=False)
    run(engine, TOKENS[:10], want=[False] * 9 + [True])
    assert engine.capture_read(1).shape == (10, D_MODEL)
    with pytest.raises(ValueError, match="layer 3 never computed row 0"):
        engine.capture_read(3)
    engine.capture_rewind()
    run(engine, TOKENS[10:25], start=10)
    assert engine.capture_read(3).shape == (15, D_MODEL)
    run(engine, TOKENS[25:], start=25)
    with pytest.raises(ValueError, match="at most 20 rows, got 23"):
        engine.capture_read(1)
    engine.capture_end()
    with pytest.raises(ValueError, match="no capture is open"):
        engine.capture_read(1)


def test_capture_leaves_logits_alone(engine: LlamaEngine) -> None:
    plain = run(engine)
    engine.clear()
    engine.capture_begin(range(N_LAYER), 33, before=True, after=True)
    np.testing.assert_array_equal(run(engine), plain)


def test_detach_restores_the_graph(engine: LlamaEngine) -> None:
    plain = run(engine)
    engine.set_op(2, make_affine(3))
    engine.set_strength(2.0)
    engine.capture_begin([2], 40, before=True, after=True)
    engine.clear()
    assert np.abs(run(engine) - plain).max() > 0.1
    engine.detach()
    engine.clear()
    np.testing.assert_array_equal(run(engine), plain)
    assert engine.stats().sites == 0


def test_clearing_one_operator(engine: LlamaEngine, tiny: TinyLlama) -> None:
    affine = make_affine(2)
    engine.set_op(1, affine)
    engine.set_op(2, affine)
    engine.set_strength(1.0)
    run(engine)
    engine.clear_ops(2)
    assert engine.stats().placed_layers == (1,)
    engine.clear()
    assert_close(run(engine), tiny.forward(TOKENS, {1: as_map(affine)}).logits)
    engine.clear_ops()
    assert engine.stats().placed_layers == ()
    engine.clear()
    assert_close(run(engine), tiny.forward(TOKENS).logits)


def test_threads_agree(gguf_path: Path, engine: LlamaEngine) -> None:
    with LlamaEngine(gguf_path, n_ctx=512, threads=2, kv_type="f32") as other:
        np.testing.assert_array_equal(run(other), run(engine))


def test_copy_and_remove_sequences(gguf_path: Path) -> None:
    with LlamaEngine(gguf_path, n_seq=2, n_ctx=512, threads=1, kv_type="f32") as engine:
        whole = run(engine, TOKENS[:12])
        engine.clear()
        run(engine, TOKENS[:10])
        engine.copy_sequence(0, 1)
        np.testing.assert_array_equal(
            run(engine, TOKENS[10:12], seq=1, start=10), run(engine, TOKENS[10:12], start=10)
        )
        engine.remove(0, 10)
        again = run(engine, TOKENS[10:12], start=10)
        np.testing.assert_allclose(again, whole[10:], rtol=0, atol=1e-4)


def test_quantize(gguf_path: Path, tmp_path: Path, engine: LlamaEngine) -> None:
    target = tmp_path / "tiny-f16.gguf"
    LlamaEngine.quantize(gguf_path, target, "f16")
    with LlamaEngine(target, n_ctx=512, threads=1) as half:
        change = np.abs(run(half) - run(engine)).max()
    assert 0 < change < 0.1
    with pytest.raises(ValueError, match="expected one of f32, f16, q8_0, q4_k_m, got 'q9'"):
        LlamaEngine.quantize(gguf_path, target, "q9")


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="got no file at"):
        LlamaEngine(tmp_path / "absent.gguf")
    other = tmp_path / "other.gguf"
    other.write_text("something else")
    with pytest.raises(ValueError, match="begins with b'some'"):
        LlamaEngine(other)
    other.write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(100))
    with pytest.raises(ValueError, match=r"cannot load .*other\.gguf: \S+"):
        LlamaEngine(other)


def test_arguments_that_make_no_sense(engine: LlamaEngine, gguf_path: Path) -> None:
    with pytest.raises(ValueError, match="kv_type f16 or f32, got 'q4'"):
        LlamaEngine(gguf_path, kv_type="q4")
    with pytest.raises(ValueError, match=r"expected a layer in 0\.\.3, got 4"):
        engine.set_op(4, make_affine(1))
    with pytest.raises(ValueError, match="model's width 64, got 3"):
        engine.set_op(0, Affine.zero(3))
    with pytest.raises(ValueError, match="expected a layer of at least 0, got -1"):
        engine.clear_ops(-1)
    with pytest.raises(ValueError, match="finite strength"):
        engine.set_strength(float("nan"))
    with pytest.raises(ValueError, match=r"window 0 <= begin <= end, got 5\.\.2"):
        engine.set_strength(1.0, begin=5, end=2)
    with pytest.raises(ValueError, match=r"sequences in 0\.\.0 \(n_seq\), got 1\.\.1"):
        engine.set_strength(1.0, seq=1)
    with pytest.raises(ValueError, match=r"layers in 0\.\.3, got 9"):
        engine.capture_begin([9], 5, before=True, after=False)
    with pytest.raises(ValueError, match="before, after or both"):
        engine.capture_begin([1], 5, before=False, after=False)
    with pytest.raises(ValueError, match="no vocabulary"):
        engine.tokenize("text")


class _Foreign:
    """An operator that did not come from Affine, whose own checks would have caught it."""

    def __init__(self, value: float) -> None:
        self.A = self.B = np.full((2, D_MODEL), value, np.float32)
        self.a0 = np.zeros(2, np.float32)
        self.c = np.zeros(D_MODEL, np.float32)
        self.restore = False


def test_weights_that_are_not_finite(engine: LlamaEngine) -> None:
    with pytest.raises(ValueError, match="finite numbers in A, a0, B and c"):
        engine.set_op(0, _Foreign(float("inf")))
    assert engine.stats().placed_layers == ()


def test_memory_that_cannot_be_had(engine: LlamaEngine, tiny: TinyLlama) -> None:
    with pytest.raises(MemoryError, match="out of memory"):
        engine.capture_begin(range(N_LAYER), 2**31 - 1, before=True, after=True)
    assert_close(run(engine), tiny.forward(TOKENS).logits)


def test_batches_that_make_no_sense(engine: LlamaEngine) -> None:
    with pytest.raises(ValueError, match="four sequences of one length"):
        engine.decode([1, 2], [0], [0, 0], [True, True])
    with pytest.raises(ValueError, match="four sequences of one length"):
        engine.decode([], [], [], [])
    with pytest.raises(ValueError, match=r"tokens in 0\.\.255"):
        engine.decode([256], [0], [0], [True])
    with pytest.raises(ValueError, match=r"positions in 0\.\.511 \(the context of a sequence\)"):
        engine.decode([1], [512], [0], [True])
    with pytest.raises(ValueError, match=r"sequences in 0\.\.0"):
        engine.decode([1], [0], [1], [True])
    with pytest.raises(TypeError, match="whole numbers as tokens, got float64"):
        engine.decode([1.5], [0], [0], [True])  # type: ignore[list-item]
    run(engine, TOKENS[:3])
    with pytest.raises(ValueError, match=r"llama\.cpp refused the batch: "):
        run(engine, TOKENS[:1], start=9)


def test_closed_engine(gguf_path: Path) -> None:
    engine = LlamaEngine(gguf_path, threads=1)
    engine.close()
    engine.close()
    for call in (engine.clear, engine.stats, engine.reset_strengths, engine.detach):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_operator_without_a_place(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an architecture that never calls the hook: the forward pass must not run unsteered."""
    engine.set_op(1, make_affine(1))
    monkeypatch.setattr(engine, "_sites", lambda kind: ())
    with pytest.raises(InterventionError, match=r"placed at layers \[1\]: llama does not reach"):
        run(engine)
