"""The same recording is not made twice; another one is never taken for it."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from _models import steering, tiny_backend
from _recording import PAIRS, counted, fingerprinted, quiet, same, store_of
from cogit.activations import Activations
from cogit.backends.transformers import TransformersBackend
from cogit.layers import LayerRange

SELECTIONS = ["last", "tail-3", "answer", "all", "after-first"]


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    return fingerprinted()


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
