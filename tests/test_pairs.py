"""Contrast pairs: reading, refusing, and recording their states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from _models import D_MODEL, prompt, tiny_backend
from cogit.activations import Activations, record
from cogit.errors import ArtefactError
from cogit.layers import LayerRange
from cogit.pairs import ContrastPair, load_pairs

if TYPE_CHECKING:
    from pathlib import Path

    from cogit.backends.transformers import TransformersBackend

GOOD = '{"positive": "yes", "negative": "no"}'


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    return tiny_backend()


@pytest.fixture(scope="module")
def pairs() -> list[ContrastPair]:
    return [ContrastPair(prompt(2 + i, i), prompt(5, 50 + i)) for i in range(5)]


# ---- files ----


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_load(tmp_path: Path) -> None:
    path = write(
        tmp_path / "pairs.jsonl", GOOD, "", '{"positive": "ja é", "negative": "нет"}', "  "
    )
    assert load_pairs(path) == [ContrastPair("yes", "no"), ContrastPair("ja é", "нет")]


@pytest.mark.parametrize(
    "line",
    [
        '{"positive": "a"}',
        '{"positive": "a", "negative": "  "}',
        '{"positive": "a", "negative": "a"}',
        '["a", "b"]',
        '"text"',
        "not json",
        "null",
        "3",
        '{"positive": 1, "negative": null}',
        '{"positive": ["a"], "negative": "b"}',
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "pairs.jsonl", GOOD, GOOD, line)
    with pytest.raises(ValueError, match=r"^\[pairs\] expected [^\n]+pairs\.jsonl:3, got [^\n]+$"):
        load_pairs(path)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_pairs_are_refused(tmp_path: Path, n: int) -> None:
    path = write(tmp_path / "pairs.jsonl", *[GOOD] * n)
    with pytest.raises(ValueError, match=rf"^\[pairs\] expected at least 2 .*got {n}$"):
        load_pairs(path)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_pairs(tmp_path / "none.jsonl")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match=r"^\[pairs\] expected UTF-8 text in [^\n]+$"):
        load_pairs(path)


# ---- recording ----


def test_record_averages_the_last_states(
    backend: TransformersBackend, pairs: list[ContrastPair]
) -> None:
    tail = 3
    activations = record(backend, pairs, LayerRange.parse("0,2"), tail=tail, show_progress=False)
    assert activations.positive.shape == activations.negative.shape == (2, 5, D_MODEL)
    assert activations.layers == (0, 2)
    for index, pair in enumerate(pairs):
        for text, rows in (
            (pair.positive, activations.positive),
            (pair.negative, activations.negative),
        ):
            states = backend.residuals([backend.tokenize(text)], [0, 2])[0]
            first = max(1, states.shape[1] - tail)
            # Batched with padding there, alone here: float32 sums of another order.
            np.testing.assert_allclose(
                rows[:, index], states[:, first:].mean(axis=1), rtol=1e-4, atol=1e-5
            )


def test_the_first_token_never_counts(backend: TransformersBackend) -> None:
    pairs = [ContrastPair("w5", "w6"), ContrastPair("w7", "w8")]
    activations = record(backend, pairs, tail=50, show_progress=False)
    states = backend.residuals([backend.tokenize("w5")], range(3))[0]
    np.testing.assert_allclose(activations.positive[:, 0], states[:, 1], rtol=1e-4, atol=1e-5)


def test_many_pairs_keep_their_order(backend: TransformersBackend) -> None:
    """More texts than one pass takes."""
    pairs = [ContrastPair(prompt(3, i), prompt(3, 100 + i)) for i in range(40)]
    together = record(backend, pairs, LayerRange.of([1]), show_progress=False)
    part = record(backend, pairs[30:], LayerRange.of([1]), show_progress=False)
    np.testing.assert_allclose(together.positive[:, 30:], part.positive, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(together.negative[:, 30:], part.negative, rtol=1e-4, atol=1e-5)


def test_record_refuses(backend: TransformersBackend, pairs: list[ContrastPair]) -> None:
    with pytest.raises(ValueError, match=r"^\[pairs\] expected at least 2"):
        record(backend, pairs[:1])
    with pytest.raises(ValueError, match=r"^\[record\] expected tail >= 1, got 0$"):
        record(backend, pairs, tail=0)
    with pytest.raises(ValueError, match=r"^\[layers\] expected blocks of this model, 0\.\.2 "):
        record(backend, pairs, LayerRange.of([3]))


def test_activations_round_trip(
    backend: TransformersBackend, pairs: list[ContrastPair], tmp_path: Path
) -> None:
    activations = record(backend, pairs, show_progress=False)
    again = Activations.load(activations.save(tmp_path / "a.safetensors"))
    np.testing.assert_array_equal(again.positive, activations.positive)
    np.testing.assert_array_equal(again.negative, activations.negative)
    assert (again.layers, again.tail, again.identity) == (
        activations.layers,
        activations.tail,
        activations.identity,
    )


def test_another_artefact_is_not_activations(tmp_path: Path) -> None:
    from cogit import artefact

    path = artefact.write(tmp_path / "a.safetensors", "activations", {"positive": np.ones(3)}, {})
    with pytest.raises(ArtefactError, match=r"^\[load\] expected activations in [^\n]+$"):
        Activations.load(path)
