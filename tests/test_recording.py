"""Recording: selections, batches against single texts, stores, resuming, the cache."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _models import CONTEXT, N_LAYERS, prompt, push, steering, tiny_backend
from cogit import artefact
from cogit.activation_moments import ActivationMoments, record_moments
from cogit.activations import Activations, record
from cogit.backends.transformers import TransformersBackend
from cogit.errors import ArtefactError
from cogit.hook_points import HookPoint
from cogit.layers import LayerRange
from cogit.pairs import ContrastPair
from cogit.recording import make_plan, record_to
from cogit.selection import Selection
from cogit.store import ActivationStore

# The same texts alone and in a padded batch: float32 sums of another order and shape, through three
# blocks; relative to the largest state.
SAME = 2e-5
PAIRS = [
    ContrastPair(" " + prompt(1 + i, i), " " + prompt(5, 50 + i), prompt(2 + i % 3, 90 + i))
    for i in range(6)
]
SELECTIONS = ["last", "tail-3", "answer", "all", "after-first"]


def quiet(backend: TransformersBackend, *args: Any, **options: Any) -> Activations:
    return record(backend, *args, show_progress=False, **options)


def store_of(backend: TransformersBackend, folder: Path, **options: Any) -> ActivationStore:
    pairs = options.pop("pairs", PAIRS)
    return record_to(backend, pairs, folder, show_progress=False, **options)


def same(one: Activations, other: Activations) -> None:
    np.testing.assert_array_equal(one.positive, other.positive)
    np.testing.assert_array_equal(one.negative, other.negative)
    for name in ("layers", "tail", "identity", "hook_point", "select"):
        assert getattr(one, name) == getattr(other, name)


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    """With a fingerprint, as a model from files has."""
    made = tiny_backend()
    made.identity = dataclasses.replace(made.identity, fingerprint="abc")
    return made


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


# ---- resuming ----


def bits(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name[0] != "."}


def failing(backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let so many batches run, then raise."""
    run, left = backend.states, [after]

    def states(*args: Any, **options: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return run(*args, **options)

    monkeypatch.setattr(backend, "states", states)


def counted(backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Texts of every batch that runs from here on."""
    run, calls = backend.states, []

    def states(sequences: Any, *args: Any, **options: Any) -> Any:
        calls.append(len(sequences))
        return run(sequences, *args, **options)

    monkeypatch.setattr(backend, "states", states)
    return calls


@pytest.mark.parametrize("select", ["tail-4", "all"])
def test_resuming_gives_the_same_bits(
    backend: TransformersBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, select: str
) -> None:
    """An interruption loses at most one shard."""
    options: dict[str, Any] = {"select": select, "rows_per_shard": 2}
    store_of(backend, tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        failing(backend, patch, after=3)
        with pytest.raises(KeyboardInterrupt):
            store_of(backend, tmp_path / "part", **options)
    assert len(list((tmp_path / "part").glob("shard-*"))) == 3
    (tmp_path / "part" / ".shard-00003.safetensors.x1").write_bytes(b"half a shard")
    with pytest.raises(ArtefactError, match=r"^\[load\] expected a finished store, .* 3 of 6 shar"):
        Activations.load(tmp_path / "part")
    with pytest.raises(ArtefactError, match=r"^\[record\] expected a new folder, .* \(--resume\) "):
        store_of(backend, tmp_path / "part", **options)
    calls = counted(backend, monkeypatch)
    store_of(backend, tmp_path / "part", **options, resume=True)
    assert sum(calls) == 6  # two texts for each of the three shards that were missing
    assert bits(tmp_path / "part") == bits(tmp_path / "whole")
    assert not list((tmp_path / "part").glob(".shard-*"))


def test_killing_the_process_loses_one_shard_at_most(tmp_path: Path) -> None:
    """SIGKILL in the middle, resumed in another process."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from test_recording import PAIRS, store_of\n"
        "from _models import tiny_backend\n"
        "backend = tiny_backend()\n"
        "if sys.argv[2] == 'slow':\n"
        "    run = backend.states\n"
        "    backend.states = lambda *a, **o: (time.sleep(0.3), run(*a, **o))[1]\n"
        "store_of(backend, Path(sys.argv[1]), pairs=PAIRS * 4, rows_per_shard=2, resume=True)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}

    def start(folder: str, how: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", code, str(tmp_path / folder), how]
        return subprocess.Popen(command, env=environment)

    killed = start("part", "slow")
    until = time.monotonic() + 120
    while len(list((tmp_path / "part").glob("shard-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = {name: p for name, p in bits(tmp_path / "part").items() if name.startswith("shard")}
    assert 2 <= len(done) < 24
    assert start("part", "fast").wait(timeout=120) == 0
    store_of(tiny_backend(), tmp_path / "whole", pairs=PAIRS * 4, rows_per_shard=2)
    again = bits(tmp_path / "part")
    assert again == bits(tmp_path / "whole")
    assert done.items() <= again.items()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layers": LayerRange.of([0])}, "layers"),
        ({"hook_point": "attn_out"}, "hook_point"),
        ({"select": "last"}, "select"),
        ({"dtype": "f16"}, "dtype"),
        ({"rows_per_shard": 2}, "shards"),
        ({"pairs": PAIRS[:5]}, "pairs, shards"),
        ({"pairs": [*PAIRS[:5], ContrastPair("w3 w3", "w4 w4")]}, "texts or arithmetic"),
    ],
)
def test_another_recording_is_refused(
    backend: TransformersBackend, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    store_of(backend, tmp_path / "s")
    before = bits(tmp_path / "s")
    with pytest.raises(ArtefactError, match=rf"got one with other {named}; choose another folder$"):
        store_of(backend, tmp_path / "s", **change, resume=True)
    assert bits(tmp_path / "s") == before


def test_another_model_is_refused(backend: TransformersBackend, tmp_path: Path) -> None:
    store_of(backend, tmp_path / "s")
    other = tiny_backend(seed=1)
    with pytest.raises(ArtefactError, match=r"got one with other model; choose another folder$"):
        store_of(other, tmp_path / "s", resume=True)
    with (
        backend.steer(steering(backend, [1])),
        pytest.raises(ArtefactError, match="other texts or arithmetic"),
    ):
        store_of(backend, tmp_path / "s", resume=True)


def test_a_folder_of_other_things_is_left_alone(
    backend: TransformersBackend, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"^\[record\] expected an empty folder .* notes\.txt$"):
        store_of(backend, tmp_path, resume=True)
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


# ---- damaged and hostile stores ----


def test_a_damaged_shard_is_refused_and_recorded_anew(
    backend: TransformersBackend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_of(backend, tmp_path / "s", rows_per_shard=4)
    whole = bits(tmp_path / "s")
    for damage in (
        lambda data: data[:-100],
        lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
        lambda data: b"",
        lambda data: (tmp_path / "s" / "shard-00000.safetensors").read_bytes(),
    ):
        path = store.path(1)
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(ArtefactError, match=r"^\[load\] expected [^\n]+$"):
            Activations.load(tmp_path / "s")
        with caplog.at_level(logging.WARNING):
            store_of(backend, tmp_path / "s", rows_per_shard=4, resume=True)
        assert "it is recorded anew" in caplog.text
        caplog.clear()
        assert bits(tmp_path / "s") == whole


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "intervention"},
        {"format_version": 99},
        {"layers": []},
        {"layers": ["a"]},
        {"layers": None},
        {"shards": [[0, 3], [4, 6]]},
        {"shards": [[0, 6, 7]]},
        {"shards": [[0, 0], [0, 6]]},
        {"shards": 3},
        {"pairs": 10**12},
        {"dtype": "f8"},
        {"select": "everything"},
        {"hook_point": "nowhere"},
        {"model": {}},
        {"key": 7},
    ],
)
def test_a_manifest_with_nonsense_is_refused(
    backend: TransformersBackend, tmp_path: Path, change: dict[str, Any]
) -> None:
    store_of(backend, tmp_path / "s")
    path = tmp_path / "s" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), "utf-8")
    with pytest.raises(ArtefactError, match=r"^\[load\] expected the manifest of a store [^\n]+$"):
        Activations.load(tmp_path / "s")


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "{", "\x00"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"^\[load\] expected the manifest of a store [^\n]+$"):
        Activations.load(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"^\[load\] expected a store with manifest\.json"):
        Activations.load(tmp_path)


def test_a_shard_of_other_shape_is_refused(backend: TransformersBackend, tmp_path: Path) -> None:
    """Digest and key in order, tensors not."""
    store = store_of(backend, tmp_path / "s")
    tensors, data = artefact.read(store.path(0), "activations shard")
    facts = {name: value for name, value in data.items() if name != "content_hash"}
    for change in (
        {"positive": tensors["positive"][0]},
        {"positive": tensors["positive"][:, :-1]},
        {"negative_pair": tensors["negative_pair"][:-1]},
        {"positive_pair": tensors["positive_pair"][::-1].copy()},
    ):
        made = tensors | change
        metadata = {**facts, "content_hash": artefact.content_hash(made, facts)}
        artefact.write(store.path(0), "activations shard", made, metadata)
        with pytest.raises(ArtefactError, match=r"^\[load\] expected [^\n]+$"):
            Activations.load(tmp_path / "s")


# ---- the cache ----


def test_the_same_recording_is_a_hit(
    backend: TransformersBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row P23: keyed by contents."""
    plain = quiet(backend, PAIRS)
    calls = counted(backend, monkeypatch)
    first = quiet(backend, PAIRS, cache=tmp_path)
    ran = len(calls)
    assert ran > 0
    again = quiet(backend, list(PAIRS), cache=tmp_path)
    assert len(calls) == ran
    same(first, plain)
    same(again, plain)
    copied = store_of(backend, tmp_path / "out", cache=tmp_path)
    assert len(calls) == ran
    same(Activations.load(copied.folder), plain)


@pytest.mark.parametrize(
    "change",
    [
        {"layers": LayerRange.of([0, 1])},
        {"hook_point": "resid_pre"},
        {"select": "last"},
        {"select": "tail-3"},
        {"pairs": [*PAIRS[:5], dataclasses.replace(PAIRS[5], positive=" w9 w3 w5")]},
        {"pairs": PAIRS[::-1]},
        {"model": "other"},
        {"fingerprint": "abd"},
        {"steered": True},
    ],
)
def test_changed_data_is_a_miss(
    backend: TransformersBackend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
) -> None:
    """Row P23: of the same shape, and yet another recording."""
    quiet(backend, PAIRS, cache=tmp_path)
    other = tiny_backend(seed=1) if "model" in change else backend
    identity = dataclasses.replace(
        backend.identity,
        name=change.pop("model", backend.identity.name),
        fingerprint=change.pop("fingerprint", backend.identity.fingerprint),
    )
    monkeypatch.setattr(other, "identity", identity)
    calls = counted(other, monkeypatch)
    pairs, layers = change.pop("pairs", PAIRS), change.pop("layers", None)
    if change.pop("steered", False):
        with other.steer(dataclasses.replace(steering(other, [1]), identity=identity)):
            calls.clear()
            quiet(other, pairs, layers, cache=tmp_path, **change)
    else:
        found = quiet(other, pairs, layers, cache=tmp_path, **change)
        same(found, quiet(other, pairs, layers, **change))
    assert calls
    assert len(list(tmp_path.glob("*/manifest.json"))) == 2


def test_a_damaged_entry_is_never_used(
    backend: TransformersBackend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Row P23: a clear warning, and the right numbers."""
    plain = quiet(backend, PAIRS, cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    for name, damage in (
        ("shard-00000.safetensors", lambda data: data[:-9] + bytes([data[-9] ^ 64]) + data[-8:]),
        ("shard-00000.safetensors", lambda data: data[: len(data) // 2]),
        ("manifest.json", lambda data: data[:20]),
    ):
        path = folder / name
        path.write_bytes(damage(path.read_bytes()))
        with caplog.at_level(logging.WARNING):
            same(quiet(backend, PAIRS, cache=tmp_path), plain)
        assert "it is recorded anew" in caplog.text
        caplog.clear()
    same(quiet(backend, PAIRS, cache=tmp_path), plain)
    assert not caplog.text


def test_a_model_without_a_fingerprint_is_not_cached(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^\[cache\] expected a model with a fingerprint, got "):
        quiet(tiny_backend(), PAIRS, cache=tmp_path)


# ---- moments instead of rows ----


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("select", ["all", "after-first", "tail-4"])
def test_moments_equal_those_of_the_rows(
    backend: TransformersBackend, tmp_path: Path, select: str, diagonal: bool
) -> None:
    """Row P24, on a model's states."""
    store = store_of(backend, tmp_path / "s", select=select, rows_per_shard=16)
    moments = record_moments(backend, PAIRS, select=select, diagonal=diagonal, show_progress=False)
    again = ActivationMoments.load(moments.save(tmp_path / "m.safetensors"))
    for side in (0, 1):
        rows = np.concatenate(
            [(s.positive, s.negative)[side].states for s in store.shards()], axis=1
        ).astype(np.float64)
        for layer in range(N_LAYERS):
            expected = np.cov(rows[layer].T)
            for found in (moments.at(layer)[side], again.at(layer)[side]):
                assert found.count == rows.shape[1]
                # The same float32 states, but for the batches that they were made in.
                np.testing.assert_allclose(found.mean, rows[layer].mean(axis=0), atol=1e-5)
                if diagonal:
                    np.testing.assert_allclose(
                        found.variance(), np.diag(expected), rtol=1e-4, atol=1e-5
                    )
                else:
                    np.testing.assert_allclose(found.covariance(), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"^\[moments\] expected a recorded block"):
        moments.at(7)


def test_damaged_moments_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    good: dict[str, Any] = {
        f"{side}_{name}": value
        for side in ("positive", "negative")
        for name, value in (
            ("count", np.asarray([5])),
            ("mean", np.zeros((1, 3))),
            ("second", np.zeros((1, 3, 3))),
        )
    }
    data = {"layers": [0], "hook_point": "resid_post", "select": "all"}
    data |= {"model": tiny_backend().identity.to_json()}
    ActivationMoments.load(artefact.write(path, "moments", good, data))
    for change in (
        {"positive_mean": np.zeros((1, 4))},
        {"positive_count": np.asarray([1])},
        {"negative_second": np.zeros((1, 3, 2))},
        {"negative_mean": np.zeros((2, 3))},
    ):
        artefact.write(path, "moments", good | change, data)
        with pytest.raises(ArtefactError, match=r"^\[load\] expected moments in [^\n]+$"):
            ActivationMoments.load(path)
    artefact.write(path, "moments", good, data | {"layers": [0, 1]})
    with pytest.raises(ArtefactError, match="expected moments of 2 blocks"):
        ActivationMoments.load(path)
