"""cogit reverse: the whole report on planted and tiny models, and the command."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from _models import D_MODEL, prompt, steering, tiny_backend, turn
from _planted import PLAIN, PLANTED_LAYER, learned, planted_backend, recorded, texts
from cogit.cli.main import main
from cogit.cli.reverse import _texts
from cogit.evaluation.reverse import reverse
from cogit.evaluation.round_trip import UNINFORMATIVE
from cogit.evaluation.transport import transport
from cogit.evaluation.undo import by_affine, undo_ratio
from cogit.gates import Gate
from cogit.identity import ModelIdentity
from cogit.intervention import Intervention
from cogit.operators import (
    Ablation,
    Additive,
    Commitment,
    Unitary,
)
from cogit.pairs import ContrastPair
from cogit.positions import Positions

if TYPE_CHECKING:
    pass


# ---- gates ----


def test_a_gate_counts_in_every_figure() -> None:
    """A token whose gate is closed has no edit: it is not undone, and carried nowhere."""
    backend = tiny_backend()
    texts_ = [prompt(8, seed) for seed in range(4)]
    plain = steering(backend, (1,), turn(restore=False))
    ids = backend.require_fit(texts_, 0)
    rows = [states[0] for states in backend.residuals(ids, (1,))]
    direction = np.random.default_rng(0).standard_normal(D_MODEL)
    scores = np.concatenate(rows).astype(np.float64) @ direction
    gate = Gate(direction, np.zeros(D_MODEL), float(np.median(scores)))
    gated = replace(plain, gates={1: gate})
    begin = plain.positions.window(len(ids[0]))[0]
    kept = [states[begin:] for states in rows]
    is_open = [gate.factors(states, len(states))[begin:] > 0 for states in rows]
    report = reverse(backend, gated, texts_, draws=2)
    (layer,) = report.layers
    assert layer.gate is not None
    assert layer.gate.n_tokens == sum(map(len, kept))
    assert layer.gate.n_open == sum(int(x.sum()) for x in is_open)
    assert 0 < layer.gate.n_open < layer.gate.n_tokens
    assert layer.gate.n_partly == 0
    fold, back = (plain.operators[1].fold(s) for s in (1.0, -1.0))
    alone = undo_ratio(
        fold,
        by_affine(back),
        [states[x] for states, x in zip(kept, is_open, strict=True) if x.any()],
    )
    assert layer.opposite.n_counted == alone.n_counted
    assert layer.opposite.ratio == alone.ratio
    (ungated,) = reverse(backend, plain, texts_, draws=2).layers
    assert ungated.gate is None
    assert layer.opposite.ratio != ungated.opposite.ratio
    assert layer.own_inverse is not None
    assert layer.own_inverse.n_counted == layer.gate.n_open
    assert report.logits.own_inverse_ratio is not None
    assert report.logits.own_inverse_ratio < 1e-3

    never = replace(gate, threshold=float(scores.max()) + 1)
    with pytest.raises(ValueError, match="tokens for which the gate at block 1 opens, got none of"):
        reverse(backend, replace(plain, gates={1: never}), texts_, draws=2)
    with pytest.raises(ValueError, match="expected an opposite without gates"):
        reverse(backend, plain, texts_, opposite=gated, draws=2)


def test_transport_counts_closed_tokens_as_still() -> None:
    """An additive vector carries every open token alike: the figure is the open share of it."""
    push, direction = Additive(np.eye(4)[0]), np.eye(4)[0]
    states = [np.random.default_rng(0).standard_normal((6, 4))]
    factors = [np.array([1.0, 0.0, 0.0, 1.0, 0.5, 0.0])]
    whole = transport(push, states, direction, 1.0)
    assert whole.mean == pytest.approx(0.5)
    assert transport(push, states, direction, 1.0, factors=factors).mean == pytest.approx(
        0.5 * 2.5 / 6
    )


# ---- the whole report ----


@pytest.fixture(scope="module")
def planted_report() -> Any:
    backend = planted_backend()
    activations = recorded(backend)
    unitary = learned(activations, "unitary")
    prompts = texts(6, 3, PLAIN, 6)
    return reverse(backend, unitary, prompts, activations=activations, draws=4)


def test_report_of_a_planted_model(planted_report: Any) -> None:
    """N7: the exact inverse undoes states and logits; the adjoint leaves 1 - cos 60° of an edit."""
    (layer,) = planted_report.layers
    assert layer.layer == PLANTED_LAYER
    assert layer.condition == pytest.approx(2.0, rel=1e-5)
    assert layer.own_inverse.ratio.high < 1e-4
    assert layer.own_inverse_refused == ""
    assert layer.opposite.ratio.mean == pytest.approx(0.5, abs=0.05)
    assert layer.transport.mean == pytest.approx(math.sin(math.radians(60)) / 2, abs=1e-3)
    assert abs(layer.transport_random.mean) < layer.transport.mean
    logits = planted_report.logits
    assert logits.steered.mean > 1e-3
    assert logits.identity.mean == 0.0
    assert logits.own_inverse_ratio < 1e-6
    assert 0.01 < logits.opposite_ratio < 1.0
    assert logits.notes == {}


def test_every_figure_stands_beside_its_controls(planted_report: Any) -> None:
    (layer,) = planted_report.layers
    assert layer.identity.ratio is None
    assert "below the edit floor" in layer.identity.note
    assert layer.shuffled.ratio.mean > layer.opposite.ratio.mean
    assert set(layer.random) == {"subspace", "space"}
    for draws in layer.random.values():
        assert draws.n == 4
        assert draws.low <= draws.mean <= draws.high
    assert layer.round_trip.identity == pytest.approx(1.0)
    assert planted_report.logits.random_ratio.n <= 4


def test_what_cannot_be_undone_says_so() -> None:
    """A clamp refuses, and a restore leaves no ratio on the logits, each with its reason."""
    backend = tiny_backend()
    restoring = steering(backend, [1], turn(restore=True), strength=0.6)
    report = reverse(backend, restoring, [prompt(8), prompt(6, 1)], draws=2)
    assert report.layers[0].own_inverse is not None
    assert report.logits.own_inverse is None
    assert "its inverse is no affine" in report.logits.notes["own_inverse"]
    assert "not one affine" in report.logits.notes["opposite"]
    assert report.logits.random_ratio is None
    wiped = steering(backend, [0, 2], Ablation.example(D_MODEL, 0))
    report = reverse(backend, wiped, [prompt(8)], draws=2)
    assert [layer.layer for layer in report.layers] == [0, 2]
    for layer in report.layers:
        assert layer.own_inverse is None
        assert layer.own_inverse_refused.startswith("[inverse] expected a map with a condition")
        assert layer.transport is None
    assert "own_inverse" in report.logits.notes
    weak = steering(backend, [1], Additive(1e-6 * np.ones(D_MODEL)))
    report = reverse(backend, weak, [prompt(8)], draws=1)
    assert report.layers[0].opposite.ratio is None
    assert report.logits.opposite_ratio is None
    assert "below the floor" in report.logits.notes["steered"]


def test_only_steered_tokens_are_measured() -> None:
    backend = tiny_backend()
    window = steering(backend, [1], positions=Positions("range", 2, 5), strength=0.5)
    report = reverse(backend, window, [prompt(8), prompt(3)], draws=1)
    assert report.layers[0].opposite.n_tokens == 3 + 2
    with pytest.raises(ValueError, match="expected texts with a steered token"):
        reverse(backend, window, [prompt(1)], draws=1)


def test_a_second_intervention_as_the_opposite() -> None:
    """Two operators that were made apart, as earlier systems trained them."""
    backend = tiny_backend()
    plus = steering(backend, [1], turn(restore=False), strength=0.5)
    minus = steering(backend, [1], turn(seed=1, restore=False), strength=0.5)
    report = reverse(backend, plus, [prompt(8)], opposite=minus, draws=1)
    facts = report.layers[0].unitary
    assert facts is not None
    assert facts.conjugate_test["relative"] > 0.1
    assert report.layers[0].round_trip.mean < 1.0
    with pytest.raises(ValueError, match="expected an opposite on blocks"):
        reverse(backend, plus, [prompt(8)], opposite=steering(backend, [0]), draws=1)
    for broken, given in ((plus.at_strength(0.0), [prompt(8)]), (plus, [])):
        with pytest.raises(ValueError, match=r"^\[reverse\] expected"):
            reverse(backend, broken, given)


# ---- the command ----


@pytest.fixture
def files(tiny_identity: ModelIdentity, tmp_path: Path) -> dict[str, str]:
    operator = Unitary.example(tiny_identity.d_model, 0)
    operator = replace(operator, mean=np.zeros(tiny_identity.d_model), restore=False)
    made = Intervention({1: operator}, tiny_identity, strength=0.5)
    words = ["ba de", "ko mi", "tu re", "sa lo"]
    pairs = "\n".join(
        json.dumps({"positive": f"{a} {b} na", "negative": f"{a} {b} pe"})
        for a, b in itertools.pairwise(words)
    )
    (tmp_path / "pairs.jsonl").write_text(pairs)
    (tmp_path / "prompts.txt").write_text("\n".join(words) + "\n\n")
    Intervention({1: Commitment.draw(7)}, replace(tiny_identity, d_model=7)).save(
        tmp_path / "narrow.safetensors"
    )
    return {
        "intervention": str(made.save(tmp_path / "i.safetensors")),
        "pairs": str(tmp_path / "pairs.jsonl"),
        "prompts": str(tmp_path / "prompts.txt"),
        "narrow": str(tmp_path / "narrow.safetensors"),
    }


def run(files: dict[str, str], model: Path, *arguments: str, kind: str = "intervention") -> int:
    threads = ["--threads", "1", "--draws", "2"]
    given = ["reverse", "--intervention", files[kind], "--model", str(model)]
    return main([*given, *threads, *arguments])


def test_command_prints_json(
    files: dict[str, str], tiny_hf: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Q28, Q29 and the fields of each layer, as one JSON object."""
    assert run(files, tiny_hf, "--pairs", files["pairs"], "--json") == 0
    facts = json.loads(capfd.readouterr().out)
    (layer,) = facts["layers"]
    assert facts["n_texts"] == 6
    assert layer["own_inverse"]["ratio"]["high"] < 1e-3
    assert set(layer["round_trip"]) >= {"mean", "std", "min", "max", "fidelities"}
    assert set(layer["unitary"]["conjugate_test"]) == {"frobenius_norm", "relative"}
    assert set(layer["unitary"]) >= {"unitarity_deviation", "fidelity", "reversibility"}
    assert set(layer["transport"]) == {"mean", "low", "high"}
    assert facts["logits"]["own_inverse_ratio"] < 1e-3


def test_texts_of_pairs_carry_their_prompt() -> None:
    """The model reads the prompt and the continuation, as it did where pairs were recorded."""
    assert _texts([ContrastPair(" yes", " no", "Is it?"), ContrastPair("a", "b")]) == [
        *("Is it? yes", "Is it? no"),
        *("a", "b"),
    ]


def test_command_prints_a_table(
    files: dict[str, str], tiny_hf: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(files, tiny_hf, "--prompts", files["prompts"]) == 0
    out = capfd.readouterr().out
    for words in ("own inverse", "opposite", "(control)", UNINFORMATIVE, "give --pairs"):
        assert words in out


@pytest.mark.llamacpp
def test_command_on_llamacpp_agrees(
    files: dict[str, str], tiny_hf: Path, tiny_gguf: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = ("--prompts", files["prompts"], "--json")
    assert run(files, tiny_hf, *given) == 0
    expected = json.loads(capfd.readouterr().out)
    assert run(files, tiny_gguf, *given, "--backend", "llamacpp") == 0
    got = json.loads(capfd.readouterr().out)
    for name in ("opposite", "shuffled"):
        a, b = (x["layers"][0][name]["ratio"]["mean"] for x in (got, expected))
        assert a == pytest.approx(b, rel=1e-3)
    # float32 logits of both agree to 1e-4, their divergences to a part of that.
    steered = [x["logits"]["steered"]["mean"] for x in (got, expected)]
    assert steered[0] == pytest.approx(steered[1], rel=1e-2)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((), "intervention", "expected --pairs or --prompts, got neither"),
        (("--prompts", "nowhere.txt"), "intervention", "which does not exist"),
        (("--prompts", "pairs"), "narrow", "blocks of width 7"),
        (("--prompts", "pairs", "--opposite", "pairs"), "intervention", "safetensors"),
        (("--pairs", "prompts"), "intervention", "[pairs] expected JSON in"),
    ],
)
def test_command_refuses_in_one_line(
    files: dict[str, str],
    tiny_hf: Path,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    kind: str,
    message: str,
) -> None:
    named = [files.get(word, word) for word in arguments]
    assert run(files, tiny_hf, *named, kind=kind) == 2
    assert message in capfd.readouterr().err
