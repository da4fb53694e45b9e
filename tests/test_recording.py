"""Recording: selections, batches against single texts, stores, resuming, the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _models import CONTEXT, N_LAYERS, prompt, push, steering, tiny_backend
from _recording import PAIRS, SAME, fingerprinted, quiet, same, store_of
from cogit.activations import Activations
from cogit.backends.transformers import TransformersBackend
from cogit.hook_points import HookPoint
from cogit.layers import LayerRange
from cogit.pairs import ContrastPair
from cogit.recording import make_plan
from cogit.selection import Selection
from cogit.store import ActivationStore

SELECTIONS = ["last", "tail-3", "answer", "all", "after-first"]


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    return fingerprinted()


# ---- selections ----


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("last", (9, 10)),
        ("tail-4", (6, 10)),
        ("tail-40", (1, 10)),
        ("answer", (3, 10)),
        ("all", (0, 10)),
        ("after-first", (1, 10)),
    ],
)
def test_selections(text: str, span: tuple[int, int]) -> None:
    selection = Selection.parse(text)
    assert str(selection) == text
    assert selection.span(10, n_prompt=3) == span


@pytest.mark.parametrize(
    "text", ["", "tail", "tail-0", "tail--1", "tail-x", "first", "ALL", "tail-"]
)
def test_other_selections_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^\[select\] expected last, tail-K [^\n]+$"):
        Selection.parse(text)


@pytest.mark.parametrize("architecture", ["GPT2", "OPT", "Bloom", "Llama", "GPTNeoX", "Gemma2"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_batches_equal_single_texts(architecture: str, side: Any) -> None:
    """Row Q8 at every hook point and selection: padding on either side never matters.

    Learned positions (GPT-2, OPT), ALiBi (Bloom) and rotary ones.
    """
    together, alone = tiny_backend(architecture), tiny_backend(architecture)
    together.padding_side = side
    sequences = make_plan(together, PAIRS).sequences
    for point in HookPoint:
        if (architecture, point) == ("GPTNeoX", HookPoint.RESID_MID):
            continue
        single = [
            alone.states([ids], range(N_LAYERS), [(0, len(ids))], mean=False, hook_point=point)[0]
            for ids in sequences
        ]
        for text in SELECTIONS:
            plan = make_plan(together, PAIRS, hook_point=point, select=text)
            averages = plan.recipe.select.averages
            found = together.states(
                sequences, range(N_LAYERS), plan.spans, mean=averages, hook_point=point
            )
            for whole, span, rows in zip(single, plan.spans, found, strict=True):
                expected = whole[:, slice(*span)]
                expected = expected.mean(axis=1, keepdims=True) if averages else expected
                assert rows.shape == expected.shape
                assert np.abs(rows - expected).max() <= SAME * np.abs(whole).max()


def test_the_answer_is_what_follows_the_prompt(backend: TransformersBackend) -> None:
    pairs = [ContrastPair(" w7 w8", " w9", "w3 w4"), ContrastPair(" w5", " w6 w6", "w3")]
    found = quiet(backend, pairs, select="answer")
    states = backend.residuals([backend.tokenize("w3 w4 w7 w8")], range(N_LAYERS))[0]
    np.testing.assert_allclose(
        found.positive[:, 0], states[:, 3:].mean(axis=1), rtol=1e-4, atol=1e-5
    )
    assert (found.select, found.tail, found.hook_point) == ("answer", 0, "resid_post")
    # A token across the border, as merges make them, belongs to the answer.
    merged = quiet(backend, [ContrastPair("5 w7", "6 w8", "w3 w1")] * 2, select="answer")
    states = backend.residuals([backend.tokenize("w3 w15 w7")], range(N_LAYERS))[0]
    np.testing.assert_allclose(
        merged.positive[:, 0], states[:, 2:].mean(axis=1), rtol=1e-4, atol=1e-5
    )


def test_a_hook_point_may_name_its_block(backend: TransformersBackend) -> None:
    named = quiet(backend, PAIRS, hook_point="blocks.1.hook_attn_out", select="last")
    plain = quiet(backend, PAIRS, LayerRange.of([1]), hook_point="attn_out", select="last")
    same(named, plain)
    assert named.layers == (1,)
    with pytest.raises(ValueError, match=r"^\[record\] expected block 1, as blocks\.1\.hook_attn"):
        quiet(backend, PAIRS, LayerRange.of([2]), hook_point="blocks.1.hook_attn_out")
    with pytest.raises(ValueError, match=r"^\[layers\] expected blocks of this model"):
        quiet(backend, PAIRS, hook_point="blocks.9.hook_attn_out")


def test_what_cannot_be_recorded_is_named_before_the_model_runs(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        pytest.fail("the model ran")

    monkeypatch.setattr(backend, "states", never)
    fine = ContrastPair("w5 w6", "w7 w8")
    long = ContrastPair("w5 " * (CONTEXT + 1), "w7")
    for pairs, options, match in (
        ([fine, fine], {"select": "answer"}, r"expected a prompt in every pair .* got none in 1$"),
        ([fine, long], {}, rf"at most {CONTEXT} tokens .* got {CONTEXT + 2} in pair 2: 'w5 w5"),
        ([fine, fine], {"select": "all"}, r"expected one row a text"),
        ([fine, fine], {"select": "middle"}, r"expected last, tail-K"),
        ([fine, fine], {"hook_point": "middle"}, r"expected one of resid_pre"),
    ):
        with pytest.raises(ValueError, match=match):
            quiet(backend, pairs, **options)
    with pytest.raises(ValueError, match="expected at least 1 row in a shard, got 0"):
        make_plan(backend, [fine, fine], rows_per_shard=0)


def test_states_that_are_not_finite_are_refused() -> None:
    backend = tiny_backend()
    backend._blocks[1].mlp.down_proj.weight.data[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"^\[record\] expected finite states, .* text 1 of pair "):
        quiet(backend, PAIRS)


def test_no_logits_are_made(backend: TransformersBackend) -> None:
    def fail(*_: object) -> None:
        pytest.fail("the head ran")

    handle = backend.model.lm_head.register_forward_hook(fail)
    try:
        quiet(backend, PAIRS)
    finally:
        handle.remove()


def test_batches_are_bounded_and_whole(backend: TransformersBackend) -> None:
    pairs = [ContrastPair(prompt(3 + i % 40, i), prompt(100, i)) for i in range(60)]
    plan = make_plan(backend, pairs, rows_per_shard=50)
    assert plan.recipe.shards == ((0, 25), (25, 50), (50, 60))
    for number, (first, stop) in enumerate(plan.recipe.shards):
        batches = plan.batches(number)
        assert sorted(text for batch in batches for text in batch) == list(
            range(2 * first, 2 * stop)
        )
        for batch in batches:
            assert len(batch) * max(len(plan.sequences[text]) for text in batch) <= 512
    per_token = make_plan(backend, pairs, select="all", rows_per_shard=1)
    assert len(per_token.recipe.shards) == 60


# ---- stores ----


@pytest.mark.parametrize("select", ["tail-4", "last", "answer"])
@pytest.mark.parametrize("point", ["resid_post", "mlp_norm"])
def test_a_store_holds_what_record_gives(
    backend: TransformersBackend, tmp_path: Path, select: str, point: str
) -> None:
    options = {"select": select, "hook_point": point}
    store = store_of(backend, tmp_path / "s", **options)
    direct = quiet(backend, PAIRS, **options)
    same(Activations.load(tmp_path / "s"), direct)
    same(Activations.load(direct.save(tmp_path / "a.safetensors")), direct)
    assert ActivationStore.open(tmp_path / "s").recipe == store.recipe


def test_shards_are_bounded(backend: TransformersBackend, tmp_path: Path) -> None:
    store = store_of(backend, tmp_path / "s", rows_per_shard=4)
    assert store.recipe.shards == ((0, 2), (2, 4), (4, 6))
    found = Activations.load(tmp_path / "s")
    direct = quiet(backend, PAIRS)
    np.testing.assert_allclose(found.positive, direct.positive, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.negative, direct.negative, rtol=1e-4, atol=1e-5)


def test_every_token_with_its_place(backend: TransformersBackend, tmp_path: Path) -> None:
    store = store_of(backend, tmp_path / "s", select="all", rows_per_shard=20)
    assert len(store.recipe.shards) > 1
    seen = 0
    for shard in store.shards():
        for side, rows in (("positive", shard.positive), ("negative", shard.negative)):
            for pair in range(shard.first, shard.stop):
                ids = backend.tokenize(PAIRS[pair].texts[side == "negative"])
                mine = rows.pair == pair
                assert rows.position[mine].tolist() == list(range(len(ids)))
                states = backend.residuals([ids], range(N_LAYERS))[0]
                np.testing.assert_allclose(rows.states[:, mine], states, rtol=1e-4, atol=1e-5)
                seen += len(ids)
    assert seen == make_plan(backend, PAIRS).n_tokens
    with pytest.raises(ValueError, match=r"^\[activations\] expected one row a text .* by Activat"):
        Activations.load(tmp_path / "s")


def test_half_precision_rows(backend: TransformersBackend, tmp_path: Path) -> None:
    whole = store_of(backend, tmp_path / "whole")
    half = store_of(backend, tmp_path / "half", dtype="f16")
    assert half.read(0).positive.states.dtype == np.float16
    assert half.size() < whole.size()
    found, direct = Activations.load(tmp_path / "half"), Activations.load(tmp_path / "whole")
    assert found.positive.dtype == np.float32
    np.testing.assert_array_equal(found.positive, direct.positive.astype(np.float16))


def test_states_beyond_float16_are_refused(tmp_path: Path) -> None:
    backend = tiny_backend()
    with (
        backend.steer(steering(backend, [1], push(length=1e6)), verify=False),
        pytest.raises(ValueError, match=r"^\[store\] expected states within float16 .* use f32$"),
    ):
        store_of(backend, tmp_path / "s", dtype="f16")
    assert not list((tmp_path / "s").glob("shard*"))
