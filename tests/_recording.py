"""What the tests of recording share: pairs, and short forms of the two calls."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _models import prompt, tiny_backend
from cogit.activations import Activations, record
from cogit.backends.transformers import TransformersBackend
from cogit.pairs import ContrastPair
from cogit.recording import record_to
from cogit.store import ActivationStore

# The same texts alone and in a padded batch: float32 sums of another order and shape, through three
# blocks; relative to the largest state.
SAME = 2e-5
PAIRS = [
    ContrastPair(" " + prompt(1 + i, i), " " + prompt(5, 50 + i), prompt(2 + i % 3, 90 + i))
    for i in range(6)
]


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


def fingerprinted() -> TransformersBackend:
    """With a fingerprint, as a model from files has."""
    made = tiny_backend()
    made.identity = dataclasses.replace(made.identity, fingerprint="abc")
    return made


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
